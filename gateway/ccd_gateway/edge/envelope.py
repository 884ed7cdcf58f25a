"""The ASGI layer around the whole application: request ids, the browser rules, admission, and disconnects.

It is outside of the framework so that it holds for every answer, whoever makes it, and for any ASGI
server.

Not here: what a path means (`routing`; decisions by its text were a hole, see DECISIONS, "Routes are a list") and how a
failure is written (`shapes`). Middleware of the framework's would be the usual place for all this, but it sees neither
what the framework refuses itself nor the end of a stream.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ccd_gateway.access.auth import Door, offered
from ccd_gateway.access.caller import Caller, admit
from ccd_gateway.edge import outlet, work
from ccd_gateway.edge.absent import unknown_route
from ccd_gateway.edge.access_log import Observer
from ccd_gateway.edge.body import discard, too_large
from ccd_gateway.edge.browser import BrowserRules
from ccd_gateway.edge.disconnect import UntilDisconnect
from ccd_gateway.edge.outlet import Outlet
from ccd_gateway.edge.routing import Matched, Router, matched
from ccd_gateway.edge.upload import upload
from ccd_gateway.edge.work import Share, Work
from ccd_gateway.errors import JSON, ApiError, overloaded
from ccd_gateway.shapes import Shape

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_VISIBLE = re.compile(rb"[!-~]{1,200}")
_STREAM = re.compile(rb"(?:^|&)stream=")
#: Headers by which something is decided; two keys are 401 like a wrong one.
_ONCE = frozenset(
    {
        *(b"host", b"origin", b"content-type", b"content-encoding", b"content-length", b"transfer-encoding"),
        *(b"x-ccd-profile", b"x-ccd-strict", b"sec-fetch-site"),
    }
)
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Envelope:
    """An ASGI application around another.

    Args:
        app: what answers admitted requests.
        routes: finds the route of each request.
        rules: the browser rules.
        max_requests: requests with a body, and replayed streams, that one worker process handles at a time; more
            are 503.
        max_body_bytes: a larger Content-Length is 413 here already, as the framework asks for the body first.
        body_timeout_s: longest time for a body.
        account: what the bodies of all requests together may hold.
        door: who may come in.
        observer: told of every request.
    """

    def __init__(
        self,
        app: App,
        routes: Router,
        rules: BrowserRules,
        *,
        max_requests: int,
        max_body_bytes: int,
        body_timeout_s: float,
        account: Work,
        door: Door,
        observer: Observer,
    ) -> None:
        self._app = app
        self.routes = routes
        self._rules = rules
        self._max_requests = max_requests
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._work = account
        self._door = door
        self._observer = observer
        self.open_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, as ASGI wants it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        self._observer.began()
        started_s = time.perf_counter()
        exchange = self._exchange(receive, send, scope)
        try:
            with exchange.until_disconnect:
                try:
                    await self._answered(scope, exchange)
                except ApiError as error:
                    await exchange.outlet.close()  # else the error's body would be held back for another
                    await exchange.refuse(error)
                exchange.share.close()  # a streamed answer keeps nothing of its request
                if exchange.outlet.body is not None:
                    await exchange.stream()
        finally:
            self.open_requests -= exchange.counted
            exchange.share.close()
            try:
                await exchange.close()
            finally:
                self._observer.write(scope, exchange.status, time.perf_counter() - started_s, exchange.caller)

    def _exchange(self, receive: Receive, send: Send, scope: Scope) -> HttpExchange:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        caller = _caller(self.routes.admit(scope), headers)
        cors = self._rules.cors_headers(headers.get(b"origin"))
        return HttpExchange(receive, send, caller, Share(self._work), cors)

    async def _answered(self, scope: Scope, exchange: HttpExchange) -> None:
        """Answer, but for a body that is streamed."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        _check_unambiguous(scope)
        self._rules.check(scope["method"], headers)
        preflight = self._rules.preflight(scope["method"], headers)
        if preflight is not None:
            await _answer(exchange.send, 204, preflight, b"")
            return
        caller = exchange.caller
        scopes = matched(scope).route.scopes
        caller.key = self._door.key_of(scopes, scope["query_string"], scope["headers"], _peer(scope))
        admit(scope, caller)
        outlet.admit(scope, exchange.outlet)
        work.admit(scope, exchange.share)
        receive = exchange.receive
        if _lasts(scope):
            receive = await self._counted(scope, headers, exchange)
        await self._app(scope, receive, exchange.send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket, admitted by the same rules."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        found = self.routes.admit(scope)
        caller = _caller(found, headers)
        self._observer.began()
        started_s, status, counted = time.perf_counter(), 101, 0
        try:
            _check_unambiguous(scope)
            self._rules.check("GET", headers)
            given = [*scope["headers"], *offered(scope["subprotocols"])]
            caller.key = self._door.key_of(found.route.scopes, scope["query_string"], given, _peer(scope))
            admit(scope, caller)
            counted = self._one_more()
            work.admit(scope, Share(self._work))
            if found.route.socket is None:
                raise _no_socket(found.route.path, scope["path"])
            await found.route.socket(scope, receive, send)
        except ApiError as error:
            status = error.status
            await _deny(scope, send, error, caller)
        finally:
            self.open_requests -= counted
            self._observer.write({**scope, "method": "GET"}, status, time.perf_counter() - started_s, caller)

    def _one_more(self) -> int:
        """Count a request that lasts; returns 1, for what is to be taken off again.

        Raises:
            ApiError: 503, there is no room.
        """
        if self.open_requests >= self._max_requests:
            raise overloaded("The gateway has as many requests open as it may have. Try again shortly.")
        self.open_requests += 1
        return 1

    async def _counted(self, scope: Scope, headers: dict[bytes, bytes], exchange: HttpExchange) -> Receive:
        """Admit a request that lasts; returns where its body comes from."""
        exchange.counted = self._one_more()
        if content_length(headers) > self._max_body_bytes:
            if b"expect" not in headers:  # else the client waits with its body for our answer
                await discard(_pieces(exchange.receive))
            raise too_large(self._max_body_bytes)
        body = upload(scope, headers, exchange.receive, self._max_body_bytes, self._body_timeout_s)
        return exchange.until_disconnect.after(body)


class HttpExchange:
    """One request and its answer: adds to the answer's head what every answer has, and remembers its status.

    Attributes:
        receive: the server's.
        outlet: the way out of the answer.
        caller: who asks.
        until_disconnect: the block in which the request is answered.
        counted: 1 for a request that counts as open.
        share: what the request holds in memory.
        status: the answer's; 0 until it has begun.
    """

    __slots__ = ("_cors", "caller", "counted", "outlet", "receive", "share", "status", "until_disconnect")

    def __init__(
        self, receive: Receive, send: Send, caller: Caller, share: Share, cors: list[tuple[bytes, bytes]]
    ) -> None:
        self.receive = receive
        self.outlet = Outlet(send)
        self.caller = caller
        self.until_disconnect = UntilDisconnect(receive)
        self.counted = 0
        self.share = share
        self.status = 0
        self._cors = cors

    async def send(self, message: Message) -> None:
        """An ASGI `send`."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            mine = _ids(self.caller)
            message["headers"] = [*message.get("headers", ()), *mine, *self._cors, *self.caller.headers]
        await self.outlet.send(message)

    async def refuse(self, error: ApiError) -> None:
        """Send a whole error answer."""
        status, body = self.caller.shape.render(error, self.caller.request_id)
        await _answer(self.send, status, _error_headers(error), body)

    def stream(self) -> Awaitable[None]:
        """Send the body of a streamed answer."""
        self.until_disconnect.watch()
        return self.outlet.stream()

    async def close(self) -> None:
        """The answer is over, however it ended."""
        await self.outlet.close()


def _no_socket(route: str, path: str) -> ApiError:
    if not route:
        return unknown_route("GET", path)
    return ApiError(426, "This route speaks HTTP, not WebSocket: ask without the Upgrade header.")


def _check_unambiguous(scope: Scope) -> None:
    """See that a request has one meaning for everybody on its way: HTTP wants a Host, and what is decided by once only.

    Raises:
        ApiError: 400.
    """
    names = [name for name, _ in scope["headers"] if name in _ONCE]
    if len(names) != len(set(names)):
        shown = ", ".join(sorted({name.decode() for name in names if names.count(name) > 1}))
        raise ApiError(
            400, f"The request has more than one of these headers: {shown}.", code="malformed_request"
        )
    if b"host" not in names and scope.get("http_version") not in ("0.9", "1.0"):
        raise ApiError(400, "The request has no Host header.", code="malformed_request")


def _lasts(scope: Scope) -> bool:
    """Whether a request may keep the gateway busy: it has a body, or asks for a stream to be replayed."""
    return scope["method"] in _BODY_METHODS or _STREAM.search(scope["query_string"]) is not None


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def content_length(headers: Mapping[bytes, bytes]) -> int:
    """What the header says, or 0; the server has checked that it is a number. Of many its first digits do."""
    value = headers.get(b"content-length", b"0").lstrip(b"0")[:20]
    return int(value) if value.isdigit() else 0


async def _pieces(receive: Receive) -> AsyncGenerator[bytes, None]:
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        yield message.get("body", b"")


def request_id(given: bytes | None, shape: Shape) -> str:
    """The client's own id if it is visible ASCII of at most 200 characters, else a new one."""
    if given is not None and _VISIBLE.fullmatch(given):
        return given.decode()
    return shape.new_id()


def _caller(found: Matched, headers: Mapping[bytes, bytes]) -> Caller:
    shape = found.shape_for(headers)
    return Caller(request_id=request_id(headers.get(b"x-request-id"), shape), shape=shape)


def _ids(caller: Caller) -> list[tuple[bytes, bytes]]:
    names = filter(None, (caller.shape.id_header, b"x-request-id"))
    return [(name, caller.request_id.encode()) for name in names]


def _error_headers(error: ApiError) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode(), value.encode()) for name, value in error.headers]
    return [(b"content-type", JSON.encode()), *headers]


async def _deny(scope: Scope, send: Send, error: ApiError, caller: Caller) -> None:
    """Refuse a WebSocket with an HTTP answer, where the server can."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    status, body = caller.shape.render(error, caller.request_id)
    headers = [*_error_headers(error), *_ids(caller)]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers + length})
    await send({"type": "http.response.body", "body": body})
