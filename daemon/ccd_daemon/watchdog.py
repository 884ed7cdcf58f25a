"""What the service manager is told while the daemon runs: ready, a line of status, and that the loop still turns.

Pings come from the event loop itself and after a look at its rounds: a thread would go on pinging for a loop that
hangs, and a loop that turns while its housekeeping is dead does not serve anybody for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ccd_settings.service_manager import Notifier, one_line

_STATUS_S = 10.0
_PINGS_PER_LIMIT = 4  # systemd's own advice is two; a busy host delays some


class Watchdog:
    """Tells the service manager, if there is one, until stopped.

    Args:
        notifier: the way to the service manager.
        healthy: returns True while the daemon's own rounds are made.
        summary: returns one line for `systemctl status`.
    """

    def __init__(self, notifier: Notifier, healthy: Callable[[], bool], summary: Callable[[], str]) -> None:
        self._notifier = notifier
        self._healthy = healthy
        self._summary = summary
        self._timer: asyncio.TimerHandle | None = None
        self._said = ""

    def ready(self) -> None:
        """The socket answers: say so, and ping from now on."""
        self._notifier.tell("READY=1", f"STATUS={one_line(self._summary())}")
        if self._notifier.present and self._timer is None:
            self._ping()

    def stopping(self) -> None:
        """The daemon has begun to stop; pings go on, for running answers may take long."""
        self._notifier.tell("STOPPING=1", "STATUS=stopping: running answers may end")

    def close(self) -> None:
        """Ping no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _ping(self) -> None:
        limit_s = self._notifier.watchdog_s
        wait_s = min(_STATUS_S, limit_s / _PINGS_PER_LIMIT) if limit_s else _STATUS_S
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._ping)
        lines = ["WATCHDOG=1"] if limit_s and self._healthy() else []
        summary = one_line(self._summary())
        if summary != self._said:
            lines.append(f"STATUS={summary}")
            self._said = summary
        if lines:
            self._notifier.tell(*lines)
