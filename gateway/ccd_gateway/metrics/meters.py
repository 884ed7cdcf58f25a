"""What the gateway counts of its own requests, in all of its processes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon.constants import COMBINED_METHODS
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess

from ccd_gateway.access.caller import Caller
from ccd_gateway.edge.routing import matched

_MAX_MODELS = 100  # names come from clients
_OTHER = "other"
_DURATIONS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Meters:
    """The counters; told of every answer, as the access log is."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        kept = CollectorRegistry()  # of this process; what is shown is read from all of them
        self._requests = Counter(
            "ccd_http_requests",
            "HTTP requests answered, by route, method and status; status 0: the client left before",
            ("route", "method", "status"),
            registry=kept,
        )
        self._duration = Histogram(
            "ccd_http_request_duration_seconds",
            "Time from a request's head to the end of its answer",
            ("route",),
            buckets=_DURATIONS_S,
            registry=kept,
        )
        self._open = Gauge(
            "ccd_http_requests_open",
            "HTTP requests being answered now",
            registry=kept,
            multiprocess_mode="livesum",
        )
        self._tokens = Counter(
            "ccd_tokens", "Tokens of answers, by model and direction", ("model", "direction"), registry=kept
        )
        self._cost = Counter("ccd_cost_usd", "Price of answers in USD, by model", ("model",), registry=kept)
        self._models: set[str] = set()
        multiprocess.MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]

    @property
    def registry(self) -> CollectorRegistry:
        """What all processes have counted."""
        return self._registry

    def began(self) -> None:
        """A request has come."""
        self._open.inc()

    def write(self, scope: Mapping[str, Any], status: int, took_s: float, caller: Caller) -> None:
        """A request was answered."""
        self._open.dec()
        route = matched(scope).route.path or "unknown"
        method = scope["method"] if scope["method"] in COMBINED_METHODS else _OTHER  # clients may invent some
        self._requests.labels(route, method if route != "unknown" else "any", str(status)).inc()
        self._duration.labels(route).observe(took_s)
        if caller.model is not None and (caller.input_tokens or caller.output_tokens):
            model = self._known(caller.model)
            self._tokens.labels(model, "input").inc(caller.input_tokens)
            self._tokens.labels(model, "output").inc(caller.output_tokens)
            self._cost.labels(model).inc(caller.cost_usd)

    def _known(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) >= _MAX_MODELS:
                return _OTHER
            self._models.add(model)
        return model
