"""One worker: a CLI process, its place in the life table, and the turn it is answering.

The worker feeds events to `lifecycle` and carries out the actions it gets back. Its hot path is `on_stdout`: one
read of the pipe becomes one call of the turn's sink, with nothing decoded unless a message starts or ends in it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Protocol

import msgspec

from ccd_protocol.errors import Code, RpcError

from . import body, control, errors, memory
from .body import Script
from .cgroup import Group
from .config import Settings
from .lifecycle import CLOCK, Action, Event, IllegalTransition, State, step
from .ndjson import TOKEN_PREFIX, LineCutter, LineTooLong, all_tokens, each
from .policy import Wear, jittered
from .process import WORKER_MARK, Process, death_wrapper, exit_words
from .turn import Sink, Turn

log = logging.getLogger("ccd.worker")


class Owner(Protocol):
    """Who owns the worker: the pool."""

    def offer(self, worker: Worker) -> None:
        """The worker is READY."""

    def withdraw(self, worker: Worker) -> None:
        """The worker is no longer READY."""

    def idle(self, worker: Worker) -> None:
        """An abandoned turn has ended; the worker is HELD by nobody and must be given back."""

    def buried(self, worker: Worker) -> None:
        """The worker is DEAD."""


class Worker:
    """A CLI process of one profile, serving one tenant at a time."""

    def __init__(self, worker_id: str, profile: str, mode: str, settings: Settings, owner: Owner) -> None:
        self.id = worker_id
        self.profile = profile
        self.mode = mode
        self.tenant: str | None = None  # whose requests it has heard; None: nobody's
        self.binding: str | None = (
            None  # the system prompt it has for life (`body.binding_of`); None: none yet
        )
        self.state = State.SPAWNING
        self.turn: Turn | None = None
        self.turns = 0
        self.surplus_calls = 0
        self.rss_bytes = 0
        self.cli_version: str | None = None
        self.models: list[dict[str, Any]] = []
        self.announced: list[str] = []  # the CLI's own list of its capabilities
        self.death: str | None = None  # why it ended, for people
        self.was_ready = False
        self.stderr_tail = ""  # filled at its death
        self._exit_words = "ended"
        self.last_used = 0.0
        self._settings = settings
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.born = self._loop.time()
        self.process: Process | None = None
        self.group: Group | None = None
        self.mark = ""  # tells its processes from others, in their environment
        self.stale = False  # the CLI has been replaced since: it ends when it is given back
        self._marker = ""
        self._dir: Path | None = None
        self._cutter = LineCutter(settings.cli.max_line_bytes)
        self._clock: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._random = Random()
        self.lifetime_factor = jittered(1.0, self._random)  # so that workers of one age do not end together
        self._requests = 0
        self._ping_id = ""
        self._reset_seen = False
        self._tainted = False
        self._over_soft_limit = False
        self._cost_usd = 0.0
        self._turns_since_reset = 0
        self._tokens_since_reset = 0
        self._spawning: asyncio.Task[None] | None = None
        self._arm_clock()

    # --- birth ---

    def start(
        self,
        command: Path,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        home: Path,
        open_group: Callable[[], Group | None],
    ) -> None:
        """Begin to spawn; `home` is a private directory of the worker's, removed with it.

        The worker's mark is in `env`; `open_group` makes its control group, in a thread.
        """
        self.mark = env[WORKER_MARK]
        self._marker = f"{WORKER_MARK}={self.mark}"
        self._dir = home
        self._spawning = self._loop.create_task(self._spawn(command, argv, env, open_group))

    async def _spawn(
        self,
        command: Path,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        open_group: Callable[[], Group | None],
    ) -> None:
        assert self._dir is not None
        try:
            self._dir.mkdir(parents=True, mode=0o700)
            self.group = await self._loop.run_in_executor(None, open_group)
            process = Process([*death_wrapper(), str(command), *argv], env=env, cwd=self._dir, listener=self)
            self.process = process
            await self._confine(process.pid)
            await process.connect()
        except (OSError, ValueError) as error:  # ValueError: a NUL in a setting
            self.death = f"cannot start {command}: {error}"
            self.feed(Event.SPAWN_FAILED)
        else:
            self.feed(Event.SPAWNED)

    async def _confine(self, pid: int) -> None:
        """Before it can start anything: it takes the CLI tens of milliseconds to get that far."""
        memory.take_workers_first(pid)
        if self.group is not None:
            await self._loop.run_in_executor(None, self.group.join, pid)

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self.process.pid if self.process is not None and self.state is not State.DEAD else None

    @property
    def age_s(self) -> float:
        """Seconds since it was asked for."""
        return self._loop.time() - self.born

    def wear(self) -> Wear:
        """What it has been through, for the decision what to do with it."""
        return Wear(
            turns=self.turns,
            turns_since_reset=self._turns_since_reset,
            input_tokens_since_reset=self._tokens_since_reset,
            age_s=self.age_s,
            over_soft_limit=self._over_soft_limit or self.stale,
            tainted=self._tainted,
        )

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
            self._arm_clock()
        for action in actions:
            _DO[action](self)

    def _arm_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        name = CLOCK.get(self.state)
        if name is None:
            return
        if self.state is State.READY:
            limit_s = jittered(self._settings.pool.max_idle_s, self._random)
        else:
            limit_s = getattr(self._settings.deadlines, name)
        self._clock = self._loop.call_later(limit_s, self._timed_out, name)

    def _timed_out(self, name: str) -> None:
        if self.state is not State.READY:
            log.warning("worker %s: %s passed in state %s", self.id, name, self.state.value)
            self.death = self.death or f"{name} passed while {self.state.value}"
        self.feed(Event.TIMEOUT)

    # --- turns ---

    def begin(self, script: Script, model: str, sink: Sink | None) -> Turn:
        """Write a turn to the CLI. The worker must be HELD by the caller.

        Raises:
            RpcError: WORKER_CRASHED, when it has ended since it was leased; nothing was sent, so try another.
        """
        if self.state is not State.HELD:
            raise RpcError(Code.WORKER_CRASHED, "the CLI process ended before the request was sent to it")
        self.turn = turn = Turn(script, model, sink, self._loop.time())
        self.binding = script.binding
        self.turns += 1
        self._turns_since_reset += 1
        self.feed(Event.TURN)
        self._stop_watching()
        self._watch_output()
        return turn

    def abandon(self, error: RpcError) -> None:
        """The caller has gone: fail the turn now and interrupt the CLI."""
        if self.turn is not None and not self.turn.over:
            self._end_early(self.turn, error)

    def next_id(self) -> str:
        """An id for a control request, unique in this process."""
        self._requests += 1
        return f"{self.id}-{self._requests}"

    def pause(self) -> None:
        """The caller's window is used up: stop reading until it has caught up."""
        if self.process is not None:
            self.process.pause()

    def resume(self) -> None:
        """The caller has caught up."""
        if self.process is not None and self.process.paused:
            if self.turn is not None:
                self.turn.last_output = self._loop.time()  # silence was ours, not the CLI's
            self.process.resume()

    def _end_early(self, turn: Turn, error: RpcError) -> None:
        self._tainted = True
        turn.sink = _discard
        turn.reject(error)
        self.resume()
        self.feed(Event.CANCEL)

    def _watch_output(self) -> None:
        """Arms the clock for the first output, later for silence; it re-arms itself instead of at every read."""
        turn, limits = self.turn, self._settings.deadlines
        if turn is None or self.state is not State.BUSY:
            return
        started = turn.flowing
        limit_s = limits.stall_s if started else limits.first_output_s
        if turn.message_done:
            limit_s = limits.result_s
        quiet_s = self._loop.time() - turn.last_output
        if quiet_s >= limit_s and not (self.process and self.process.paused):
            self.death = f"{'no further' if started else 'no'} output for {limit_s:g} s"
            self.feed(Event.TIMEOUT)
            return
        self._watch = self._loop.call_later(max(0.01, limit_s - quiet_s), self._watch_output)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    # --- output ---

    def on_stdout(self, data: bytes) -> None:
        """One read of the pipe. Token lines go to the turn's sink untouched."""
        turn = self.turn
        if turn is None or self._cutter.held_bytes or not all_tokens(data):
            data = self._cut(data)
            if turn is None or not all_tokens(data):
                self._slow_lines(data)
                return
        turn.last_output = self._loop.time()
        if not turn.flowing:
            self._first_output(turn)
        if turn.sink is not None and not turn.message_done:
            turn.sink(data)

    def _cut(self, data: bytes) -> bytes:
        """The whole lines of a read, and of those before it."""
        if self.state in (State.KILLING, State.DEAD):
            return b""
        try:
            return self._cutter.feed(data)
        except LineTooLong as error:
            self._bad_output(str(error))
            return b""

    def _first_output(self, turn: Turn) -> None:
        """From here on silence is what is watched for, and nothing may be tried again."""
        turn.flowing = True
        turn.output_started = turn.sink is not None
        self._stop_watching()
        self._watch_output()

    def _slow_lines(self, lines: bytes) -> None:
        """Lines among which there are some to look at: those passed on still go out together."""
        keep: list[bytes] = []
        for line in each(lines):
            if self.state in (State.KILLING, State.DEAD):
                return
            try:
                if line.startswith(TOKEN_PREFIX):
                    self._keep(keep, line)
                else:
                    self._look_at(line, keep)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                self._flush(keep)
                self._bad_output(str(error))
                return
        self._flush(keep)

    def _keep(self, keep: list[bytes], line: bytes) -> None:
        turn = self.turn
        if turn is not None and not turn.message_done:
            turn.last_output = self._loop.time()
            if not turn.flowing:
                self._first_output(turn)
            keep.append(line)

    def _flush(self, keep: list[bytes]) -> None:
        if keep and self.turn is not None and self.turn.sink is not None:
            self.turn.sink(b"".join(keep))
        keep.clear()

    def _look_at(self, line: bytes, keep: list[bytes]) -> None:
        kind = control.kind_of(line)
        if kind.type == "stream_event":
            self._on_stream_event(line, keep)
        elif kind.type == "assistant":
            self._on_assistant(line, keep)
        elif kind.type == "result":
            self._flush(keep)
            self._on_result(control.result_line(line))
        elif kind.type == "control_response":
            self._on_reply(control.control_reply(line).response)
        elif kind.type == "control_request":
            self._on_request(control.control_request(line))
        elif kind.type == "conversation_reset":
            self._reset_seen = True
        elif kind.type == "system" and kind.subtype == "api_retry":
            self._on_retry(control.retry_line(line))
        elif kind.type == "system" and kind.subtype == "status" and self.turn is not None:
            self.turn.api_requests += kind.status == "requesting"

    def _on_stream_event(self, line: bytes, keep: list[bytes]) -> None:
        turn = self.turn
        if turn is None or turn.over:
            return
        event = control.stream_line(line).event
        done = turn.message_done
        turn.last_output = self._loop.time()
        try:
            interrupt = turn.saw_event(event)
        except RpcError as error:
            self._end_early(turn, error)
            return
        if event.type == "message_start":
            self._guard()
        if turn.message_done and not done:
            self._stop_watching()
            self._watch_output()
        if not done:
            if event.type.startswith("content_block") and not turn.flowing:
                self._first_output(turn)
            keep.append(line)
        if interrupt:
            self._tainted = True
            self._interrupt()

    def _on_assistant(self, line: bytes, keep: list[bytes]) -> None:
        turn = self.turn
        if turn is None or turn.message_done:
            return
        message = control.assistant_line(line)
        if message.error is None and message.message.model != "<synthetic>":
            try:
                turn.add_content(message.message.id, message.message.content)
            except RpcError as error:
                self._end_early(turn, error)
                return
            keep.append(line)

    def _guard(self) -> None:
        """From now on another API call of this turn would be refused before it costs anything."""
        if self.mode != "replay":
            self._write(control.flags(self.next_id(), env={"CLAUDE_CODE_EXTRA_BODY": control.GUARD_BODY}))

    def _on_result(self, line: control.ResultLine) -> None:
        if self.state is State.RESETTING:
            confirmed = self._reset_seen and line.local_command == "clear" and not line.is_error
            if confirmed:
                self._forget()
            return self.feed(Event.RESET_OK if confirmed else Event.RESULT)
        turn = self.turn
        if turn is None:
            return None
        if turn.pending and not line.is_error:
            turn.last_output = self._loop.time()
            return self._write(turn.pending.pop(0))
        self._finish(turn, line)
        return None

    def _finish(self, turn: Turn, line: control.ResultLine) -> None:
        """The turn is over: hand out its result or its failure."""
        cost = max(0.0, (line.total_cost_usd or 0.0) - self._cost_usd)
        self._cost_usd = max(self._cost_usd, line.total_cost_usd or 0.0)
        result = turn.result(line, worker=self.id, mode=self.mode, cost_usd=cost, now=self._loop.time())
        self._tokens_since_reset += _input_tokens(result["usage"])
        self.surplus_calls += result["api_calls"] - 1
        answered = turn.message_done or not (line.is_error or turn.output_started)
        self._tainted = self._tainted or not answered or result["api_calls"] > 1 or line.is_error
        self.turn = None
        self.last_used = self._loop.time()
        self.resume()  # who held it back has had all there is, and the next caller has held back nothing
        self.feed(Event.RESULT)
        if answered:
            turn.resolve(result)
        else:
            # Once a message has begun, whatever follows (a refused call, a repetition) is the end of a broken one.
            error = errors.broke_off() if turn.begun else errors.from_result(line, model=turn.model)
            turn.reject(turn.failure(error.code, error.message, **error.data))
        if turn.abandoned:
            self._owner.idle(self)

    def _on_retry(self, retry: control.RetryLine) -> None:
        turn = self.turn
        if turn is None or turn.over:
            return
        turn.last_output = self._loop.time()
        if errors.hopeless(retry, patience_ms=self._settings.cli.retry_patience_ms) and not turn.message_done:
            error = errors.from_retry(retry, model=turn.model)
            self._end_early(turn, turn.failure(error.code, error.message, **error.data))

    def _on_reply(self, reply: control.ControlReply) -> None:
        if reply.request_id == self._ping_id:
            self._ping_id = ""
            self._warmed(reply)
        elif reply.subtype == "error" and self.turn and reply.request_id in self.turn.script.request_ids:
            self._bad_output(f"the CLI refused a setting: {reply.error}")

    def _warmed(self, reply: control.ControlReply) -> None:
        if reply.subtype == "success":
            answer = control.warm_reply(reply.response)
            self.models, self.announced = answer.models, answer.capabilities
            self.cli_version = answer.claude_code_version or answer.version
        if self.state is State.WARMING:
            self.was_ready = True
            if self.pid is not None and not (self.group and self.group.caps_memory):
                memory.limit_data(self.pid, self._settings.pool.rss_hard_bytes)
            self.last_used = self._loop.time()
            self.feed(Event.WARMED)

    def _on_request(self, request: control.ControlRequestLine) -> None:
        subtype = request.request.get("subtype")
        self._write(control.reply_error(request.request_id, f"this host does not serve {subtype!r}"))

    def _bad_output(self, reason: str) -> None:
        self._cutter = LineCutter(self._settings.cli.max_line_bytes)  # lets go of what it holds
        self.death = f"bad output: {reason[:300]}"
        log.warning("worker %s: %s", self.id, self.death)
        self.feed(Event.BAD_FRAME)

    def on_stdout_eof(self) -> None:
        """Stdout was closed while the process lives."""
        if self.process is not None:
            self.feed(Event.EOF)

    def on_exit(self, status: int) -> None:
        """The process has ended."""
        self.death = f"{self.death} ({exit_words(status)})" if self.death else exit_words(status)
        self._exit_words = exit_words(status)
        if status == -signal.SIGKILL and self.group is not None and self.group.oom_kills():
            self.death = f"out of memory: it reached its limit of {self._settings.pool.rss_hard_bytes} bytes"
            self.feed(Event.RSS_HARD)
        self.feed(Event.EXITED)

    # --- memory ---

    def measured(self, rss_bytes: int, processes: int) -> None:
        """Its resident memory, its descendants included, and how many processes they are."""
        self.rss_bytes = rss_bytes
        limits = self._settings.pool
        if self.state in (State.SPAWNING, State.DEAD):
            return
        if processes > limits.max_processes:
            self._too_large(f"it had {processes} processes, more than pool.max_processes")
        elif rss_bytes > limits.rss_hard_bytes:
            self._too_large(f"resident memory of {rss_bytes} bytes is over the hard limit")
        elif rss_bytes > limits.rss_soft_bytes:
            self._over_soft_limit = True
            self.feed(Event.RSS_SOFT)

    def _too_large(self, why: str) -> None:
        self.death = self.death or why
        self.feed(Event.RSS_HARD)
        self._kill()  # no time for manners: what grows by 500 MB/s is not asked first

    # --- actions ---

    def _write(self, data: bytes) -> None:
        if self.process is not None:
            self.process.write(data)

    def _ping(self) -> None:
        """Where nothing at binding needs `initialize` any more, spares initialise while they warm."""
        self._ping_id = self.next_id()
        if self.binding is not None:
            self._write(body.initialize(self._ping_id, self.binding))
        else:
            self._write(
                control.request(self._ping_id, "initialize" if self.mode == "full" else "get_binary_version")
            )

    def _write_turn(self) -> None:
        assert self.turn is not None
        self._write(self.turn.script.first)

    def _interrupt(self) -> None:
        self._write(control.request(self.next_id(), "interrupt"))

    def _reset(self) -> None:
        """Forget the conversation; only now may the request body be emptied, as nothing can be asked in between."""
        self._reset_seen = False
        self._write(control.flags(self.next_id(), env={"CLAUDE_CODE_EXTRA_BODY": ""}) + control.clear_line())

    def _forget(self) -> None:
        self._tainted = False
        self._turns_since_reset = self._tokens_since_reset = 0
        self._cost_usd = 0.0
        self.tenant = None

    def _close_stdin(self) -> None:
        if self.process is not None:
            self.process.resume()
            self.process.close_stdin()

    def _terminate(self) -> None:
        if self.process is not None:
            self.process.resume()
            self.process.terminate(self._marker)

    def _kill(self) -> None:
        if self.group is not None:
            self.group.kill()
        if self.process is not None:
            self.process.kill(self._marker)

    def _deliver_complete(self, turn: Turn) -> bool:
        """A message that was completed is an answer, whatever became of the process before it said so."""
        if turn.message_done:
            now = self._loop.time()
            turn.resolve(
                turn.result(control.ResultLine(), worker=self.id, mode=self.mode, cost_usd=0.0, now=now)
            )
        return turn.message_done

    def _fail(self, code: Code, message: str) -> None:
        turn = self.turn
        if turn is not None and not self._deliver_complete(turn):
            tail = self.process.stderr_tail() if self.process else ""
            turn.reject(turn.failure(code, message, stderr_tail=tail))

    def _fail_crashed(self) -> None:
        turn = self.turn
        if turn is not None and not self._deliver_complete(turn):
            error = errors.crashed(self._exit_words, self.process.stderr_tail() if self.process else "")
            turn.reject(turn.failure(error.code, error.message, **error.data))

    def _bury(self) -> None:
        self._stop_watching()
        self.turn = None
        if self.process is not None:
            self.stderr_tail = self.process.stderr_tail()
        if self.group is not None:
            self.group.kill()  # whatever of its tree is left; what is in no group is swept
        self._loop.run_in_executor(None, _remove, self._dir, self.group)
        self._owner.buried(self)


def _discard(lines: bytes) -> None:
    """The sink of a turn that nobody listens to any more."""


def _remove(folder: Path | None, group: Group | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    if group is not None:
        group.remove()


def _input_tokens(usage: Mapping[str, Any]) -> int:
    return sum(
        int(usage.get(key, 0))
        for key in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    )


_DO: Mapping[Action, Callable[[Worker], None]] = {
    Action.PING: Worker._ping,
    Action.OFFER: lambda worker: worker._owner.offer(worker),
    Action.WITHDRAW: lambda worker: worker._owner.withdraw(worker),
    Action.WRITE_TURN: Worker._write_turn,
    Action.WRITE_RESULTS: Worker._write_turn,
    Action.INTERRUPT: Worker._interrupt,
    Action.RESET: Worker._reset,
    Action.CLOSE_STDIN: Worker._close_stdin,
    Action.TERMINATE: Worker._terminate,
    Action.KILL: Worker._kill,
    Action.FAIL_STUCK: lambda worker: worker._fail(
        Code.WORKER_STUCK, f"the CLI process was killed: {worker.death or 'it did not answer'}"
    ),
    Action.FAIL_OOM: lambda worker: worker._fail(
        Code.WORKER_OOM, f"the CLI process was killed: {worker.death or 'out of memory'}"
    ),
    Action.FAIL_BAD_OUTPUT: lambda worker: worker._fail(
        Code.WORKER_CRASHED, f"the CLI process was killed: {worker.death or 'bad output'}"
    ),
    Action.FAIL_DRAINING: lambda worker: worker._fail(Code.DRAINING, "ccd is shutting down"),
    Action.FAIL_CRASHED: Worker._fail_crashed,
    Action.BURY: Worker._bury,
}
