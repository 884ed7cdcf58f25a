"""`/v1/messages/batches`: Anthropic's Message Batches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.access.caller import Caller, caller_of
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import ApiError, bad_request
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.shapes import MESSAGES
from ccd_gateway.surface.body import decode_object
from ccd_gateway.surface.driver import send
from ccd_gateway.tasks.batches.files import stream_bytes
from ccd_gateway.tasks.batches.lines import BatchLines, message_body
from ccd_gateway.tasks.batches.names import renamed, rfc3339, task_of
from ccd_gateway.tasks.batches.openai import WINDOW_S, fill
from ccd_gateway.tasks.options import idempotency_key, refuse_unknown, whole, whole_number
from ccd_gateway.tasks.worker import Item, Task, TaskWorker

Json = dict[str, Any]
PREFIX = "msgbatch"
_KNOWN = ("requests", "webhook", "budget_usd", "priority", "metadata")


class MessageBatches:
    """The resource; one instance per worker process."""

    def __init__(self, worker: TaskWorker, settings: GatewaySettings, lines: BatchLines) -> None:
        self._worker = worker
        self._settings = settings
        self._lines = lines

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Begin a batch; a request that is wrong is an error among its results."""
        caller = caller_of(req)
        body = await read_body(req, self._settings.max_body_bytes)
        fields = await apart(body, decode_object, body)
        refuse_unknown(fields, _KNOWN)
        requests = _checked(fields.get("requests"))
        submit: Json = {"kind": "batch", "open": True, "surface": "anthropic"}
        submit["options"] = whole(fields, deadline_s=WINDOW_S)
        if fields.get("priority") is not None:
            submit["priority"] = fields["priority"]
        task = await self._worker.submit(caller, {**submit, "idempotency_key": idempotency_key(req, {})})
        if task["created"]:
            task = await fill(self._worker, caller, task, self._steps(req, requests))
        send(resp, batch_object(req, task))

    async def _steps(self, req: falcon.asgi.Request, requests: list[Json]) -> AsyncIterator[Json]:
        for request in requests:
            yield await self._lines.anthropic(req, request["custom_id"], request["params"])

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Batches, newest first."""
        params: Json = {"surfaces": ["anthropic"], "limit": whole_number(req, "limit", 20, 1, 1000)}
        if req.get_param("before_id") is not None:
            raise bad_request("before_id: pages go forwards here; use after_id.", "before_id")
        if (after := req.get_param("after_id")) is not None:
            params["after"] = task_of(after, PREFIX)
        found = await self._worker.call(caller_of(req), "task.list", params)
        data = [batch_object(req, task) for task in found["tasks"]]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        send(resp, {"data": data, "has_more": found["has_more"], **ends})

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, batch_id: str) -> None:
        """One batch."""
        send(resp, batch_object(req, await self._found(req, batch_id)))

    async def on_delete_one(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, batch_id: str
    ) -> None:
        """Forget a batch that has ended."""
        task = await self._found(req, batch_id)
        if not task["final"]:
            raise bad_request("The batch is still processing; cancel it first.", "message_batch_id")
        await self._worker.call(caller_of(req), "task.delete", {"task_id": task["id"]})
        send(resp, {"id": batch_id, "type": "message_batch_deleted"})

    async def on_post_cancel(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, batch_id: str
    ) -> None:
        """End a batch; what was answered stays."""
        task = await self._found(req, batch_id)
        task = await self._worker.call(caller_of(req), "task.cancel", {"task_id": task["id"]})
        send(resp, batch_object(req, task))

    async def on_get_results(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, batch_id: str
    ) -> None:
        """The results as JSON lines, once all have ended."""
        task = await self._found(req, batch_id)
        if not task["final"]:
            raise bad_request("The batch has no results yet: it is still processing.", "message_batch_id")
        caller = caller_of(req)
        stream_bytes(req, resp, self._results(caller, task))
        resp.content_type = "application/x-jsonl"

    async def _results(self, caller: Caller, task: Task) -> AsyncIterator[bytes]:
        async for item in self._worker.items(caller, task["id"]):
            line = {"custom_id": item["name"], "result": result_of(task, item)}
            yield msgspec.json.encode(line) + b"\n"

    async def _found(self, req: falcon.asgi.Request, batch_id: str) -> Task:
        params = {"task_id": task_of(batch_id, PREFIX)}
        task: Task = await self._worker.call(caller_of(req), "task.get", params)
        if task["surface"] != "anthropic":
            raise ApiError(404, f"There is no message batch {batch_id[:80]!r}.", code="not_found")
        return task


def _checked(requests: Any) -> list[Json]:
    """The requests, as far as the batch itself depends on them.

    Raises:
        ApiError: 400.
    """
    if not isinstance(requests, list) or not requests:
        raise bad_request("requests: expected at least one request.", "requests")
    seen: set[str] = set()
    for number, request in enumerate(requests):
        where = f"requests.{number}"
        if not isinstance(request, dict):
            raise bad_request(f"{where}: expected an object.", where)
        refuse_unknown(request, ("custom_id", "params"), f"{where}.")
        name = request.get("custom_id")
        if not isinstance(name, str) or not 0 < len(name) <= 64 or not name.isprintable():
            text = f"{where}.custom_id: expected 1 to 64 printable characters."
            raise bad_request(text, f"{where}.custom_id")
        if name in seen:
            raise bad_request(f"{where}.custom_id: {name!r} was used before.", f"{where}.custom_id")
        seen.add(name)
        if not isinstance(request.get("params"), dict):
            raise bad_request(f"{where}.params: expected an object.", f"{where}.params")
    return requests


def result_of(task: Task, item: Item) -> Json:
    """The result of one request."""
    if item["status"] == "completed":
        return {"type": "succeeded", "message": message_body(task["id"], item)}
    error = item["error"] or {"code": item["status"], "message": f"this request is {item['status']}"}
    if item["status"] == "cancelled" and item["started_at"] is None and error["code"] == "expired":
        return {"type": "expired"}
    if item["status"] == "cancelled":
        return {"type": "canceled"}
    refusal = ApiError(error.get("http_status") or 500, error["message"], param=error.get("param"))
    rendered = msgspec.json.decode(MESSAGES.render(refusal, "").body)
    return {"type": "errored", "error": {**rendered, "request_id": None}}


def batch_object(req: falcon.asgi.Request, task: Task) -> Json:
    """Anthropic's `message_batch`."""
    batch_id, counts = renamed(task["id"], PREFIX), task["items"]
    state = "ended" if task["final"] else "canceling" if task["cancelling"] else "in_progress"
    expired = task["status"] == "failed" and (task["error"] or {}).get("code") == "expired"
    tally = {
        "processing": counts["pending"] + counts["running"],
        "succeeded": counts["completed"],
        "errored": counts["failed"] + counts["interrupted"],
        "canceled": 0 if expired else counts["cancelled"],
        "expired": counts["cancelled"] if expired else 0,
    }
    url = f"{req.scheme}://{req.netloc}/v1/messages/batches/{batch_id}/results"
    return {
        **{"id": batch_id, "type": "message_batch", "processing_status": state, "request_counts": tally},
        **{"created_at": rfc3339(task["created_at"]), "expires_at": rfc3339(task["expires_at"])},
        "ended_at": rfc3339(task["completed_at"]) if task["final"] else None,
        "cancel_initiated_at": rfc3339(task["updated_at"]) if task["cancelling"] else None,
        "archived_at": None,
        "results_url": url if task["final"] else None,
    }
