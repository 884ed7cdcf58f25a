"""`daemon.*`: whether it is there, and whether it works. Any peer may ask; they answer at once and never wait."""

from __future__ import annotations

import os

from ccd_daemon.pool.pool import Pool
from ccd_protocol.events import Called
from ccd_protocol.methods import HealthResult, PingResult


class DaemonMethods:
    """What says whether the daemon works."""

    def __init__(self, pool: Pool, version: str) -> None:
        self._pool = pool
        self._version = version
        self._pong = PingResult(pid=os.getpid(), version=version)

    def ping(self, call: Called) -> PingResult:
        """Answers at once."""
        return self._pong

    def health(self, call: Called) -> HealthResult:
        """Returns whether a chat sent now would be answered as fast as any."""
        pool = self._pool
        state, reason = pool_state(pool)
        answer = HealthResult(
            ready=state == "ready",
            state=state,
            reason=reason,
            version=self._version,
            cli_version=pool.cli_version,
        )
        if not answer["ready"]:
            answer["retry_after_ms"] = 2000
        return answer


def is_warm(pool: Pool) -> bool:
    """Whether a process has waited for somebody, or none is to: the first request finds all as the others will."""
    wanted = any(shelf.spare_target for shelf in pool.shelves.values())
    return pool.was_warm or pool.pressed or not wanted


def pool_state(pool: Pool) -> tuple[str, str | None]:
    """Returns the daemon's state in a word, and why."""
    if pool.draining:
        return "draining", "ccd is shutting down"
    if pool.login.refusal is not None:
        return "degraded", pool.login.refusal
    broken = pool.broken()
    if broken is not None:
        return "degraded", f"the CLI cannot be started: {broken.breaker.reason}"
    if not is_warm(pool):
        return "starting", "the first CLI process is warming up"
    return "ready", None
