"""`/v1/batches`: OpenAI's Batch API. A wrong line becomes an error of the batch, with its number."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.access.caller import Caller, caller_of
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.work import apart, share_of
from ccd_gateway.errors import ApiError, bad_request
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.body import decode_object
from ccd_gateway.surface.driver import send
from ccd_gateway.tasks.batches.files import BatchFiles, listed, made_files, refuse_anthropic
from ccd_gateway.tasks.batches.lines import CHAT, RESPONSES, BatchLines
from ccd_gateway.tasks.batches.names import output_file, renamed, seconds, task_of
from ccd_gateway.tasks.options import error_of, idempotency_key, refuse_unknown, whole, whole_number
from ccd_gateway.tasks.worker import Task, TaskWorker

Json = dict[str, Any]
PREFIX = "batch"
WINDOW_S = 86400.0
_KNOWN = ("input_file_id", "endpoint", "completion_window", "metadata", "webhook", "budget_usd", "priority")
_LINE = ("custom_id", "method", "url", "body")
_STEPS_AT_ONCE = 200
_BYTES_AT_ONCE = 4 << 20
_STATES = {"open": "validating", "pending": "in_progress", "running": "in_progress"}


class Batches:
    """The resource; one instance per worker process."""

    def __init__(
        self, worker: TaskWorker, settings: GatewaySettings, lines: BatchLines, files: BatchFiles
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._lines = lines
        self._files = files

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Begin a batch of a file's lines."""
        refuse_anthropic(req)
        caller = caller_of(req)
        body = await read_body(req, self._settings.max_body_bytes)
        fields = await apart(body, decode_object, body)
        refuse_unknown(fields, _KNOWN)
        file_id, endpoint = fields.get("input_file_id"), fields.get("endpoint")
        if not isinstance(file_id, str) or not file_id:
            text = "Missing required parameter: 'input_file_id'."
            raise bad_request(text, "input_file_id", "missing_required_parameter")
        if endpoint not in (CHAT, RESPONSES):
            raise bad_request(f"'endpoint': expected {CHAT} or {RESPONSES}.", "endpoint")
        if fields.get("completion_window", "24h") != "24h":
            raise bad_request("'completion_window': expected 24h.", "completion_window")
        await self._worker.call(caller, "file.get", {"file_id": file_id})
        meta = {"endpoint": endpoint, "input_file_id": file_id}
        options = whole(fields, deadline_s=WINDOW_S, meta=meta)
        task = await self._worker.submit(
            caller,
            {
                **{"kind": "batch", "open": True, "surface": "openai", "options": options},
                **({"priority": fields["priority"]} if fields.get("priority") is not None else {}),
                "idempotency_key": idempotency_key(req, {}),
            },
        )
        if task["created"]:
            steps = self._steps(req, endpoint, self._files.pieces(caller, file_id))
            task = await fill(self._worker, caller, task, steps)
        send(resp, batch_object(task))

    async def _steps(
        self, req: falcon.asgi.Request, endpoint: str, pieces: AsyncIterator[bytes]
    ) -> AsyncIterator[Json]:
        seen: set[str] = set()
        async for number, text in numbered(pieces):
            try:
                await share_of(req.scope).look(text)
                name, body, wrong = await apart(text, _parsed, text, endpoint, seen)
            except ApiError as error:
                name, body, wrong = "", None, error
            if wrong is None:
                step = await self._lines.openai(req, endpoint, name, body)
            else:
                step = {"name": name or f"line-{number}", "error": error_of(wrong)}
            if "error" in step:
                told = step["error"]
                step["error"] = {**told, "message": f"line {number}: {told['message']}", "line": number}
            yield step

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Batches, newest first."""
        refuse_anthropic(req)
        params: Json = {"surfaces": ["openai"], "limit": whole_number(req, "limit", 20, 1, 100)}
        if (after := req.get_param("after")) is not None:
            params["after"] = task_of(after, PREFIX)
        found = await self._worker.call(caller_of(req), "task.list", params)
        send(resp, listed([batch_object(task) for task in found["tasks"]], has_more=found["has_more"]))

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, batch_id: str) -> None:
        """One batch."""
        send(resp, batch_object(await self._found(req, batch_id)))

    async def on_post_cancel(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, batch_id: str
    ) -> None:
        """End a batch; what was answered stays."""
        task = await self._found(req, batch_id)
        if task["final"]:
            raise ApiError(409, f"The batch has ended: it is {task['status']}.", code="batch_not_cancellable")
        task = await self._worker.call(caller_of(req), "task.cancel", {"task_id": task["id"]})
        send(resp, batch_object(task))

    async def _found(self, req: falcon.asgi.Request, batch_id: str) -> Task:
        refuse_anthropic(req)
        params = {"task_id": task_of(batch_id, PREFIX)}
        task: Task = await self._worker.call(caller_of(req), "task.get", params)
        if task["surface"] != "openai":
            raise ApiError(404, f"There is no batch {batch_id[:80]!r}.", code="not_found")
        return task


async def fill(worker: TaskWorker, caller: Caller, task: Task, steps: AsyncIterator[Json]) -> Task:
    """Append the steps of an open batch, some at a time, and start it; one that cannot be is cancelled."""
    held: list[Json] = []
    size = at = 0
    try:
        async for step in steps:
            held.append(step)
            size += len(msgspec.json.encode(step))
            if len(held) >= _STEPS_AT_ONCE or size >= _BYTES_AT_ONCE:
                await worker.call(caller, "task.append", {"task_id": task["id"], "steps": held, "at": at})
                at += len(held)
                held, size = [], 0
        if held:
            await worker.call(caller, "task.append", {"task_id": task["id"], "steps": held, "at": at})
        started: Task = await worker.call(caller, "task.start", {"task_id": task["id"]})
    except BaseException:
        await worker.call(caller, "task.cancel", {"task_id": task["id"]})
        raise
    return started


async def numbered(pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Lines with their numbers, from 1; blank ones are left out."""
    tail, number = b"", 0
    async for piece in pieces:
        *whole_lines, tail = (tail + piece).split(b"\n")
        for text in whole_lines:
            number += 1
            if text.strip():
                yield number, text
    if tail.strip():
        yield number + 1, tail


def _parsed(text: bytes, endpoint: str, seen: set[str]) -> tuple[str, Any, ApiError | None]:
    """A line's id, its body, and what is wrong with it."""
    name = ""
    try:
        line = decode_object(text)
        given = line.get("custom_id")
        name = given[:200] if isinstance(given, str) and given.isprintable() else ""
        refuse_unknown(line, _LINE)
        if not name or len(given or "") > 200:
            raise bad_request("'custom_id': expected 1 to 200 printable characters.", "custom_id")
        if name in seen:
            raise bad_request(f"'custom_id': {name!r} was used before.", "custom_id", "duplicate_custom_id")
        seen.add(name)
        if line.get("method", "POST") != "POST":
            raise bad_request("'method': expected POST.", "method")
        if line.get("url") != endpoint:
            raise bad_request(f"'url': expected {endpoint}, as the batch says.", "url", "mismatched_endpoint")
        if not isinstance(line.get("body"), dict):
            raise bad_request("'body': expected an object.", "body")
    except ApiError as error:
        return name, None, error
    return name, line["body"], None


def batch_object(task: Task) -> Json:
    """OpenAI's `batch`."""
    status, error = task["status"], task["error"]
    state = _STATES.get(status, status)
    if status == "failed" and error and error["code"] == "expired":
        state = "expired"
    elif task["cancelling"] and not task["final"]:
        state = "cancelling"
    counts, made = task["items"], made_files(task)
    ended = seconds(task["completed_at"])
    errors = {"object": "list", "data": [{"param": None, "line": None, **error}]} if error else None
    tokens = {name: task["usage"][name] for name in ("input_tokens", "output_tokens")}
    return {
        **{"id": renamed(task["id"], PREFIX), "object": "batch", "completion_window": "24h", "status": state},
        **{name: task["meta"].get(name) for name in ("endpoint", "input_file_id")},
        "output_file_id": output_file(task["id"], "output") if made["output"] else None,
        "error_file_id": output_file(task["id"], "errors") if made["errors"] else None,
        "errors": errors if state == "failed" else None,
        **{"created_at": seconds(task["created_at"]), "in_progress_at": seconds(task["started_at"])},
        "expires_at": seconds(task["expires_at"]),
        **{f"{word}_at": ended if state == word else None for word in ("completed", "failed", "expired")},
        **{"finalizing_at": ended, "cancelled_at": ended if state == "cancelled" else None},
        "cancelling_at": seconds(task["updated_at"]) if task["cancelling"] else None,
        "request_counts": {
            **{"total": task["total"], "completed": counts["completed"]},
            "failed": counts["failed"] + counts["interrupted"],
        },
        "usage": {
            **tokens,
            "total_tokens": sum(tokens.values()),
            **{"input_tokens_details": {"cached_tokens": 0}},
            **{"output_tokens_details": {"reasoning_tokens": 0}},
        },
        "metadata": task["metadata"] or None,
    }
