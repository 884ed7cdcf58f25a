"""`GET /stats`."""

from __future__ import annotations

from importlib import metadata

import falcon
import falcon.asgi

from ccd_gateway.legacy.conversations import send


class Stats:
    """claude-code-api's numbers. ccd has no cache of answers, so there is nothing in it, and it is off."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """The same for everybody."""
        cache = {"total_entries": 0, "total_hits": 0, "enabled": False}
        send(resp, {"cache": cache, "version": metadata.version("ccdaemon")})
