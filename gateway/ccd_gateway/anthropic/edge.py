"""The ASGI layer around the paths of the Messages API: `request-id`, and errors in that API's shape.

It is outside of everything else, so it holds for every answer, whoever makes it.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable
from typing import Any

import msgspec

from ccd_gateway.anthropic.errors import refusal
from ccd_gateway.edge.envelope import App, Message, Receive, Scope, Send, request_id
from ccd_gateway.errors import JSON

_MESSAGES = "/v1/messages"
_MODELS = "/v1/models"
_ID = b"x-request-id"


class MessagesEdge:
    """An ASGI application around another; other paths are not touched."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request, as ASGI wants it; no coroutine of its own, for each lives as long as a stream."""
        if scope["type"] != "http" or not speaks_anthropic(scope["path"], scope["headers"]):
            return self._app(scope, receive, send)
        given = dict(scope["headers"]).get(_ID)
        own_id = given if given is not None and request_id(given) == given else _new_id()
        others = [(name, value) for name, value in scope["headers"] if name != _ID]
        inner = {**scope, "headers": [*others, (_ID, own_id)]}
        return self._app(inner, receive, _Answer(send, own_id))


def speaks_anthropic(path: str, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request is one of the Messages API's; both APIs have `/v1/models`, and only this one a version."""
    if path == _MESSAGES or path.startswith(_MESSAGES + "/"):
        return True
    return path.startswith(_MODELS) and any(name == b"anthropic-version" for name, _ in headers)


class _Answer:
    """What the application sends, on its way out."""

    def __init__(self, send: Send, own_id: bytes) -> None:
        self._send = send
        self._id = own_id
        self._held: Message | None = None  # the start of an error answer, until its body is known
        self._body: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"request-id", self._id)]
            if message["status"] >= 400 and _is_json(message):
                self._held = message
                return
        elif self._held is not None and message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._refuse(self._held)
            return
        await self._send(message)

    async def _refuse(self, start: Message) -> None:
        body = b"".join(self._body)
        error = _openai_error(body)
        if error is not None:
            start["status"], body = refusal(start["status"], error, self._id.decode())
            others = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            start["headers"] = [*others, (b"content-length", str(len(body)).encode())]
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _is_json(start: Message) -> bool:
    kinds = [value for name, value in start["headers"] if name.lower() == b"content-type"]
    return any(kind.startswith(JSON.encode()) for kind in kinds)


def _openai_error(body: bytes) -> dict[str, Any] | None:
    """The `error` object of a body, or None when it has none, as the answer to HEAD."""
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    error = value.get("error") if isinstance(value, dict) and "type" not in value else None
    return error if isinstance(error, dict) else None


def _new_id() -> bytes:
    return f"req_{secrets.token_hex(12)}".encode()
