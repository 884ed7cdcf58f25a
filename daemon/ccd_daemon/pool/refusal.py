"""The words in which a caller is told that it gets no worker, and when it may come again. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ccd_daemon.pool.policy import refused_retry_ms
from ccd_protocol.errors import Code, RpcError


class Processes(NamedTuple):
    """What the CLI processes of all profiles are doing."""

    most: int  # that there may be
    alive: int
    starting: int
    idle: int


def busy(why: str, processes: Processes, *, waiting: int, workers: int, turn_s: float) -> RpcError:
    """There is no worker for a caller."""
    retry_ms = refused_retry_ms(waiting, workers, turn_s)
    at_work = processes.alive - processes.starting - processes.idle
    text = (
        f"{why}; of at most {processes.most} CLI processes (pool.max_workers) {at_work} are at work, "
        f"{processes.starting} start, {processes.idle} are idle"
    )
    return RpcError(Code.BUSY, text, {"retry_after_ms": retry_ms})


def cannot_spawn(reason: str | None, last_words: str, wait_s: float) -> RpcError:
    """Processes end before they are ready; `last_words` is what the last one wrote to stderr."""
    data: dict[str, object] = {"retry_after_ms": max(1000, int(wait_s * 1000))}
    if last_words:
        data["stderr_tail"] = last_words
    return RpcError(Code.WORKER_SPAWN, f"the CLI cannot be started: {reason or 'unknown reason'}", data)


def shutting_down() -> RpcError:
    """Returns what to say while the daemon is stopping."""
    return RpcError(Code.DRAINING, "ccd is shutting down", {"retry_after_ms": 2000})
