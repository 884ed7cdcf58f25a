"""The ASGI layer around the whole application: request ids, the browser rules, admission, and disconnects.

It is outside of the framework so that it holds for every answer, whoever makes it, and for any ASGI
server: a client that goes away cancels its handler at once, also when nothing is being sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ccd_gateway.access_log import AccessLog
from ccd_gateway.auth import Door
from ccd_gateway.body import discard, too_large
from ccd_gateway.browser import BrowserRules
from ccd_gateway.caller import Caller, admit
from ccd_gateway.errors import JSON, ApiError, overloaded
from ccd_gateway.upload import upload

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_VISIBLE = re.compile(rb"[!-~]{1,200}")
_STREAM = re.compile(rb"(?:^|&)stream=")
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Envelope:
    """An ASGI application around another.

    Args:
        app: what answers admitted requests.
        rules: the browser rules.
        max_requests: requests with a body, and replayed streams, that one worker process handles at a time; more
            are 503.
        max_body_bytes: a larger Content-Length is 413 here already, as the framework asks for the body first.
        body_timeout_s: longest time for a body.
        door: who may come in.
        log: told of every answer.
    """

    def __init__(
        self,
        app: App,
        rules: BrowserRules,
        *,
        max_requests: int,
        max_body_bytes: int,
        body_timeout_s: float,
        door: Door,
        log: AccessLog,
    ) -> None:
        self._app = app
        self._rules = rules
        self._max_requests = max_requests
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._door = door
        self._log = log
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
        caller = Caller(request_id=request_id(headers.get(b"x-request-id")).decode())
        exchange = _Exchange(send, caller, self._rules.cors_headers(headers.get(b"origin")))
        started_s = time.perf_counter()
        try:
            await self._checked(scope, headers, receive, exchange.send, caller)
        except ApiError as error:
            await answer_error(exchange.send, error)
        finally:
            self._log.write(scope, exchange.status, time.perf_counter() - started_s, caller)

    async def _checked(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send, caller: Caller
    ) -> None:
        self._rules.check(scope["method"], headers)
        preflight = self._rules.preflight(scope["method"], headers)
        if preflight is not None:
            await _answer(send, 204, preflight, b"")
            return
        caller.key = self._door.key_of(scope["path"], scope["query_string"], scope["headers"], _peer(scope))
        admit(scope, caller)
        if _lasts(scope):
            await self._counted(scope, headers, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _counted(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        if self.open_requests >= self._max_requests:
            raise overloaded("The gateway has as many requests open as it may have. Try again shortly.")
        self.open_requests += 1
        try:
            if content_length(headers) > self._max_body_bytes:
                if b"expect" not in headers:  # else the client waits with its body for our answer
                    await discard(_pieces(receive))
                raise too_large(self._max_body_bytes)
            body = upload(scope, headers, receive, self._max_body_bytes, self._body_timeout_s)
            await run_until_disconnect(self._app, scope, body, send)
        finally:
            self.open_requests -= 1


class _Exchange:
    """Adds to the answer's head what every answer has, and remembers its status."""

    def __init__(self, send: Send, caller: Caller, cors: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._caller = caller
        self._cors = cors
        self.status = 0

    async def send(self, message: Message) -> None:
        """An ASGI `send`."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            mine = (b"x-request-id", self._caller.request_id.encode())
            message["headers"] = [*message.get("headers", ()), mine, *self._cors, *self._caller.headers]
        await self._send(message)


def _lasts(scope: Scope) -> bool:
    """Whether a request may keep the gateway busy: it has a body, or asks for a stream to be replayed."""
    return scope["method"] in _BODY_METHODS or _STREAM.search(scope["query_string"]) is not None


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


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
