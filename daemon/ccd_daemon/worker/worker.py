"""One worker: a CLI process and its place in the life table.

The worker feeds events to `lifecycle` and carries out the actions it gets back. What it is made of: the process and
all that is its own (`process.tree`), its turns (`turns`, which listens to `reader`), what is asked of the CLI beside
turns (`controller`), the clock of its state (`clocks`), what it has been through (`wear`) and its last steps (`story`).

Not here: who gets it (`pool`), and what an answer is (`turns`, `reader`). Nothing sets `state` but `feed`: a shortcut
past the table is how a process in an unknown state gets to answer somebody (DECISIONS, "A worker of parts").
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Protocol

from ccd_daemon.claude import control
from ccd_daemon.claude.login import Mode
from ccd_daemon.config import Settings
from ccd_daemon.process import memory
from ccd_daemon.process.cgroup import Group
from ccd_daemon.process.process import exit_words, is_doomed
from ccd_daemon.process.tree import ProcessTree
from ccd_daemon.worker.actions import DO
from ccd_daemon.worker.clocks import StateClock
from ccd_daemon.worker.controller import Controller
from ccd_daemon.worker.lifecycle import ENDING, UNHEARD, Action, Event, IllegalTransition, State, step
from ccd_daemon.worker.parking import Parking
from ccd_daemon.worker.story import Story
from ccd_daemon.worker.turns import Turns
from ccd_daemon.worker.wear import Wear, WearLimits, jittered

log = logging.getLogger("ccd.worker")


class WorkerListener(Protocol):
    """Who owns the worker: the pool."""

    def offer(self, worker: Worker) -> None:
        """The worker is READY."""

    def shelve(self, worker: Worker) -> None:
        """The worker is PARKED."""

    def withdraw(self, worker: Worker) -> None:
        """The worker is no longer READY or PARKED."""

    def may_rehearse(self, worker: Worker) -> bool:
        """Returns whether there is time and leave for a rehearsal, now that the worker has answered."""

    def rehearsed(self, worker: Worker, fault: str | None) -> None:
        """A rehearsal was of use, or what was wrong with it."""

    def idle(self, worker: Worker) -> None:
        """A turn that was given up has ended; the worker is HELD by nobody and must be given back."""

    def ended(self, worker: Worker) -> None:
        """The worker is DEAD."""


class Worker:
    """A CLI process of one profile, serving one tenant at a time.

    Attributes:
        tenant: whose requests it has heard; None: nobody's.
        binding: what it was given for life with `initialize`, as JSON; None: nothing yet.
        models: what the CLI says it offers, one dict for each, as it came.
        announced: the CLI's own list of its capabilities.
        death: why it ended or is about to, in words.
        parted: the setting of the time that it passed, if that is why it ends.
        stale: the CLI has been replaced since: it ends when it is given back.
        stderr_tail: the last of what it wrote there; filled at its death.
        last_used: the loop's time at the end of its last turn, or when it became ready.
    """

    def __init__(
        self, worker_id: str, profile: str, mode: Mode, settings: Settings, listener: WorkerListener
    ) -> None:
        self.id = worker_id
        self.profile = profile
        self.mode = mode
        self.tenant: str | None = None
        self.binding: str | None = None
        self.state = State.SPAWNING
        self.rss_bytes = 0
        self.cli_version: str | None = None
        self.models: list[dict[str, Any]] = []
        self.announced: list[str] = []
        self.death: str | None = None
        self.was_ready = False
        self.parted: str | None = None
        self.stale = False
        self.exit_words: str = "ended"
        self.stderr_tail = ""
        self.last_used = 0.0
        self._listener = listener
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.born = self._loop.time()
        self.story = Story(self.born)
        random = Random()
        self.wear = Wear()
        self.wear_limits = _wear_limits(settings, jittered(1.0, random))
        self.tree: ProcessTree = ProcessTree(self)
        self.controller: Controller = Controller(worker_id, mode)
        self.parking: Parking = Parking()
        self.turns: Turns = Turns(self, settings)
        self.on_stdout = self.turns.reader.on_stdout  # called with every read: nothing stands in between
        self._clock = StateClock(settings, random, self._timed_out)
        self._spawning: asyncio.Task[None] | None = None
        self._clock.enter(self.state)

    def start(
        self,
        command: Path,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        home: Path,
        open_group: Callable[[], Group | None],
    ) -> None:
        """Begin to spawn; for the arguments see `ProcessTree.spawn`."""
        self.controller.env = env
        self._spawning = self._loop.create_task(self._spawn(command, argv, env, home, open_group))

    async def _spawn(
        self,
        command: Path,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        home: Path,
        open_group: Callable[[], Group | None],
    ) -> None:
        try:
            await self.tree.spawn(command, argv, env, home, open_group)
        except (OSError, ValueError) as error:
            self.death = f"cannot start {command}: {error}"
            self.feed(Event.SPAWN_FAILED)
        else:
            self.feed(Event.SPAWNED)

    @property
    def seems_alive(self) -> bool:
        """Whether its process has memory: the kernel takes that away some time before it tells of the end."""
        return self.pid is None or memory.rss_bytes(self.pid) > 0

    @property
    def is_alive(self) -> bool:
        """Whether nobody has killed it so far; takes ten times as long to find out."""
        return self.pid is None or not (is_doomed(self.pid) or memory.rss_bytes(self.pid) == 0)

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        process = self.tree.process
        return process.pid if process is not None and self.state is not State.DEAD else None

    @property
    def age_s(self) -> float:
        """Seconds since it was asked for."""
        return self._loop.time() - self.born

    # --- the life table ---

    def feed(self, event: Event) -> None:
        """Something happened: change state and do what follows."""
        self.story.add(self._loop.time(), self.state, event)
        try:
            state, actions = step(self.state, event)
        except IllegalTransition as error:
            error.add_note(f"the story of worker {self.id}: {self.story}")
            log.exception("worker %s: impossible event, killing the process", self.id)
            state, actions = State.KILLING, (Action.KILL,)
        if state in UNHEARD and self.state not in ENDING and event is not Event.STOP:
            log.warning("worker %s: %s; its story: %s", self.id, self.death or event.name, self.story)
        if state is not self.state or event is Event.TIMEOUT:
            self.state = state
            self._clock.enter(state)
            if state is not State.BUSY:
                self.turns.stop_watching()
        for action in actions:
            DO[action](self)

    def _timed_out(self, name: str) -> None:
        self.parted = self.parted or name
        if self.state is not State.READY:
            self.death = self.death or f"{name} passed while {self.state.value}"
        self.feed(Event.TIMEOUT)

    def doomed(self, why: str, event: Event) -> None:
        """It must not go on, for this reason."""
        self.death = why
        self.feed(event)

    # --- what its turns tell (see `turns.TurnsListener`) ---

    def on_warm(self, reply: control.ControlReply) -> None:
        """What warms it up was answered."""
        if reply.subtype == "success":
            self.on_opened(reply)
        if self.state is State.WARMING:
            self.was_ready = True
            if self.pid is not None and not self.tree.caps_memory:
                memory.limit_data(self.pid, self._settings.pool.rss_hard_bytes)
            self.last_used = self._loop.time()
            self.feed(Event.REHEARSE if self._listener.may_rehearse(self) else Event.WARMED)

    def on_opened(self, reply: control.ControlReply) -> None:
        """The CLI tells of itself; in its answer to `initialize` also which models there are."""
        answer = control.warm_reply(reply.response)
        self.models, self.announced = answer.models or self.models, answer.capabilities or self.announced
        self.cli_version = answer.claude_code_version or answer.version or self.cli_version

    def on_done(self, line: control.ResultLine) -> None:
        """A rehearsal or a reset has ended, or a turn that nobody awaits: parked, it has gone on or was interrupted."""
        if self.state is State.REHEARSING:
            well = self.controller.rehearsed(line)
            fault = None if well else f"it ended with: {line.result or line.subtype}"[:300]
            self._listener.rehearsed(self, fault)
            self.feed(Event.RESULT)
        elif self.state is State.RESETTING:
            confirmed = self.controller.reset_confirmed(line)
            if confirmed:
                self.wear.forgot()
                self.tenant = None
            self.feed(Event.RESET_OK if confirmed else Event.RESULT)
        elif self.state in (State.PARKED, State.CANCELLING):
            interrupted = self.state is State.CANCELLING
            self.wear.tainted = True
            self.parking.spoil()
            self.feed(Event.RESULT)
            if interrupted:
                self._listener.idle(self)

    def on_turn_end(self, *, given_up: bool) -> None:
        """A turn has ended."""
        self.last_used = self._loop.time()
        if given_up:
            self._listener.idle(self)

    # --- what the process tells (see `process.ProcessListener`) ---

    def on_stdout_eof(self) -> None:
        """Stdout was closed while the process lives."""
        if self.tree.process is not None:
            self.feed(Event.EOF)

    def on_exit(self, status: int) -> None:
        """The process has ended."""
        self.exit_words = exit_words(status)
        self.death = f"{self.death} ({self.exit_words})" if self.death else self.exit_words
        if status == -signal.SIGKILL and self.tree.killed_by_memory_limit():
            self.death = f"out of memory: it reached its limit of {self._settings.pool.rss_hard_bytes} bytes"
            self.feed(Event.RSS_HARD)
        self.feed(Event.EXITED)

    # --- actions of the table ---

    def offer(self) -> None:
        """It is READY: tell the pool."""
        self._listener.offer(self)

    def shelve(self) -> None:
        """It is PARKED: tell the pool."""
        self._listener.shelve(self)

    def withdraw(self) -> None:
        """It is no longer READY or PARKED: tell the pool."""
        self._listener.withdraw(self)

    # --- memory ---

    def measured(self, rss_bytes: int, processes: int) -> None:
        """Its resident memory, its descendants included, and how many processes they are."""
        self.rss_bytes = rss_bytes
        limits = self._settings.pool
        if self.state in (State.SPAWNING, State.DEAD):
            return
        too_large = memory.excess(
            rss_bytes, processes, hard_bytes=limits.rss_hard_bytes, max_processes=limits.max_processes
        )
        if too_large is not None:
            self._too_large(too_large)
        elif rss_bytes > limits.rss_soft_bytes:
            self.wear.over_soft_limit = True
            self.feed(Event.RSS_SOFT)

    def _too_large(self, why: str) -> None:
        self.death = self.death or why
        self.feed(Event.RSS_HARD)
        self.tree.kill()  # no time for manners: what grows by 500 MB/s is not asked first

    def end(self) -> None:
        """It is DEAD: clean up after it."""
        self.turns.end()
        self.stderr_tail = self.tree.stderr_tail()
        self.tree.remove()
        self._listener.ended(self)


def _wear_limits(settings: Settings, lifetime_factor: float) -> WearLimits:
    """With a factor of the worker's own, so that workers of one age do not end together."""
    limits = settings.engine
    return WearLimits(
        limits.reset_turns,
        limits.reset_input_tokens,
        int(limits.max_turns * lifetime_factor),
        limits.max_age_s * lifetime_factor,
    )
