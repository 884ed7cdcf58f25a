"""All that is used of gunicorn beyond its documents: the worker, its HTTP connections and its WebSockets.

The only module that may import gunicorn's insides. What it relies on there is listed in `RELIED_ON`, and a test
compares the list with the gunicorn that is installed, so that a change of gunicorn's is found by its name and not by a
client.

gunicorn's `asgi` worker is used with these differences. A graceful stop closes the connections that no request is
using; otherwise it would wait `graceful_timeout` for every browser and SDK that merely keeps its connection open. It
closes WebSockets, which would never end otherwise. A new connection has to bring its first request within
`gateway.header_timeout_s`. A connection of HTTP/1.0 serves one request, whatever its client asks for. What is not even
HTTP gets an error body too. WebSockets are pinged, refused with a body, limited in fragments, and ended in an orderly
way: gunicorn sends no pings, so a client that went without a word would be kept for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import gunicorn.asgi.websocket as gunicorn_websocket  # type: ignore[import-untyped]
from gunicorn.asgi.protocol import ASGIProtocol  # type: ignore[import-untyped]
from gunicorn.workers import gasgi  # type: ignore[import-untyped]

from ccd_gateway.errors import JSON, ApiError
from ccd_gateway.shapes import OPENAI

#: gunicorn's class -> names of its own that are called, overridden or read here.
RELIED_ON: dict[type, tuple[str, ...]] = {
    gasgi.ASGIWorker: ("_shutdown", "app", "loop"),
    ASGIProtocol: (
        *("_awaiting_request", "_get_reason_phrase", "_keepalive_timeout", "_on_headers_complete"),
        *("_safe_write", "_send_error_response", "_websocket", "_will_close", "connection_lost"),
        *("connection_made", "worker"),
    ),
    gunicorn_websocket.WebSocketProtocol: (
        *("_buffer", "_close_event", "_close_received", "_close_sent", "_data_event", "_denied", "_eof"),
        *("_fragments", "_handle_continuation", "_receive_queue", "_resume_reading", "_send", "_send_close"),
        *("_send_frame", "_unmask", "accepted", "closed", "feed_data", "run", "scope", "transport"),
    ),
}
DEFAULT_PING_S = 20.0
CLOSE_SERVICE_RESTART = 1012
_DENIAL = "websocket.http.response"  # the name of ASGI's extension
_MAX_FRAGMENTS = 1024
_MAX_UNREAD_BYTES = 1 << 20
_LINGER_S = 1.0
_LOOK_EVERY_S = 0.1


class WebSocket(gunicorn_websocket.WebSocketProtocol):  # type: ignore[misc]
    """One WebSocket connection, from its handshake on.

    Attributes:
        ping_s: how often the client is asked whether it is there; after twice as long without a byte it is not.
    """

    ping_s = DEFAULT_PING_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scope["extensions"] = {_DENIAL: {}}
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._denial: dict[str, Any] = {}
        self._denied = False

    def feed_data(self, data: bytes) -> None:
        """Bytes from the client: it is there."""
        self._heard_s = self._loop.time()
        super().feed_data(data)

    async def run(self) -> None:
        """Serve it until it ends."""
        asking = asyncio.ensure_future(self._ask_whether_alive())
        try:
            await super().run()
            if self._close_sent and not self._close_received:
                await self._linger()
        finally:
            asking.cancel()

    async def _linger(self) -> None:
        """Take what still comes, for a moment: unread bytes make the kernel reset the connection, and then the client
        may never see why it was closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while not self._eof:
                    self._buffer.clear()
                    self._data_event.clear()
                    self._resume_reading()
                    await self._data_event.wait()

    async def _ask_whether_alive(self) -> None:
        while True:
            await asyncio.sleep(self.ping_s)
            if not self.accepted or self.closed:
                continue
            if self._loop.time() - self._heard_s >= 2 * self.ping_s:
                self.transport.abort()
                return
            await self._send_frame(gunicorn_websocket.OPCODE_PING, b"")

    async def go_away(self) -> None:
        """End it, because this process ends; its client may come back."""
        if self.accepted and not self._close_sent:
            await self._send_close(CLOSE_SERVICE_RESTART, "the gateway restarts")
            await self._receive_queue.put({"type": "websocket.disconnect", "code": CLOSE_SERVICE_RESTART})

    async def _send_frame(self, opcode: int, payload: bytes | str) -> None:
        """Data waits until its client reads; what answers a client's own frames would pile up, so it ends one that
        only writes."""
        if self.transport.is_closing():
            return
        if opcode >= gunicorn_websocket.OPCODE_CLOSE and self._unread_bytes() > _MAX_UNREAD_BYTES:
            self.transport.abort()
            return
        await super()._send_frame(opcode, payload)

    def _unread_bytes(self) -> int:
        return int(self.transport.get_write_buffer_size())

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == f"{_DENIAL}.start":
            self._denial = message
        elif message["type"] == f"{_DENIAL}.body":
            self._refuse(message.get("body", b""))
        else:
            await super()._send(message)

    def _refuse(self, body: bytes) -> None:
        """Answer the handshake as the HTTP request that it is."""
        if self.accepted or self._denied:
            return
        self._denied = self.closed = True
        self._close_event.set()
        status = HTTPStatus(self._denial["status"])
        headers = [*self._denial.get("headers", ()), (b"content-length", str(len(body)).encode())]
        lines = b"".join(b"%s: %s\r\n" % pair for pair in (*headers, (b"connection", b"close")))
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
        self.transport.write(head + lines + b"\r\n" + body)
        self.transport.close()

    async def _handle_continuation(self, payload: bytes) -> None:
        if len(self._fragments) > _MAX_FRAGMENTS:
            await self._send_close(gunicorn_websocket.CLOSE_MESSAGE_TOO_BIG, "Too many fragments")
            raise ValueError("too many fragments")

    def _unmask(self, payload: bytes, masking_key: bytes) -> bytes:
        """gunicorn's own takes 60 ns for each byte; this one takes 1."""
        size = len(payload)
        mask = (masking_key * (size // 4 + 1))[:size]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")


class _Protocol(ASGIProtocol):  # type: ignore[misc]
    """One HTTP connection that its worker knows of.

    Most of what gunicorn keeps for each is named as slots here: its instances have more attributes than Python keeps in
    a shared form, and a dictionary of their own would take 1.6 kB. An attribute that is not named still works.
    """

    __slots__ = (
        *("_awaiting_request", "_body_receiver", "_callback_parser", "_closed", "_conn_lost_handled"),
        *("_current_request", "_finishing_calls", "_flow_control", "_forwarded_trust", "_h2_tasks"),
        *("_h2_writer_protocol", "_h2c_buffer", "_h2c_timer", "_h2c_upgrade_body", "_h2c_upgrade_ok"),
        *("_h2c_upgrade_settings", "_head_timer", "_is_ssl", "_keepalive", "_keepalive_handle"),
        *("_max_buffer_size", "_post_request", "_pre_request", "_proxy_protocol", "_reading_paused"),
        *("_request_ready", "_response_buffer", "_root_path", "_scope_addresses", "_secure_names", "_task"),
        *("_uses_uwsgi", "_websocket", "_write_paused", "app", "cfg", "log", "reader", "req_count"),
        *("transport", "worker", "writer"),
    )

    def connection_made(self, transport: Any) -> None:
        self.worker.protocols.add(self)
        wait_s = self.worker.app.settings.header_timeout_s
        self._head_timer: asyncio.TimerHandle | None = self.worker.loop.call_later(wait_s, self._too_slow)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.protocols.discard(self)
        self._in_time()
        super().connection_lost(exc)

    def _send_error_response(
        self, status: int, message: str, extra_headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Answer what no application sees: a request that cannot be parsed, or a fault outside of it."""
        own_id = OPENAI.new_id()
        refusal = ApiError(status, message, code="malformed_request" if status < 500 else None)
        _, body = OPENAI.render(refusal, own_id)
        headers = {
            "content-type": JSON,
            "content-length": str(len(body)),
            "x-request-id": own_id,
            "connection": "close",
            **dict(extra_headers),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} {self._get_reason_phrase(status)}\r\n{lines}\r\n"
        self._safe_write(head.encode("latin-1") + body)

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:
        """HTTP/1.0 has no chunks, so only a close shows its client where a streamed answer ends."""
        return request.version < (1, 1) or bool(super()._will_close(request, response_requires_close))

    def _on_headers_complete(self) -> Any:
        self._in_time()
        return super()._on_headers_complete()

    def _in_time(self) -> None:
        timer, self._head_timer = self._head_timer, None
        if timer is not None:
            timer.cancel()

    def _too_slow(self) -> None:
        """The head of the first request is not there in time; later ones are bounded by `keepalive`."""
        self._send_error_response(408, "The head of the request was not complete in time.")
        self._keepalive_timeout()

    async def close_if_idle(self) -> None:
        """Close between requests, after what is still unsent; a connection in use closes after its answer."""
        if self._websocket is not None:
            await self._websocket.go_away()
        elif self._awaiting_request:
            self._keepalive_timeout()


# The worker names its protocol class in a closure, and a connection looks up its WebSockets' class in their module when
# a handshake comes: only these attributes of modules can choose others.
gasgi.ASGIProtocol = _Protocol
gunicorn_websocket.WebSocketProtocol = WebSocket


class GatewayWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """The worker that `server` runs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        WebSocket.ping_s = self.app.settings.ping_s
        self.protocols: set[_Protocol] = set()

    async def _shutdown(self) -> None:
        closing = asyncio.ensure_future(self._close_idle())
        await super()._shutdown()
        closing.cancel()

    async def _close_idle(self) -> None:
        while True:
            for protocol in list(self.protocols):
                await protocol.close_if_idle()
            await asyncio.sleep(_LOOK_EVERY_S)
