"""gunicorn's WebSocket with what it lacks: pings, refusals with a body, a limit of fragments, and an orderly end.

gunicorn answers pings and ignores pongs, but sends none, so a client that went without a word would be kept for ever.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import gunicorn.asgi.websocket as gunicorn_websocket  # type: ignore[import-untyped]

DEFAULT_PING_S = 20.0
CLOSE_SERVICE_RESTART = 1012
_DENIAL = "websocket.http.response"  # the name of ASGI's extension
_MAX_FRAGMENTS = 1024
_LINGER_S = 1.0


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


# Each connection's protocol looks the class up in its module when a handshake comes.
gunicorn_websocket.WebSocketProtocol = WebSocket
