"""`GET /health`."""

from __future__ import annotations

import datetime
import math
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.answer.backend import Backend
from ccd_gateway.edge.description import TEXT, Description, record, ref, refused
from ccd_gateway.edge.routing import Route
from ccd_gateway.errors import JSON
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.errors import RpcError

_TIMEOUT_S = 1.0


class Health:
    """Whether a chat sent now would be accepted: 200 or 503. Plain unless JSON is asked for; `json` reverses that."""

    def __init__(self, backend: Backend, *, json: bool = False) -> None:
        self._backend = backend
        self._json = json

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Ask the daemon."""
        state = await self._state()
        if not state["ready"]:
            resp.status = 503
            resp.set_header("retry-after", str(_retry_after_s(state)))
        if self._in_json((req.get_header("accept") or "").lower()):
            resp.content_type = JSON
            resp.data = msgspec.json.encode(_shown(state))
        else:
            resp.content_type = "text/plain; charset=utf-8"
            resp.text = "OK" if state["ready"] else f"UNAVAILABLE: {state['reason'] or state['state']}"

    on_head = on_get

    def _in_json(self, accept: str) -> bool:
        return JSON in accept or (self._json and "text/plain" not in accept)

    async def _state(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await self._backend.call_once("daemon.health", timeout_s=_TIMEOUT_S)
        except RpcError as error:
            return {"ready": False, "state": "down", "reason": error.message}
        return found


def _shown(state: dict[str, Any]) -> dict[str, Any]:
    """The daemon's state, and the four keys that claude_code_api had."""
    cli = state.get("cli_version")
    others = {name: value for name, value in state.items() if name != "version"}
    return {
        "status": "healthy" if state["ready"] else "unavailable",
        "claude_code_available": cli is not None,
        "timestamp": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "version": f"claude version {cli or 'unknown'}",
        "ccd_version": state.get("version"),
        **others,
    }


def _retry_after_s(state: dict[str, Any]) -> int:
    wait_ms = state.get("retry_after_ms")
    return max(1, math.ceil(wait_ms / 1000)) if isinstance(wait_ms, int) else 1


def routes(backend: Backend, settings: GatewaySettings) -> list[Route]:
    """The one route, for everybody."""
    return [Route("/health", Health(backend, json=settings.json_health), _description, scopes=None)]


def _description() -> Description:
    content = {"text/plain": {"schema": TEXT}, JSON: {"schema": ref("Health")}}
    answers = {"200": "A chat sent now would be accepted.", "503": "It would not."}
    described = {status: {"description": text, "content": content} for status, text in answers.items()}
    state = record({"status": {"enum": ["healthy", "unavailable"]}, "ready": {"type": "boolean"}})
    get = {"operationId": "health", "responses": {**refused({}), **described}}
    return Description({"get": get}, {"Health": state})
