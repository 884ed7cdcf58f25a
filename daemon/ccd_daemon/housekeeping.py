"""What has to be looked at now and then: memory, what workers left behind, the host's pressure, the CLI's file.

Once a second, and sooner while a worker grows towards its limit. A worker's death starts a sweep of its own, which
repeats until what it killed has gone: a grandchild becomes the daemon's child only when its own parent has ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from ccd_daemon.config import Settings
from ccd_daemon.pool.pool import Pool
from ccd_daemon.process import cgroup, memory, reaper
from ccd_daemon.session.process import SessionProcess
from ccd_daemon.session.sessions import Sessions
from ccd_daemon.worker.lifecycle import State
from ccd_daemon.worker.worker import Worker

log = logging.getLogger("ccd")

_SWEEP_AGAIN_S = 0.02
_OVERDUE_ROUNDS, _OVERDUE_S = 3, 2.0
_BUSY_POLL_S = 0.2  # where only polling watches: what a model's tools allocate comes suddenly


class Housekeeping:
    """The daemon's regular rounds."""

    def __init__(
        self,
        pool: Pool,
        sessions: Sessions,
        settings: Settings,
        command: Path,
        rounds: Callable[[], None],
        replaced: Callable[[], None],
        other_pids: Callable[[], list[int]] = list,
    ) -> None:
        self.pressure = 0.0
        self._last_round = asyncio.get_running_loop().time()
        self._pool = pool
        self._sessions = sessions
        self._settings = settings
        self._command = command
        self._rounds = rounds  # what else is due once a second
        self._replaced = replaced  # the CLI's file is another one
        self._other_pids = other_pids  # children of the daemon that are no workers
        self._loop = asyncio.get_running_loop()
        self._identity = identity(command)
        self._strays: dict[str, list[int]] = {}
        self._sizes: dict[Worker | SessionProcess, tuple[float, int]] = {}  # when measured, and what
        self._sweeping: asyncio.TimerHandle | None = None
        pool.on_ended = sessions.on_ended = self.sweep_soon

    def alive(self) -> bool:
        """Returns True while the rounds are made; False when the last one is long overdue."""
        return (
            self._loop.time() - self._last_round < _OVERDUE_ROUNDS * self._settings.pool.poll_s + _OVERDUE_S
        )

    async def run(self) -> None:
        """Make the rounds until cancelled; one that fails is logged, and the next one is made all the same."""
        due = 0.0
        while True:
            wait_s = self._settings.pool.poll_s
            try:
                everybody = self._loop.time() >= due
                if everybody:
                    due = self._loop.time() + wait_s
                    self._round()
                wait_s = self._measure(everybody=everybody)
            except Exception:
                log.exception("a round of housekeeping failed")
            await asyncio.sleep(max(memory.MIN_POLL_S, min(wait_s, due - self._loop.time())))

    def _round(self) -> None:
        self._last_round = self._loop.time()
        self.sweep()
        self.pressure = cgroup.pressure()
        self._pool.under_pressure(self.pressure >= self._settings.pool.max_pressure)
        now = identity(self._command)
        if now is not None and now != self._identity:
            self._identity = now
            log.warning("%s was replaced: rolling the CLI processes over to the new one", self._command)
            self._replaced()
        self._rounds()

    def _measure(self, *, everybody: bool) -> float:
        """Tell the workers their size; the seconds until it is to be done again for those that work."""
        limits, now = self._settings.pool, self._loop.time()
        wait_s = limits.poll_s
        before, self._sizes = self._sizes, {}
        for worker in self._everybody():
            since, last = self._sizes[worker] = before.get(worker, (now, 0))
            if not worker.tree.caps_memory:
                wait_s = min(wait_s, _BUSY_POLL_S)
            if worker.pid is None or not (everybody or worker.state is State.BUSY):
                continue
            pids = self._processes(worker, worker.pid)
            size = memory.tree_rss_bytes(pids)
            self._sizes[worker] = now, size
            worker.measured(size, len(pids))
            if last and now > since:
                grown_bytes_s = (size - last) / (now - since)
                wait_s = min(
                    wait_s, memory.next_poll_s(limits.poll_s, size, grown_bytes_s, limits.rss_hard_bytes)
                )
        return wait_s

    def _everybody(self) -> list[Worker | SessionProcess]:
        return [*self._pool.workers, *self._sessions.processes]

    def _processes(self, worker: Worker | SessionProcess, pid: int) -> list[int]:
        return worker.tree.grouped_pids() or memory.tree(pid, self._strays.get(worker.tree.marker, ()))

    # --- what workers leave behind ---

    def sweep(self) -> int:
        """Reap and kill what workers left behind; how many are still dying."""
        workers = self._everybody()
        known = {worker.pid for worker in workers if worker.pid is not None} | set(self._other_pids())
        groups = {worker.tree.marker: worker.tree.grouped_pids for worker in workers}
        dying, self._strays = reaper.sweep_strays(known, groups)
        return dying

    def sweep_soon(self) -> None:
        """A worker has ended: sweep now, and until nothing is left."""
        if self._sweeping is None:
            self._sweeping = self._loop.call_soon(self._sweep_until_clean)  # type: ignore[assignment]

    def _sweep_until_clean(self) -> None:
        self._sweeping = (
            self._loop.call_later(_SWEEP_AGAIN_S, self._sweep_until_clean) if self.sweep() else None
        )


def identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced or rewritten; None while it is not there (in the middle of an update)."""
    try:
        found = os.stat(path)  # noqa: PTH116 - follows links, as running it does
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
