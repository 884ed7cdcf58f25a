"""What has to be looked at now and then: memory, what workers left behind, the host's pressure, the CLI's file,
the login.

Once a second, and sooner while a worker grows towards its limit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ccd_daemon.claude.account import LoginWatch
from ccd_daemon.claude.program import Program
from ccd_daemon.config import Settings
from ccd_daemon.pool.pool import Pool
from ccd_daemon.process import cgroup, memory
from ccd_daemon.session.sessions import Sessions
from ccd_daemon.sweeper import CliProcess, Sweeper
from ccd_daemon.worker.lifecycle import State

log = logging.getLogger("ccd")

_OVERDUE_ROUNDS, _OVERDUE_S = 3, 2.0
_BUSY_POLL_S = 0.2  # where only polling watches: what a model's tools allocate comes suddenly


class Housekeeping:
    """The daemon's regular rounds."""

    def __init__(
        self,
        pool: Pool,
        sessions: Sessions,
        sweeper: Sweeper,
        program: Program,
        login_watch: LoginWatch,
        settings: Settings,
    ) -> None:
        self.pressure = 0.0
        self._sessions = sessions
        self._login_watch = login_watch
        self._pool = pool
        self._sweeper = sweeper
        self._program = program
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._last_round = self._loop.time()
        self._sizes: dict[CliProcess, tuple[float, int]] = {}  # when measured, and what

    def alive(self) -> bool:
        """Returns True while the rounds are made; False when the last one is long overdue."""
        return (
            self._loop.time() - self._last_round < _OVERDUE_ROUNDS * self._settings.pool.poll_s + _OVERDUE_S
        )

    async def run(self, also: Callable[[], None]) -> None:
        """Make the rounds until cancelled; one that fails is logged, and the next one is made all the same.

        Args:
            also: what else is due once a second.
        """
        due = 0.0
        while True:
            wait_s = self._settings.pool.poll_s
            try:
                everybody = self._loop.time() >= due
                if everybody:
                    due = self._loop.time() + wait_s
                    self._round(also)
                wait_s = self._measure(everybody=everybody)
            except Exception:
                log.exception("a round of housekeeping failed")
            await asyncio.sleep(max(memory.MIN_POLL_S, min(wait_s, due - self._loop.time())))

    def _round(self, also: Callable[[], None]) -> None:
        self._last_round = self._loop.time()
        self._sweeper.sweep()
        self.pressure = cgroup.pressure()
        self._pool.under_pressure(self.pressure >= self._settings.pool.max_pressure)
        if self._program.was_replaced():
            log.warning("%s was replaced: rolling the CLI processes over to the new one", self._program.path)
            self._pool.roll()
        self._login_watch.look(closely=True)
        self._pool.look_at_login()
        self._sessions.look_at_login()
        also()

    def _measure(self, *, everybody: bool) -> float:
        """Tell the workers their size; the seconds until it is to be done again for those that work."""
        limits, now = self._settings.pool, self._loop.time()
        wait_s = limits.poll_s
        before, self._sizes = self._sizes, {}
        for worker in list(self._sweeper.living):
            since, last = self._sizes[worker] = before.get(worker, (now, 0))
            if not worker.tree.caps_memory:
                wait_s = min(wait_s, _BUSY_POLL_S)
            if worker.pid is None or not (everybody or worker.state is State.BUSY):
                continue
            pids = self._sweeper.pids(worker)
            size = memory.tree_rss_bytes(pids)
            self._sizes[worker] = now, size
            worker.measured(size, len(pids))
            if last and now > since:
                grown_bytes_s = (size - last) / (now - since)
                wait_s = min(
                    wait_s, memory.next_poll_s(limits.poll_s, size, grown_bytes_s, limits.rss_hard_bytes)
                )
        return wait_s
