"""The files of a batch's answers and failures: written from its items each time that they are asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ccd_gateway.access.caller import Caller
from ccd_gateway.errors import ApiError
from ccd_gateway.tasks.batches.lines import openai_body
from ccd_gateway.tasks.worker import Item, Task, TaskWorker

Json = dict[str, Any]
_EXPIRED = "This request could not be executed before the completion window expired."
_STATUS = {"rate_limit_exceeded": 429, "deadline": 504, "budget": 429, "poisoned": 500}


async def lines(worker: TaskWorker, caller: Caller, task: Task, kind: str) -> AsyncIterator[bytes]:
    """Lines of one of a batch's files: `output` has what was answered, `errors` the rest."""
    async for item in worker.items(caller, task["id"]):
        if (item["status"] == "completed") == (kind == "output"):
            yield msgspec.json.encode(line(task, item)) + b"\n"


def line(task: Task, item: Item) -> Json:
    """One line, as OpenAI writes it."""
    number = f"{task['id'].removeprefix('task_')[:24]}{item['number']}"
    made: Json = {"id": f"batch_req_{number}", "custom_id": item["name"], "response": None, "error": None}
    if item["status"] == "completed":
        body = openai_body(task["meta"]["endpoint"], task["id"], item)
        made["response"] = {"status_code": 200, "request_id": f"req_{number}", "body": body}
        return made
    error = item["error"] or {"code": item["status"], "message": f"this line is {item['status']}"}
    if item["started_at"] is None and "http_status" not in error:
        expired = error["code"] == "expired"
        code = "batch_expired" if expired else f"batch_{error['code']}"
        made["error"] = {"code": code, "message": _EXPIRED if expired else error["message"]}
        return made
    status = error.get("http_status") or _STATUS.get(error["code"], 500)
    refusal = ApiError(status, error["message"], param=error.get("param"), code=error["code"])
    where = {"line": error["line"]} if "line" in error else {}
    body = {"error": {**refusal.error, **where}}
    made["response"] = {"status_code": status, "request_id": f"req_{number}", "body": body}
    return made
