"""`/v1/tasks`: ccd's own surface for durable work, with everything that it can do."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import falcon
import falcon.asgi

from ccd_gateway.access.caller import Caller, caller_of
from ccd_gateway.edge.body import read_body
from ccd_gateway.edge.outlet import Body, stream_events
from ccd_gateway.edge.work import apart
from ccd_gateway.errors import ApiError, bad_request, from_rpc
from ccd_gateway.sessions import access
from ccd_gateway.sessions.access import may_use_agents
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.shapes import OPENAI
from ccd_gateway.surface.body import decode_object
from ccd_gateway.surface.driver import KEEPALIVE, send
from ccd_gateway.tasks.options import idempotency_key, refuse_unknown, wait_of, whole_number
from ccd_gateway.tasks.worker import TaskWorker
from ccd_protocol.acting import acting
from ccd_protocol.errors import RpcError

_SUBMIT = ("kind", "steps", "priority", "options", "idempotency_key")
_LAST_SEQ = 2**53


class NativeTasks:
    """The resource; one instance per worker process."""

    def __init__(self, worker: TaskWorker, settings: GatewaySettings) -> None:
        self._worker = worker
        self._settings = settings

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Accept a task, batch or workflow: 202; 200 for an idempotency key that was used before."""
        caller = caller_of(req)
        body = await read_body(req, self._settings.max_body_bytes)
        fields = await apart(body, decode_object, body)
        refuse_unknown(fields, _SUBMIT)
        steps = fields.get("steps")
        if not isinstance(steps, list):
            raise bad_request("'steps': expected a list.", "steps")
        params = {
            **fields,
            "surface": "task",
            "steps": [await self._permitted(caller, step) for step in steps],
        }
        params["idempotency_key"] = idempotency_key(req, fields)
        task = await self._worker.submit(caller, params)
        resp.status = 202 if task.pop("created") else 200
        send(resp, task)

    async def _permitted(self, caller: Caller, step: Any) -> Any:
        """A step as the caller may have it; what is wrong with its form, the worker says."""
        if not isinstance(step, dict):
            return step
        open_to_all = self._settings.allow_agent_without_key
        if step.get("agent") is not None and not may_use_agents(caller, without_key=open_to_all):
            text = "Agent steps need a key with the scope 'agent' (or gateway.allow_agent_without_key)."
            raise ApiError(403, text, code="insufficient_scope", headers=[("x-should-retry", "false")])
        if isinstance(step.get("agent"), dict):
            step = {**step, "agent": await self._permitted_agent(caller, step)}
        for word in ("output_file", "error"):
            if step.get(word) is not None:
                raise bad_request(f"There is no option 'steps.{word}'.", f"steps.{word}", "unknown_parameter")
        if isinstance(step.get("chat"), dict):
            chat = {**await self._worker.permit(step["chat"])}
            chat.pop("tenant", None)
            return {**step, "chat": chat}
        return step

    async def _permitted_agent(self, caller: Caller, step: dict[str, Any]) -> dict[str, Any]:
        """The session of an agent's step, with nothing that a client may not set, and its key's models alone."""
        agent = acting("session.open", step["agent"], set_here=("tenant", "models"))
        model, prompt = agent.get("model"), step.get("prompt")
        if caller.key is not None:
            known = await self._worker.known()
            name = (
                model if isinstance(model, str) and model else None
            )  # the daemon says what is wrong with others
            access.check_model(caller, known, name)
            access.check_said(caller, known, name or "", prompt if isinstance(prompt, str) else "")
            if (models := access.models_of(caller.key, known, name)) is not None:
                agent["models"] = models
        return agent

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Tasks of all surfaces, newest first."""
        words = {
            f"{name}s" if name != "status" else "statuses": req.get_param_as_list(name) or []
            for name in ("status", "kind", "surface")
        }
        params: dict[str, Any] = {**words, "limit": whole_number(req, "limit", 20, 1, 1000)}
        if (after := req.get_param("after")) is not None:
            params["after"] = after
        found = await self._worker.call(caller_of(req), "task.list", params)
        send(resp, {"object": "list", "data": found["tasks"], **_rest(found)})

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        """One task; `?wait=SECONDS` waits for its end."""
        wait_s = wait_of(req)
        if wait_s:
            send(resp, await self._worker.wait(caller_of(req), task_id, wait_s))
        else:
            await self._say(req, resp, "task.get", task_id)

    async def on_delete_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        """Forget a task that has ended."""
        await self._worker.call(caller_of(req), "task.delete", {"task_id": task_id})
        send(resp, {"id": task_id, "object": "task", "deleted": True})

    async def on_post_cancel(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str
    ) -> None:
        """End a task; what has ended stays as it is."""
        await self._say(req, resp, "task.cancel", task_id)

    async def on_post_retry(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        """Run once more what did not succeed."""
        await self._say(req, resp, "task.retry", task_id)

    async def on_get_items(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        """Steps and lines with their answers, a page at a time."""
        params = {"task_id": task_id, "limit": whole_number(req, "limit", 200, 1, 1000)}
        if req.get_param("after") is not None:
            params["after"] = whole_number(req, "after", 0, 0, 10**9)
        found = await self._worker.call(caller_of(req), "task.items", params)
        send(resp, {"object": "list", "data": found["items"], "has_more": found["has_more"]})

    async def on_get_webhooks(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str
    ) -> None:
        """Webhooks, and how their delivery went."""
        found = await self._worker.call(caller_of(req), "task.webhooks", {"task_id": task_id})
        send(resp, {"object": "list", "data": found["webhooks"], "has_more": False})

    async def on_post_webhooks(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str
    ) -> None:
        """Deliver webhooks once more."""
        body = await read_body(req, self._settings.max_body_bytes)
        fields = await apart(body, decode_object, body) if body.strip() else {}
        refuse_unknown(fields, ("webhook_ids",))
        send(resp, await self._worker.call(caller_of(req), "task.resend", {"task_id": task_id, **fields}))

    async def on_get_events(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        """Progress and output as server-sent events, from any point on (`Last-Event-ID`, or `?after=`)."""
        after = _place(req)
        caller = caller_of(req)
        await self._worker.call(caller, "task.get", {"task_id": task_id})  # a 404 is a status, not an event
        stream_events(req, resp, Body(self._events(caller, task_id, after)))

    async def _events(self, caller: Caller, task_id: str, after: int) -> AsyncGenerator[bytes, None]:
        keepalive_s = self._settings.keepalive_s
        try:
            async with self._worker.events(caller, task_id, after) as stream:
                while (payloads := await stream.next_within(keepalive_s)) is not None:
                    yield b"".join(map(_sse, b"".join(payloads).splitlines())) or KEEPALIVE
        except RpcError as error:
            yield _failure(from_rpc(error))
        except ApiError as error:
            yield _failure(error)

    async def _say(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, method: str, task_id: str
    ) -> None:
        send(resp, await self._worker.call(caller_of(req), method, {"task_id": task_id}))


def _place(req: falcon.asgi.Request) -> int:
    header = req.get_header("last-event-id")
    if header is None:
        return whole_number(req, "after", 0, 0, _LAST_SEQ)
    if not header.isascii() or not header.isdigit() or len(header) > 16:
        raise bad_request("Last-Event-ID: expected the number of an event.", "last-event-id")
    return int(header)


def _sse(line: bytes) -> bytes:
    event = json.loads(line)
    head = f"id: {event['seq']}\nevent: {event['type']}\ndata: "
    return head.encode() + line + b"\n\n"


def _failure(error: ApiError) -> bytes:
    return b"event: error\ndata: " + OPENAI.render(error, "").body + b"\n\n"


def _rest(found: dict[str, Any]) -> dict[str, Any]:
    return {"total": found["total"], "has_more": found["has_more"]}
