"""gunicorn's `asgi` worker with five differences.

A graceful stop closes the connections that no request is using; otherwise it would wait
`graceful_timeout` for every browser and SDK that merely keeps its connection open. It closes WebSockets,
which would never end by themselves (see also `websocket`). A new connection has to bring its first request
within `gateway.header_timeout_s`. A connection of HTTP/1.0 serves one request, whatever its client asks for. And what
is not even HTTP gets an OpenAI error body too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol  # type: ignore[import-untyped]
from gunicorn.workers import gasgi  # type: ignore[import-untyped]

from ccd_gateway.errors import JSON, ApiError
from ccd_gateway.server.websocket import WebSocket
from ccd_gateway.shapes import OPENAI

_LOOK_EVERY_S = 0.1


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


# The worker names its protocol class in a closure, so only this module attribute can choose another.
gasgi.ASGIProtocol = _Protocol


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
