"""The CLI process of one session: its life, its clock, its size, and the control requests that are made of it.

Theory of operation. It lives by the table of `lifecycle`, like an engine worker. It is never leased to anybody else: as
soon as it is warm it is HELD, by its session; it is BUSY from a message until the CLI's `result`, and CANCELLING after
an interrupt. A turn also begins unasked, when messages were queued in the CLI meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ccd_daemon.claude import control
from ccd_daemon.claude.ndjson import LineCutter, LineTooLong
from ccd_daemon.config import Settings
from ccd_daemon.process import memory
from ccd_daemon.process.cgroup import Group
from ccd_daemon.process.process import exit_words
from ccd_daemon.process.tree import ProcessTree
from ccd_daemon.session.requests import ControlRequests, agreed
from ccd_daemon.worker.lifecycle import CLOCK, ENDING, UNHEARD, Action, Event, IllegalTransition, State, step
from ccd_daemon.worker.story import Story
from ccd_protocol.errors import Code, RpcError

log = logging.getLogger("ccd.session")


@dataclass(frozen=True)
class SessionWish:
    """What a session is to begin with."""

    model: str | None = None
    permission_mode: str = "default"
    allowed_tools: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None  # the CLI holds itself and its subagents to these; None: to any


class SessionProcessListener(Protocol):
    """Whose process it is: the session."""

    def patience_s(self, state: State) -> float | None:
        """Returns how long it may stay HELD or BUSY; None for as long as it likes."""

    def on_lines(self, lines: bytes) -> None:
        """The CLI has said something: whole lines."""

    def on_warm(self, version: str | None) -> None:
        """It takes messages; `version` is the CLI's."""

    def on_idle(self) -> None:
        """It was HELD for too long."""

    def on_end(self, error: RpcError) -> None:
        """The process has ended, `error` says how. It is DEAD."""


class SessionProcess:
    """A CLI process with tools of its own.

    Attributes:
        state: where it is in its life.
        death: why it ended or is about to, in words.
        launched: it has been told to start, so its end will be told.
        rss_bytes: its resident memory when it was last looked at, with its descendants'.
    """

    def __init__(self, session_id: str, settings: Settings, listener: SessionProcessListener) -> None:
        self.id = session_id
        self.state = State.SPAWNING
        self.death: str | None = None
        self.turns = 0
        self.launched = False
        self.rss_bytes = 0
        self.tree = ProcessTree(self)
        self.requests = ControlRequests(self.tree.write)
        self._listener = listener
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.born = self._loop.time()
        self.story = Story(self.born)
        self._cutter = LineCutter(settings.cli.max_line_bytes)
        self._clock: asyncio.TimerHandle | None = None
        self._failure: RpcError | None = None
        self._was_ready = False
        self._task: asyncio.Task[None] | None = None
        self.rearm()

    # --- birth ---

    def start(
        self,
        command: Path,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        home: Path,
        open_group: Callable[[], Group | None],
        folder: int | None,
        wish: SessionWish,
    ) -> None:
        """Begin to spawn; `folder` is the open descriptor of the directory to work in, which is closed here.

        Without one it works in an empty directory in its home, which goes with it.
        """
        self.launched = True
        scratch = home / "work"

        def prepare() -> Group | None:
            scratch.mkdir()
            return open_group()

        async def spawn() -> None:
            # By its descriptor: whatever becomes of the path meanwhile, this is the directory that was checked.
            cwd = scratch if folder is None else Path(f"/proc/self/fd/{folder}")
            try:
                await self.tree.spawn(command, argv, env, home, prepare, cwd=cwd)
            except (OSError, ValueError) as error:  # ValueError: a NUL in a setting
                self.death = f"cannot start {command}: {error}"
                self.feed(Event.SPAWN_FAILED)
            else:
                self.feed(Event.SPAWNED)
            finally:
                if folder is not None:
                    os.close(folder)
            await self._open(wish)

        self._task = self._loop.create_task(spawn())

    async def _open(self, wish: SessionWish) -> None:
        """Set what is wanted, all in one write; it is warm when the last of it is confirmed."""
        settings: dict[str, Any] = {} if wish.model is None else {"model": wish.model}
        if wish.allowed_tools:
            settings["permissions"] = {"allow": list(wish.allowed_tools)}
        if wish.models is not None:
            settings["availableModels"] = list(wish.models)
        if self.state is not State.WARMING:
            return
        asked = [
            self.requests.make("initialize"),
            self.requests.make("apply_flag_settings", settings=settings),
            self.requests.make("set_permission_mode", mode=wish.permission_mode),
        ]
        try:
            replies = [agreed(await reply) for reply in asked]
        except RpcError as error:
            self._failure = self._failure or error
            self.stop()
            return
        if self.state is not State.WARMING:
            return
        version = None
        with suppress(msgspec.DecodeError):
            version = control.warm_reply(replies[0].response).claude_code_version
        if self.pid is not None and not self.tree.caps_memory:
            memory.limit_data(self.pid, self._settings.pool.rss_hard_bytes)
        self._was_ready = True
        self.feed(Event.WARMED)
        self._listener.on_warm(version)

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
            error.add_note(f"the story of session {self.id}: {self.story}")
            log.exception("session %s: impossible event, killing the process", self.id)
            state, actions = State.KILLING, (Action.KILL,)
        if state in UNHEARD and self.state not in ENDING and event is not Event.STOP:
            log.warning("session %s: %s; its story: %s", self.id, self.death or event.name, self.story)
        if state is not self.state or event is Event.TIMEOUT:
            self.state = state
            self.rearm()
        for action in actions:
            _DO[action](self)

    def stop(self) -> None:
        """Let it end: at once when it does nothing, else after an interrupt."""
        self.feed(Event.STOP if self.launched else Event.SPAWN_FAILED)

    def rearm(self) -> None:
        """Start the clock of the state anew."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if self.state in (State.HELD, State.BUSY):
            limit_s = self._listener.patience_s(self.state)
        else:
            name = CLOCK.get(self.state)
            limit_s = getattr(self._settings.deadlines, name, None) if name else None
        if limit_s is not None:
            self._clock = self._loop.call_later(limit_s, self._timed_out)

    def _timed_out(self) -> None:
        if self.state is State.HELD:
            self._listener.on_idle()
            return
        name = "sessions.turn_s" if self.state is State.BUSY else f"deadlines.{CLOCK[self.state]}"
        self.death = self.death or f"{name} passed while {self.state.value}"
        self.feed(Event.TIMEOUT)

    # --- talking ---

    @property
    def unwritten_bytes(self) -> int:
        """What was written to it and not yet read by it."""
        process = self.tree.process
        return process.unwritten_bytes if process is not None else 0

    def say(self, line: bytes) -> None:
        """Write a message; it begins a turn, or waits in the CLI for the running one to end."""
        self.turn_began()
        self.tree.write(line)

    def turn_began(self) -> None:
        """A turn begins, if none is running."""
        if self.state is State.HELD:
            self.feed(Event.TURN)

    def turn_ended(self) -> None:
        """The CLI's `result` has come."""
        if self.state in (State.BUSY, State.CANCELLING):
            self.turns += 1
            self.feed(Event.RESULT)

    def bad_output(self, reason: str) -> None:
        """What came is not the protocol."""
        self._cutter = LineCutter(self._settings.cli.max_line_bytes)  # lets go of what it holds
        self.death = f"bad output: {reason[:300]}"
        self.feed(Event.BAD_FRAME)

    # --- what the process tells (see `process.ProcessListener`) ---

    def on_stdout(self, data: bytes) -> None:
        """One read of the pipe."""
        if self.state in UNHEARD:
            return
        try:
            lines = self._cutter.feed(data)
        except LineTooLong as error:
            self.bad_output(str(error))
            return
        if lines:
            self._listener.on_lines(lines)

    def on_stdout_eof(self) -> None:
        """Stdout was closed while the process lives."""
        self.feed(Event.EOF)

    def on_exit(self, status: int) -> None:
        """The process has ended."""
        self.death = f"{self.death} ({exit_words(status)})" if self.death else exit_words(status)
        if status == -signal.SIGKILL and self.tree.killed_by_memory_limit():
            self._too_large(f"it reached its memory limit of {self._settings.pool.rss_hard_bytes} bytes")
        self.feed(Event.EXITED)

    def measured(self, rss_bytes: int, processes: int) -> None:
        """Its resident memory, its descendants included, and how many processes they are."""
        self.rss_bytes = rss_bytes
        if self.state in (State.SPAWNING, State.DEAD):
            return
        limits = self._settings.pool
        too_large = memory.excess(
            rss_bytes, processes, hard_bytes=limits.rss_hard_bytes, max_processes=limits.max_processes
        )
        if too_large is not None:
            self._too_large(too_large)

    def _too_large(self, why: str) -> None:
        self.death = why
        self._fail(Code.WORKER_OOM)
        self.feed(Event.RSS_HARD)
        self.tree.kill()  # no time for manners: what grows by 500 MB/s is not asked first

    # --- actions ---

    def _fail(self, code: Code) -> None:
        text = f"the CLI process of this session was killed: {self.death or 'it did not answer'}"
        self._failure = self._failure or RpcError(code, text, {"stderr_tail": self.tree.stderr_tail()})

    def _end(self) -> None:
        self.tree.remove()
        error = self._failure or self._died()
        self.requests.fail(error)
        self._listener.on_end(error)

    def _died(self) -> RpcError:
        tail = self.tree.stderr_tail()
        if self._was_ready:
            text = f"the CLI process of this session has ended: {self.death}"
            return RpcError(Code.WORKER_CRASHED, text, {"stderr_tail": tail})
        reason = tail[-300:] or self.death or "it ended at once"
        return RpcError(Code.WORKER_SPAWN, f"the CLI cannot be started: {reason}", {"stderr_tail": tail})


def _nothing(process: SessionProcess) -> None:
    """What belongs to this action is done by the session itself."""


_DO: Mapping[Action, Callable[[SessionProcess], object]] = {
    Action.WARM_UP: _nothing,
    Action.OFFER: lambda process: process.feed(Event.LEASE),  # to its session, for life
    Action.WITHDRAW: _nothing,
    Action.WRITE_TURN: _nothing,
    Action.INTERRUPT: lambda process: process.requests.make("interrupt"),
    Action.CLOSE_STDIN: lambda process: process.tree.close_stdin(),
    Action.TERMINATE: lambda process: process.tree.terminate(),
    Action.KILL: lambda process: process.tree.kill(),
    Action.FAIL_STUCK: lambda process: process._fail(Code.WORKER_STUCK),
    Action.FAIL_OOM: lambda process: process._fail(Code.WORKER_OOM),
    Action.FAIL_BAD_OUTPUT: lambda process: process._fail(Code.WORKER_CRASHED),
    Action.FAIL_DRAINING: _nothing,
    Action.FAIL_CRASHED: _nothing,
    Action.END: SessionProcess._end,
}
