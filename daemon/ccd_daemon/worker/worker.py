"""One worker: a CLI process, its place in the life table, and the turn it is answering.

The worker feeds events to `lifecycle` and carries out the actions it gets back. What it is made of: the process and
all that is its own (`process_tree`), what the process says (`reader`), what is asked of it beside turns
(`controller`), the clocks (`clocks`), and what it has been through (`wear`).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Protocol

from ccd_daemon import errors
from ccd_daemon.claude import control, failures
from ccd_daemon.claude.login import Mode
from ccd_daemon.config import Settings
from ccd_daemon.process import memory
from ccd_daemon.process.cgroup import Group
from ccd_daemon.process.process import exit_words
from ccd_daemon.process.tree import ProcessTree
from ccd_daemon.request.body import Script
from ccd_daemon.worker.actions import DO
from ccd_daemon.worker.clocks import OutputClock, StateClock
from ccd_daemon.worker.controller import Controller
from ccd_daemon.worker.lifecycle import Action, Event, IllegalTransition, State, step
from ccd_daemon.worker.reader import StdoutReader
from ccd_daemon.worker.turn import Sink, Turn
from ccd_daemon.worker.wear import Wear, WearLimits, jittered
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatResult

log = logging.getLogger("ccd.worker")


class WorkerListener(Protocol):
    """Who owns the worker: the pool."""

    def offer(self, worker: Worker) -> None:
        """The worker is READY."""

    def withdraw(self, worker: Worker) -> None:
        """The worker is no longer READY."""

    def may_rehearse(self, worker: Worker) -> bool:
        """Whether there is time and leave for a rehearsal, now that the worker has answered."""

    def rehearsed(self, worker: Worker, fault: str | None) -> None:
        """A rehearsal was of use, or what was wrong with it."""

    def idle(self, worker: Worker) -> None:
        """An abandoned turn has ended; the worker is HELD by nobody and must be given back."""

    def ended(self, worker: Worker) -> None:
        """The worker is DEAD."""


class Worker:
    """A CLI process of one profile, serving one tenant at a time."""

    def __init__(
        self, worker_id: str, profile: str, mode: Mode, settings: Settings, listener: WorkerListener
    ) -> None:
        self.id = worker_id
        self.profile = profile
        self.mode = mode
        self._listener: WorkerListener = listener
        self.tenant: str | None = None  # whose requests it has heard; None: nobody's
        self.binding: str | None = None  # the system prompt it has for life (`body.binding_of`), or none yet
        self.state = State.SPAWNING
        self.rss_bytes = 0
        self.cli_version: str | None = None
        self.models: list[dict[str, Any]] = []
        self.announced: list[str] = []  # the CLI's own list of its capabilities
        self.death: str | None = None  # why it ended, for people
        self.was_ready = False
        self.stale = False  # the CLI has been replaced since: it ends when it is given back
        self.exit_words: str = "ended"
        self.stderr_tail = ""  # filled at its death
        self.last_used = 0.0
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.born = self._loop.time()
        random = Random()
        self.wear = Wear()
        self.wear_limits = _wear_limits(settings, jittered(1.0, random))
        self.tree: ProcessTree = ProcessTree(self)
        self.controller: Controller = Controller(worker_id, mode)
        self._reader = StdoutReader(self, settings.cli.max_line_bytes)
        self.on_stdout = self._reader.on_stdout  # called with every read: nothing stands in between
        self._clock = StateClock(settings, random, self._timed_out)
        self._silence = OutputClock(settings, lambda: self.tree.paused, self._silent)
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
    def pid(self) -> int | None:
        """The process's id while it runs."""
        process = self.tree.process
        return process.pid if process is not None and self.state is not State.DEAD else None

    @property
    def age_s(self) -> float:
        """Seconds since it was asked for."""
        return self._loop.time() - self.born

    @property
    def turn(self) -> Turn | None:
        """The turn it is answering."""
        return self._reader.turn

    # --- the life table ---

    def feed(self, event: Event) -> None:
        """Something happened: change state and do what follows."""
        try:
            state, actions = step(self.state, event)
        except IllegalTransition:
            log.exception("worker %s: impossible event, killing the process", self.id)
            state, actions = State.KILLING, (Action.KILL,)
        if state is not self.state or event is Event.TIMEOUT:
            self.state = state
            self._clock.enter(state)
            if state is not State.BUSY:
                self._silence.stop()
        for action in actions:
            DO[action](self)

    def _timed_out(self, name: str) -> None:
        if self.state is not State.READY:
            log.warning("worker %s: %s passed in state %s", self.id, name, self.state.value)
            self.death = self.death or f"{name} passed while {self.state.value}"
        self.feed(Event.TIMEOUT)

    def _silent(self, words: str) -> None:
        self.death = words
        self.feed(Event.TIMEOUT)

    # --- turns ---

    def begin(self, script: Script, model: str, sink: Sink | None) -> Turn:
        """Write a turn to the CLI. The worker must be HELD by the caller.

        Raises:
            RpcError: WORKER_CRASHED, when it has ended since it was leased; nothing was sent, so try another.
        """
        if self.state is not State.HELD:
            raise RpcError(Code.WORKER_CRASHED, "the CLI process ended before the request was sent to it")
        self._reader.turn = turn = Turn(script, model, sink, self._loop.time())
        self.binding = script.binding
        self.wear.turn_began()
        self.feed(Event.TURN)
        self.watch()
        return turn

    def abandon(self, error: RpcError) -> None:
        """The caller has gone: fail the turn now and interrupt the CLI."""
        if self.turn is not None and not self.turn.over:
            self.end_early(self.turn, error)

    def next_id(self) -> str:
        """An id for a control request, unique in this process."""
        return self.controller.next_id()

    def pause(self) -> None:
        """The caller's window is used up: stop reading until it has caught up."""
        self.tree.pause()

    def resume(self) -> None:
        """The caller has caught up."""
        if self.tree.paused:
            if self.turn is not None:
                self.turn.last_output = self._loop.time()  # silence was ours, not the CLI's
            self.tree.resume()

    def fail(self, error: RpcError) -> None:
        """The process ends before the turn; an answer that was complete by then is one all the same."""
        turn = self.turn
        if turn is None:
            return
        if turn.message_done:
            turn.resolve(self._result(turn, control.ResultLine(), cost_usd=0.0))
        else:
            turn.reject(turn.failed_by(error))

    def _result(self, turn: Turn, line: control.ResultLine, *, cost_usd: float) -> ChatResult:
        return turn.result(line, worker=self.id, mode=self.mode, cost_usd=cost_usd, now=self._loop.time())

    def _finish(self, turn: Turn, line: control.ResultLine) -> None:
        """The turn is over: hand out its result or its failure."""
        result = self._result(turn, line, cost_usd=self.wear.cost_usd(line.total_cost_usd))
        answered = turn.message_done or not (line.is_error or turn.output_started)
        self.wear.turn_ended(result, clean=answered and not line.is_error)
        self._reader.turn = None
        self.last_used = self._loop.time()
        self.tree.resume()  # who held it back has had all there is, and the next caller has held back nothing
        self.feed(Event.RESULT)
        if answered:
            turn.resolve(result)
        else:
            # Once a message has begun, whatever follows (a refused call, a repetition) is the end of a broken one.
            error = errors.broke_off() if turn.begun else failures.from_result(line, model=turn.model)
            turn.reject(turn.failed_by(error))
        if turn.abandoned:
            self._listener.idle(self)

    # --- what the reader tells (see `reader.ReaderListener`) ---

    def watch(self) -> None:
        """The turn has begun or come to its next stage: watch for what comes next."""
        if self.turn is not None and self.state is State.BUSY:
            self._silence.watch(self.turn)

    def guard(self) -> None:
        """A message has started: no other call of this turn may cost anything."""
        self.tree.write(self.controller.guard())

    def stop_message(self) -> None:
        """The message has ended, and the CLI must be kept from going on by itself."""
        self.wear.tainted = True
        self.tree.write(self.controller.interrupt())

    def end_early(self, turn: Turn, error: RpcError) -> None:
        """Answer the caller with `error` now; what the CLI still says of this turn is discarded."""
        self.wear.tainted = True
        turn.sink = _discard
        turn.reject(error)
        self.resume()
        self.feed(Event.CANCEL)

    def on_result(self, line: control.ResultLine) -> None:
        """The CLI has done what was written to it: a reset, a part of the turn, or all of it."""
        turn = self.turn
        if self.state is State.REHEARSING:
            well = self.controller.rehearsed(line)
            self._listener.rehearsed(
                self, None if well else f"it ended with: {line.result or line.subtype}"[:300]
            )
            self.feed(Event.RESULT)
        elif self.state is State.RESETTING:
            confirmed = self.controller.reset_confirmed(line)
            if confirmed:
                self.wear.forgot()
                self.tenant = None
            self.feed(Event.RESET_OK if confirmed else Event.RESULT)
        elif turn is not None and turn.pending and not line.is_error:
            turn.last_output = self._loop.time()
            self.tree.write(turn.pending.pop(0))
        elif turn is not None:
            self._finish(turn, line)

    def on_retry(self, retry: control.RetryLine) -> None:
        """An API call failed; when trying again is hopeless, the caller is told so now."""
        turn = self.turn
        if turn is None or turn.over:
            return
        turn.last_output = self._loop.time()
        if (
            failures.hopeless(retry, patience_ms=self._settings.cli.retry_patience_ms)
            and not turn.message_done
        ):
            self.end_early(turn, turn.failed_by(failures.from_retry(retry, model=turn.model)))

    def on_reply(self, reply: control.ControlReply) -> None:
        """A control request was answered."""
        if self.controller.is_warm_reply(reply):
            self._warmed(reply)
        elif reply.subtype == "error" and self.turn and reply.request_id in self.turn.script.request_ids:
            self.bad_output(f"the CLI refused a setting: {reply.error}")

    def _warmed(self, reply: control.ControlReply) -> None:
        if reply.subtype == "success":
            answer = control.warm_reply(reply.response)
            self.models, self.announced = answer.models, answer.capabilities
            self.cli_version = answer.claude_code_version or answer.version
        if self.state is State.WARMING:
            self.was_ready = True
            if self.pid is not None and not self.tree.caps_memory:
                memory.limit_data(self.pid, self._settings.pool.rss_hard_bytes)
            self.last_used = self._loop.time()
            self.feed(Event.REHEARSE if self._listener.may_rehearse(self) else Event.WARMED)

    def on_request(self, request: control.ControlRequestLine) -> None:
        """The CLI asks its host something."""
        subtype = request.request.get("subtype")
        self.tree.write(control.reply_error(request.request_id, f"this host does not serve {subtype!r}"))

    def on_conversation_reset(self) -> None:
        """The CLI has begun a new conversation."""
        self.controller.reset_seen = True

    def bad_output(self, reason: str) -> None:
        """What came is not the protocol."""
        self.death = f"bad output: {reason[:300]}"
        log.warning("worker %s: %s", self.id, self.death)
        self.feed(Event.BAD_FRAME)

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

    def withdraw(self) -> None:
        """It is no longer READY: tell the pool."""
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
        self._reader.turn = None
        self.stderr_tail = self.tree.stderr_tail()
        self.tree.remove()
        self._listener.ended(self)


def _discard(lines: bytes) -> None:
    """The sink of a turn that nobody listens to any more."""


def _wear_limits(settings: Settings, lifetime_factor: float) -> WearLimits:
    """With a factor of the worker's own, so that workers of one age do not end together."""
    limits = settings.engine
    return WearLimits(
        limits.reset_turns,
        limits.reset_input_tokens,
        int(limits.max_turns * lifetime_factor),
        limits.max_age_s * lifetime_factor,
    )
