"""The turns of one worker: how each is written, watched, and answered exactly once.

It listens to the reader. What ends a turn early or badly is decided here and told to the life of the process, which
is `worker`'s. Nothing here starts or ends a process, and nothing here looks at a line: a line that carries a token
goes from `reader` to the turn's sink without passing here.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from ccd_daemon import errors
from ccd_daemon.claude import control, failures
from ccd_daemon.claude.login import Mode
from ccd_daemon.config import Settings
from ccd_daemon.process.tree import ProcessTree
from ccd_daemon.request.body import Script
from ccd_daemon.worker.clocks import OutputClock
from ccd_daemon.worker.controller import Controller
from ccd_daemon.worker.lifecycle import UNHEARD, Event, State
from ccd_daemon.worker.parking import Parking
from ccd_daemon.worker.reader import StdoutReader
from ccd_daemon.worker.turn import Sink, Stage, Turn
from ccd_daemon.worker.wear import Wear
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatResult


class TurnsListener(Protocol):
    """Whose turns they are: the worker."""

    id: str
    mode: Mode
    state: State
    binding: str | None
    tree: ProcessTree
    controller: Controller
    parking: Parking
    wear: Wear

    def feed(self, event: Event) -> None:
        """Something happened that concerns its life."""

    def on_warm(self, reply: control.ControlReply) -> None:
        """What warms it up was answered."""

    def on_opened(self, reply: control.ControlReply) -> None:
        """It was given what it keeps for life, and tells of itself."""

    def on_done(self, line: control.ResultLine) -> None:
        """The CLI has done something that is no turn: a rehearsal, or a reset."""

    def on_turn_end(self, *, given_up: bool) -> None:
        """A turn has ended. When it was given up, the worker is HELD by nobody and must be given back."""

    def doomed(self, why: str, event: Event) -> None:
        """It must not go on, for this reason."""


class Turns:
    """The turn that a worker answers, and the way from one to the next."""

    def __init__(self, worker: TurnsListener, settings: Settings) -> None:
        self._worker = worker
        self._patience_ms = settings.cli.retry_patience_ms
        self._time = asyncio.get_running_loop().time
        tree = worker.tree
        self.reader = StdoutReader(
            self, worker.controller, worker.parking, tree.write, settings.cli.max_line_bytes
        )
        self._silence = OutputClock(
            settings, lambda: tree.paused, lambda words: worker.doomed(words, Event.TIMEOUT)
        )

    @property
    def turn(self) -> Turn | None:
        """The one that is being answered."""
        return self.reader.turn

    # --- what its caller does ---

    def begin(self, script: Script, model: str, sink: Sink | None) -> Turn:
        """Write a turn to the CLI. The worker must be HELD by the caller, or PARKED if these are its results.

        Raises:
            RpcError: WORKER_CRASHED, when it has ended since it was leased; nothing was sent, so try another.
        """
        worker = self._worker
        event = Event.TURN if script.results is None else Event.TOOL_RESULTS
        if worker.state is not (State.HELD if event is Event.TURN else State.PARKED):
            raise RpcError(Code.WORKER_CRASHED, "the CLI process ended before the request was sent to it")
        self.reader.turn = turn = Turn(script, model, sink, self._time())
        worker.binding = script.binding
        worker.parking.begin(script)
        worker.wear.turn_began()
        worker.feed(event)
        self.watch()
        return turn

    def abandon(self, error: RpcError) -> None:
        """The caller has gone: fail the turn now and interrupt the CLI."""
        if self.turn is not None and not self.turn.over:
            self.end_early(self.turn, error)
        elif self._worker.state is State.PARKED:  # it had its answer in the very moment when it left
            self._worker.feed(Event.CANCEL)

    def pause(self) -> None:
        """The caller's window is used up: stop reading until it has caught up."""
        self._worker.tree.pause()

    def resume(self) -> None:
        """The caller has caught up."""
        if self._worker.tree.paused:
            if self.turn is not None:
                self.turn.last_output = self._time()  # silence was ours, not the CLI's
            self._worker.tree.resume()

    # --- what the life of the process does ---

    def fail(self, error: RpcError) -> None:
        """The process ends before the turn; an answer that was complete by then is one all the same."""
        turn = self.turn
        if turn is None:
            return
        if turn.complete:
            turn.take_inputs()
            turn.resolve(self._result(turn, control.ResultLine(), cost_usd=0.0))
        else:
            turn.reject(turn.failed_by(error))

    def stop_watching(self) -> None:
        """The process is no longer BUSY."""
        self._silence.stop()

    def end(self) -> None:
        """The process has ended."""
        self.reader.turn = None

    # --- what the reader tells (see `reader.ReaderListener`) ---

    @property
    def heard(self) -> bool:
        """Whether what the CLI says still counts."""
        return self._worker.state not in UNHEARD

    def watch(self) -> None:
        """The turn has begun or come to its next stage: watch for what comes next."""
        if self.turn is not None and self._worker.state is State.BUSY:
            self._silence.watch(self.turn)

    def stop_message(self) -> None:
        """The message has ended, and the CLI must be kept from going on."""
        self._worker.wear.tainted = True
        self._worker.tree.write(self._worker.controller.interrupt())

    def end_early(self, turn: Turn, error: RpcError) -> None:
        """Answer the caller with `error` now; what the CLI still says of this turn is discarded."""
        self._worker.wear.tainted = True
        turn.sink = _discard
        turn.reject(error)
        self.resume()
        self._worker.feed(Event.CANCEL)

    def on_result(self, line: control.ResultLine) -> None:
        """The CLI has done what was written to it: a part of the turn, or all of it, or what is no turn."""
        turn = self.turn
        if turn is None:
            self._worker.on_done(line)
        elif turn.pending and not line.is_error:
            turn.last_output = self._time()
            self._worker.tree.write(turn.pending.pop(0))
        else:
            self._finish(turn, line)

    def on_retry(self, retry: control.RetryLine) -> None:
        """An API call failed; when trying again is hopeless, the caller is told so now."""
        turn = self.turn
        if turn is None or turn.over:
            return
        turn.last_output = self._time()
        if failures.hopeless(retry, patience_ms=self._patience_ms) and not turn.complete:
            self.end_early(turn, turn.failed_by(failures.from_retry(retry, model=turn.model)))

    def on_reply(self, reply: control.ControlReply) -> None:
        """A control request was answered."""
        if self._worker.controller.is_warm_reply(reply):
            self._worker.on_warm(reply)
        elif self._worker.parking.is_cost(reply):
            self._park()
        elif reply.subtype == "success" and self.turn and reply.request_id == self.turn.script.opened_by:
            self._worker.on_opened(reply)
        elif reply.subtype == "error" and self.turn and reply.request_id in self.turn.script.request_ids:
            self.bad_output(f"the CLI refused a setting: {reply.error}")

    def on_request(self, request: control.ControlRequestLine) -> None:
        """The CLI calls a client tool, or asks for what nobody serves here, such as a permission."""
        subtype = request.request.get("subtype")
        if subtype == "mcp_message":
            answer = self._worker.parking.asked(request)
        else:
            answer = control.reply_error(request.request_id, f"this host does not serve {subtype!r}")
        self._worker.tree.write(answer)
        self._park()

    def bad_output(self, reason: str) -> None:
        """What came is not the protocol."""
        self._worker.doomed(f"bad output: {reason[:300]}", Event.BAD_FRAME)

    # --- the end of a turn ---

    def _result(self, turn: Turn, line: control.ResultLine, *, cost_usd: float) -> ChatResult:
        worker = self._worker
        return turn.result(line, worker=worker.id, mode=worker.mode, cost_usd=cost_usd, now=self._time())

    def _over(self, event: Event) -> None:
        """The CLI has said all that it had to say to this."""
        self.reader.turn = None
        self._worker.tree.resume()  # who held it back has had all there is, and the next caller holds back nothing
        if self._worker.parking.place is not None:  # now, while nobody waits for it
            self._worker.tree.write(self._worker.controller.unguard())
        self._worker.feed(event)

    def _park(self) -> None:
        """Hand out an answer that calls client tools, once the CLI waits for the result of every one."""
        turn, worker = self.turn, self._worker
        if turn is None or worker.state is not State.BUSY or not turn.parks:
            return
        total_cost_usd = worker.parking.total_cost_usd(turn.tool_call_ids)
        if total_cost_usd is None:
            return
        turn.take_inputs()
        result = self._result(turn, control.ResultLine(), cost_usd=worker.wear.cost_usd(total_cost_usd))
        worker.wear.turn_ended(result, clean=True)
        worker.parking.park(turn.script, turn.content, turn.tool_call_ids)
        self._over(Event.PARK)
        turn.resolve(result)
        worker.on_turn_end(given_up=False)

    def _finish(self, turn: Turn, line: control.ResultLine) -> None:
        """The turn is over: hand out its result or its failure."""
        worker = self._worker
        turn.take_inputs()
        result = self._result(turn, line, cost_usd=worker.wear.cost_usd(line.total_cost_usd))
        answered = turn.complete or not (line.is_error or turn.output_started)
        worker.wear.turn_ended(result, clean=answered and not line.is_error)
        # it has heard a tool's result that nobody gave
        clean = not (worker.wear.tainted or turn.script.structured)
        worker.parking.ended(turn.script, turn.content, clean=clean)
        self._over(Event.RESULT)
        if answered:
            turn.resolve(result)
        else:
            # Once a message has begun, whatever follows (a refused call, a repetition) is the end of a broken one.
            begun = turn.stage > Stage.ASKED
            error = errors.broke_off() if begun else failures.from_result(line, model=turn.model)
            turn.reject(turn.failed_by(error))
        worker.on_turn_end(given_up=turn.given_up)


def _discard(lines: bytes) -> None:
    """The sink of a turn that nobody listens to any more."""
