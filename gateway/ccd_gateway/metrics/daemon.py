"""The daemon's figures, from `admin.status` and `admin.workers` when somebody asks, as Prometheus metrics. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

#: Counter of `admin.status` -> its metric and what it says.
_COUNTERS = {
    "spawned": ("ccd_worker_spawns", "CLI processes started"),
    "died_unready": ("ccd_worker_failed_starts", "CLI processes that ended before they were ready"),
    "turns": ("ccd_turns", "Requests answered by CLI processes"),
    "resets": ("ccd_worker_resets", "Times that a process was made to forget what it had heard"),
    "leases": ("ccd_leases", "Requests that asked for a CLI process"),
    "refused": ("ccd_requests_refused", "Requests refused because every CLI process was busy for too long"),
    "surplus_calls": ("ccd_api_surplus_calls", "Calls of the model API beyond one for each request"),
}
_STATES = ("ready", "starting", "degraded", "draining")


def metrics(status: Mapping[str, Any] | None, workers: Mapping[str, Any] | None) -> Iterator[Metric]:
    """Returns the metric families; with None, for a daemon that does not answer, `ccd_up` alone."""
    yield _gauge("ccd_up", "1 when the daemon answers, else 0", 0 if status is None else 1)
    if status is None:
        return
    yield _labelled(
        "ccd_build_info",
        "1, with the versions of ccd and of the CLI as labels",
        {(status["version"], str(status["cli"].get("version"))): 1},
        ("version", "cli_version"),
    )
    states = {(state,): int(status["state"] == state) for state in _STATES}
    yield _labelled("ccd_state", "1 for the state that the daemon is in", states, ("state",))
    yield _gauge("ccd_uptime_seconds", "Time since the daemon was started", status["uptime_s"])
    yield from _of_pool(status, workers)
    yield from _of_memory(status["memory"])
    yield _gauge(
        "ccd_sessions_running", "Agent sessions with a process", status["sessions"].get("running", 0)
    )
    yield _gauge("ccd_connections", "Connections to the daemon's socket", status["connections"])
    for key, (name, text) in _COUNTERS.items():
        if key in status["counters"]:
            yield CounterMetricFamily(name, text, value=status["counters"][key])


def _of_pool(status: Mapping[str, Any], workers: Mapping[str, Any] | None) -> Iterator[Metric]:
    pool = status["pool"]
    limit = status["settings"]["max_workers"]
    yield _gauge("ccd_workers_limit", "Most CLI processes that there may be", limit)
    yield _gauge("ccd_requests_waiting", "Requests that wait for a CLI process", pool["waiting"])
    spares = {(name,): count for name, count in pool["spares"].items()}
    yield _labelled("ccd_spares", "Warm processes that have served nobody, by profile", spares, ("profile",))
    counted = Counter((row["profile"], row["state"]) for row in (workers or {}).get("workers", ()))
    yield _labelled("ccd_workers", "CLI processes, by profile and state", counted, ("profile", "state"))


def _of_memory(memory: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge("ccd_daemon_memory_bytes", "Resident memory of the daemon", memory["daemon_rss_bytes"])
    yield _gauge("ccd_workers_memory_bytes", "Memory of all CLI processes", memory["workers_rss_bytes"])
    ratio = float(memory["pressure_percent"]) / 100
    yield _gauge("ccd_memory_pressure_ratio", "Share of time that the host waits for memory", ratio)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, values: Mapping[Any, float], labels: tuple[str, ...]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
