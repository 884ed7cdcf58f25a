"""`GET /metrics`, on the admin address only."""

from __future__ import annotations

from collections.abc import Iterator

import falcon.asgi
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ccd_gateway.answer.backend import Backend
from ccd_gateway.edge.routing import Route
from ccd_gateway.metrics.daemon import metrics
from ccd_gateway.metrics.meters import Meters
from ccd_protocol.errors import RpcError

_TIMEOUT_S = 2.0


class Metrics:
    """All figures: the gateway's, and the daemon's where it answers in time."""

    def __init__(self, backend: Backend, meters: Meters) -> None:
        self._backend = backend
        self._meters = meters

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """In the form that the caller accepts: Prometheus' text, or OpenMetrics."""
        encode, kind = choose_encoder(req.get_header("accept") or "")
        asked = CollectorRegistry()
        asked.register(_Read(list(await self._daemon())))
        resp.content_type = kind
        resp.data = encode(self._meters.registry) + encode(asked)
        if b"# EOF\n" in resp.data:  # OpenMetrics: one end for both
            resp.data = resp.data.replace(b"# EOF\n", b"") + b"# EOF\n"

    async def _daemon(self) -> Iterator[Metric]:
        try:
            status = await self._backend.call_once("admin.status", timeout_s=_TIMEOUT_S)
            workers = await self._backend.call_once("admin.workers", timeout_s=_TIMEOUT_S)
        except RpcError:
            return metrics(None, None)
        return metrics(status, workers)


class _Read(Collector):
    """Metrics that were read already."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> list[Metric]:
        return self._found


def routes(backend: Backend, meters: Meters, *, scopes: tuple[str, ...] | None) -> list[Route]:
    """The one route; `scopes` None lets everybody in who reaches the address."""
    return [Route("/metrics", Metrics(backend, meters), scopes=scopes)]
