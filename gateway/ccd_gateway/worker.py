"""gunicorn's `asgi` worker, but a graceful stop closes the connections that no request is using.

Without that, a stop waits `graceful_timeout` for every browser and SDK that merely keeps its connection open.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol  # type: ignore[import-untyped]
from gunicorn.workers import gasgi  # type: ignore[import-untyped]

_LOOK_EVERY_S = 0.1


class _Protocol(ASGIProtocol):  # type: ignore[misc]
    """One HTTP connection that its worker knows of."""

    def connection_made(self, transport: Any) -> None:
        self.worker.protocols.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.protocols.discard(self)
        super().connection_lost(exc)

    def close_if_idle(self) -> None:
        """Close between requests, after what is still unsent; a connection in use closes after its answer."""
        if self._awaiting_request:
            self._keepalive_timeout()


# The worker names its protocol class in a closure, so only this module attribute can choose another.
gasgi.ASGIProtocol = _Protocol


class GatewayWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """The worker that `server` runs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.protocols: set[_Protocol] = set()

    async def _shutdown(self) -> None:
        closing = asyncio.ensure_future(self._close_idle())
        await super()._shutdown()
        closing.cancel()

    async def _close_idle(self) -> None:
        while True:
            for protocol in list(self.protocols):
                protocol.close_if_idle()
            await asyncio.sleep(_LOOK_EVERY_S)
