"""`GET /stats`."""

from __future__ import annotations

from importlib import metadata

import falcon
import falcon.asgi

from ccd_gateway.answer.backend import Backend
from ccd_gateway.surface.driver import send


class Stats:
    """claude-code-api's numbers; the cache is the daemon's, so they are those of all processes of the gateway."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """The same for everybody."""
        cache = await self._backend.call("cache.stats", timeout_s=5.0)
        send(resp, {"cache": cache, "version": metadata.version("ccdaemon")})
