"""What a worker's CLI says: the lines of the answer are passed on as they came, the rest is looked at.

Theory of operation. `on_stdout` is the hot path: one read of the pipe becomes one call of the turn's sink, with
nothing decoded unless a message starts or ends in it. A read in which there is anything else takes the slow path:
its lines are sorted one by one, and those that are passed on still go out together. What concerns the answer is
decided here; what concerns the process and its life is told to the listener.

Not here: decoding tokens. The obvious way, reading line by line and decoding each, costs 7 µs of CPU per line instead
of 0.2 to 0.6, and a queue between stdout and socket would hide a slow client from the CLI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from ccd_daemon.claude import control
from ccd_daemon.claude.ndjson import TOKEN_PREFIX, LineCutter, LineTooLong, all_tokens, each
from ccd_daemon.worker.controller import Controller
from ccd_daemon.worker.parking import Parking
from ccd_daemon.worker.turn import Stage, Turn
from ccd_protocol.errors import RpcError

_FLOWING, _COMPLETE = Stage.FLOWING, Stage.COMPLETE


class ReaderListener(Protocol):
    """Whose CLI it is: the worker."""

    @property
    def heard(self) -> bool:
        """Whether what the CLI says still counts."""

    def watch(self) -> None:
        """The turn has come to its next stage: the first output, or the end of the message."""

    def stop_message(self) -> None:
        """The message has ended in a way after which the CLI would go on."""

    def end_early(self, turn: Turn, error: RpcError) -> None:
        """The turn cannot be completed."""

    def on_result(self, line: control.ResultLine) -> None:
        """The CLI has done what was written to it."""

    def on_retry(self, retry: control.RetryLine) -> None:
        """An API call failed and is to be tried again."""

    def on_reply(self, reply: control.ControlReply) -> None:
        """A control request was answered."""

    def on_request(self, request: control.ControlRequestLine) -> None:
        """The CLI asks its host for something."""

    def bad_output(self, reason: str) -> None:
        """What came is not the protocol."""


class StdoutReader:
    """The stdout of one CLI. `turn` is the one whose answer it is to be, None between turns.

    Args:
        listener: is told what concerns the life of the process or the end of the turn.
        controller: words what is said back to the CLI at once.
        parking: its calls of client tools.
        write: takes it to the CLI.
        max_line_bytes: a longer line is bad output.
    """

    def __init__(
        self,
        listener: ReaderListener,
        controller: Controller,
        parking: Parking,
        write: Callable[[bytes], None],
        max_line_bytes: int,
    ) -> None:
        self.turn: Turn | None = None
        self._listener = listener
        self._controller = controller
        self._parking = parking
        self._write = write
        self._cutter = LineCutter(max_line_bytes)
        self._time = asyncio.get_running_loop().time

    @property
    def unfinished_bytes(self) -> int:
        """The size of the line that has not ended yet."""
        return self._cutter.unfinished_bytes

    def on_stdout(self, data: bytes) -> None:
        """One read of the pipe. Token lines go to the turn's sink untouched."""
        turn = self.turn
        if turn is None or self._cutter.unfinished_bytes or not all_tokens(data):
            data = self._cut(data)
            if turn is None or not all_tokens(data):
                self._slow_lines(data)
                return
        turn.last_output = self._time()
        if turn.stage is not _FLOWING:
            if turn.stage is _COMPLETE:
                return
            self._first_output(turn)
        if turn.inputs is not None:
            turn.inputs.more(data)
        if turn.sink is not None:
            turn.sink(data)

    def _cut(self, data: bytes) -> bytes:
        """Returns the whole lines of a read, and of those before it."""
        if not self._listener.heard:
            return b""
        try:
            return self._cutter.feed(data)
        except LineTooLong as error:
            self._bad_output(str(error))
            return b""

    def _first_output(self, turn: Turn) -> None:
        """From here on silence is what is watched for, and nothing may be tried again."""
        turn.stage = _FLOWING
        self._listener.watch()

    def _slow_lines(self, lines: bytes) -> None:
        """Lines among which there are some to look at: those passed on still go out together."""
        keep: list[bytes] = []
        for line in each(lines):
            if not self._listener.heard:
                return
            try:
                if line.startswith(TOKEN_PREFIX):
                    self._on_token(line, keep)
                else:
                    self._look_at(line, keep)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                self._flush(keep)
                self._bad_output(str(error))
                return
        self._flush(keep)

    def _flush(self, keep: list[bytes]) -> None:
        if keep and self.turn is not None and self.turn.sink is not None:
            self.turn.sink(b"".join(keep))
        keep.clear()

    def _bad_output(self, reason: str) -> None:
        self._cutter = LineCutter(self._cutter.max_line_bytes)  # lets go of what it holds
        self._listener.bad_output(reason)

    # --- the kinds of lines ---

    def _look_at(self, line: bytes, keep: list[bytes]) -> None:
        kind = control.kind_of(line)
        if kind.type == "stream_event":
            self._on_stream_event(line, keep)
        elif kind.type == "assistant":
            self._on_assistant(line, keep)
        elif kind.type == "result":
            self._flush(keep)
            self._listener.on_result(control.result_line(line))
        elif kind.type == "control_response":
            if self.turn is not None and self.turn.complete:
                self._flush(keep)  # this may be the last that the turn waits for
            self._listener.on_reply(control.control_reply(line).response)
        elif kind.type == "control_request":
            self._listener.on_request(control.control_request(line))
        elif kind.type == "control_cancel_request":
            self._parking.withdrawn(control.cancel_line(line).request_id)
        elif kind.type == "user" and self.turn is not None and self.turn.parks:
            # A tool that is not there: the model was told so, and the client's results would come too late.
            self._listener.stop_message()
        elif kind.type == "conversation_reset":
            self._controller.reset_seen = True
        elif kind.type == "system":
            self._on_system(kind, line, keep)

    def _on_system(self, kind: control.Kind, line: bytes, keep: list[bytes]) -> None:
        if kind.subtype == "api_retry":
            self._listener.on_retry(control.retry_line(line))
            if self.turn is not None and not self.turn.over:
                keep.append(line)  # whoever waits may say so
        elif self.turn is not None and kind.subtype == "init":
            self.turn.taken = True
        elif self.turn is not None and kind.subtype == "status":
            self.turn.api_requests += kind.status == "requesting"

    def _on_token(self, line: bytes, keep: list[bytes]) -> None:
        turn = self.turn
        if turn is not None and turn.stage is not _COMPLETE:
            turn.last_output = self._time()
            if turn.stage is not _FLOWING:
                self._first_output(turn)
            if turn.inputs is not None:
                turn.inputs.more(line)
            keep.append(line)

    def _on_stream_event(self, line: bytes, keep: list[bytes]) -> None:
        turn = self.turn
        if turn is None or turn.over:
            return
        event = control.stream_line(line).event
        done = turn.complete
        turn.last_output = self._time()
        try:
            stop = turn.saw_event(event)
        except RpcError as error:
            self._listener.end_early(turn, error)
            return
        if event.type == "message_start":
            self._write(self._controller.guard())  # no other call of this turn may cost anything
        if turn.complete and not done:
            self._listener.watch()
        if not done:
            if event.type.startswith("content_block") and turn.stage < _FLOWING:
                self._first_output(turn)
            keep.append(line)
        if stop:
            self._listener.stop_message()
        elif turn.parks and not done:
            # Before it is handed out: what did it cost?
            self._write(self._parking.ask_cost(self._controller.next_id()))

    def _on_assistant(self, line: bytes, keep: list[bytes]) -> None:
        turn = self.turn
        if turn is None or turn.complete:
            return
        message = control.assistant_line(line)
        if message.error is None and message.message.model != "<synthetic>":
            try:
                turn.add_content(message.message.id, message.message.content)
            except RpcError as error:
                self._listener.end_early(turn, error)
                return
            keep.append(line)
