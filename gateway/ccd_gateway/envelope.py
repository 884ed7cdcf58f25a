"""The ASGI layer around the whole application: request ids, the browser rules, admission, and disconnects.

It is outside of the framework so that it holds for every answer, whoever makes it, and for any ASGI
server: a client that goes away cancels its handler at once, also when nothing is being sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ccd_gateway.body import discard, too_large
from ccd_gateway.browser import BrowserRules
from ccd_gateway.errors import JSON, ApiError, overloaded

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_VISIBLE = re.compile(rb"[!-~]{1,200}")
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Envelope:
    """An ASGI application around another.

    Args:
        app: what answers admitted requests.
        rules: the browser rules.
        max_requests: requests with a body that one worker process handles at a time; more are 503.
        max_body_bytes: a larger Content-Length is 413 here already, as the framework asks for the body first.
    """

    def __init__(self, app: App, rules: BrowserRules, *, max_requests: int, max_body_bytes: int) -> None:
        self._app = app
        self._rules = rules
        self._max_requests = max_requests
        self._max_body_bytes = max_body_bytes
        self.open_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, as ASGI wants it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":  # no route takes one
            await send({"type": "websocket.close", "code": 1008})
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        send = self._decorated(send, headers)
        try:
            self._rules.check(scope["method"], headers)
            preflight = self._rules.preflight(scope["method"], headers)
            if preflight is not None:
                await _answer(send, 204, preflight, b"")
            elif scope["method"] in _BODY_METHODS:
                await self._counted(scope, headers, receive, send)
            else:
                await self._app(scope, receive, send)
        except ApiError as error:
            await answer_error(send, error)

    def _decorated(self, send: Send, headers: dict[bytes, bytes]) -> Send:
        extra = [(b"x-request-id", request_id(headers.get(b"x-request-id")))]
        extra += self._rules.cors_headers(headers.get(b"origin"))

        async def send_decorated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        return send_decorated

    async def _counted(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        if self.open_requests >= self._max_requests:
            raise overloaded("The gateway has as many requests open as it may have. Try again shortly.")
        self.open_requests += 1
        try:
            if content_length(headers) > self._max_body_bytes:
                if b"expect" not in headers:  # else the client waits with its body for our answer
                    await discard(_pieces(receive))
                raise too_large(self._max_body_bytes)
            await run_until_disconnect(self._app, scope, receive, send)
        finally:
            self.open_requests -= 1


def content_length(headers: Mapping[bytes, bytes]) -> int:
    """What the header says, or 0; the server has checked that it is a number."""
    value = headers.get(b"content-length", b"0")
    return int(value) if value.isdigit() and len(value) < 20 else 0


async def _pieces(receive: Receive) -> AsyncGenerator[bytes, None]:
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        yield message.get("body", b"")


async def run_until_disconnect(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Run `app`, and cancel it as soon as its client is gone.

    After the end of the body `receive` can only report a disconnect, so from there on it is watched by a task
    of its own, and an application that asks again waits for the same report.
    """
    gone: asyncio.Task[Message] | None = None

    async def receive_watched() -> Message:
        nonlocal gone
        if gone is not None:
            return await asyncio.shield(gone)
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            gone = asyncio.ensure_future(_disconnected(receive))
            gone.add_done_callback(lambda task: task.cancelled() or handler.cancel())
        return message

    handler = asyncio.ensure_future(app(scope, receive_watched, send))
    try:
        await asyncio.wait([handler])
    finally:
        # Reached with the handler still running only when this task is itself cancelled.
        handler.cancel()
        if gone is not None:
            gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        handler.result()


async def _disconnected(receive: Receive) -> Message:
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


def request_id(given: bytes | None) -> bytes:
    """The client's own id if it is visible ASCII of at most 200 characters, else a new one."""
    if given is not None and _VISIBLE.fullmatch(given):
        return given
    return str(uuid.uuid4()).encode()


async def answer_error(send: Send, error: ApiError) -> None:
    """Send a whole error answer."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers]
    await _answer(send, error.status, [(b"content-type", JSON.encode()), *headers], error.body())


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers + length})
    await send({"type": "http.response.body", "body": body})
