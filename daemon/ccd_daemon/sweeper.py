"""The CLI processes that live, and what they leave behind: adopted children are reaped, or killed as nobody's.

A process's end starts a sweep, which repeats until what it killed has gone: a grandchild becomes the daemon's child
only when its own parent has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TypeAlias

from ccd_daemon.process import memory, reaper
from ccd_daemon.session.process import SessionProcess
from ccd_daemon.worker.worker import Worker

CliProcess: TypeAlias = Worker | SessionProcess

_AGAIN_S = 0.02


class Sweeper:
    """Knows every CLI process that was started and has not ended.

    Args:
        others: pids of the daemon's own children, which are none of its workers' either.
    """

    def __init__(self, others: Callable[[], Collection[int]]) -> None:
        self.living: set[CliProcess] = set()
        self._others = others
        self._loop = asyncio.get_running_loop()
        self._strays: dict[str, list[int]] = {}
        self._due: asyncio.Handle | None = None

    def started(self, process: CliProcess) -> None:
        """A process is about to be started."""
        self.living.add(process)

    def ended(self, process: CliProcess) -> None:
        """It has ended: sweep now, and until nothing is left."""
        self.living.discard(process)
        if self._due is None:
            self._due = self._loop.call_soon(self._sweep_until_clean)

    def sweep(self) -> int:
        """Reap and kill what was left behind. Returns how many are still dying."""
        known = {process.pid for process in self.living if process.pid is not None}
        groups = {process.tree.marker: process.tree.grouped_pids for process in self.living}
        dying, self._strays = reaper.sweep_strays(known.union(self._others()), groups)
        return dying

    def pids(self, process: CliProcess) -> list[int]:
        """Returns a process and all that belongs to it, background processes included; empty when it is gone."""
        if process.pid is None:
            return []
        strays = self._strays.get(process.tree.marker, ())
        return process.tree.grouped_pids() or memory.tree(process.pid, strays)

    def _sweep_until_clean(self) -> None:
        self._due = self._loop.call_later(_AGAIN_S, self._sweep_until_clean) if self.sweep() else None
