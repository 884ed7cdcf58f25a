"""A worker's clocks: one for its stay in each state, one for the silence within a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from ccd_daemon.config import Settings
from ccd_daemon.worker.lifecycle import CLOCK, State
from ccd_daemon.worker.turn import Stage, Turn
from ccd_daemon.worker.wear import jittered

_LEAST_WAIT_S = 0.01


class StateClock:
    """Calls `passed` with the setting's name when a worker has been in one state for too long."""

    def __init__(self, settings: Settings, random: Random, passed: Callable[[str], None]) -> None:
        self._settings = settings
        self._random = random
        self._passed = passed
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def enter(self, state: State) -> None:
        """Start over, with this state's limit."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        name = CLOCK.get(state)
        if name is None:
            return
        if state is State.READY:
            limit_s = jittered(self._settings.pool.max_idle_s, self._random)
        else:
            limit_s = getattr(self._settings.deadlines, name)
        self._handle = self._loop.call_later(limit_s, self._passed, name)


class OutputClock:
    """Calls `passed`, with words for it, when a turn has been silent for too long.

    What counts is the silence before the first output, later any silence, and at last the one between the end of the
    answer and the CLI's word that the turn is over. While the caller holds the output back, silence is not the CLI's.

    It looks again when the limit could be reached, instead of being set anew at every read.
    """

    def __init__(self, settings: Settings, paused: Callable[[], bool], passed: Callable[[str], None]) -> None:
        self._limits = settings.deadlines
        self._paused = paused
        self._passed = passed
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, turn: Turn) -> None:
        """Watch this turn, for what it has to do next."""
        self.stop()
        flows = turn.stage >= Stage.FLOWING
        limit_s = self._limits.stall_s if flows else self._limits.first_output_s
        if turn.complete:
            limit_s = self._limits.result_s
        quiet_s = self._loop.time() - turn.last_output
        if quiet_s >= limit_s and not self._paused():
            self._passed(f"{'no further' if flows else 'no'} output for {limit_s:g} s")
        else:
            self._handle = self._loop.call_later(max(_LEAST_WAIT_S, limit_s - quiet_s), self.watch, turn)

    def stop(self) -> None:
        """Watch no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
