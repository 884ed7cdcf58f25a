"""The ASGI layer that gives every error below the older projects' paths those projects' form.

It is outside of everything else, so it holds for every answer, whoever makes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec

from ccd_gateway.edge.envelope import App, Message, Receive, Scope, Send


class OlderEdge:
    """An ASGI application around another; other paths are not touched."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request, as ASGI wants it; no coroutine of its own, for each lives as long as a stream."""
        if scope["type"] == "http":
            if is_flask(scope["path"]):
                send = _Answer(send, error_body)
            elif is_session(scope["path"]):
                send = _Answer(send, session_error)
        return self._app(scope, receive, send)


def is_flask(path: str) -> bool:
    """Whether a path is claude_code_api's."""
    return path.startswith("/api/") or path.rstrip("/") in ("/api", "/version")


def is_session(path: str) -> bool:
    """Whether a path is one of claude-code-api's sessions."""
    return path.startswith(("/v1/sessions/", "/ws/")) or path == "/v1/sessions"


class _Answer:
    """What the application sends, on its way out; an error is held back until its body is known."""

    def __init__(self, send: Send, shape: Callable[[int, str], bytes]) -> None:
        self._send = send
        self._shape = shape
        self._held: Message | None = None
        self._body: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._held = message
        elif self._held is None:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._refuse(self._held)

    async def _refuse(self, start: Message) -> None:
        body = b"".join(self._body)
        text = _message(body)
        if text is not None:
            body = self._shape(start["status"], text)
            others = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            start["headers"] = [*others, (b"content-length", str(len(body)).encode())]
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def error_body(status: int, message: str) -> bytes:
    """`{"error": "Bad Request", "message": …, "status_code": 400}`."""
    return msgspec.json.encode(
        {"error": HTTPStatus(status).phrase, "message": message, "status_code": status}
    )


def session_error(status: int, message: str) -> bytes:
    """`{"error": "Session not found: …"}`."""
    return msgspec.json.encode({"error": message})


def _message(body: bytes) -> str | None:
    """The message of an OpenAI error body, or None when it is something else, as the answer to HEAD."""
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    return str(error.get("message", "")) if isinstance(error, dict) else None
