"""One turn of a worker: what was asked, what has been seen of the answer, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from ccd_daemon import errors
from ccd_daemon.claude import control
from ccd_daemon.claude.login import Mode
from ccd_daemon.request import structured
from ccd_daemon.request.body import Script
from ccd_daemon.worker.inputs import ToolInputs, value_of
from ccd_protocol.errors import RpcError
from ccd_protocol.methods import ChatResult, Usage

Sink = Callable[[bytes], None]

_USAGE_KEYS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
#: Ends of a message after which the CLI would make another call of its own, unless it is interrupted.
_CONTINUED_BY_CLI = frozenset({"max_tokens", "refusal", "model_context_window_exceeded"})


def _telling(sink: Sink) -> Sink:
    """Returns the same sink for an answer that the model gives to the CLI's own tool."""
    return lambda lines: sink(structured.told_lines(lines))


class Stage(IntEnum):
    """How far the answer of a turn has come."""

    ASKED = 0
    BEGUN = 1  # the message has started
    FLOWING = 2  # content is coming: from here on nothing may be tried again
    COMPLETE = 3  # the message has ended, which makes it an answer; the CLI's `result` is still to come


class Turn:
    """The open turn of a worker. `future` gets a `ChatResult`, or an `RpcError`, exactly once.

    Args:
        sink: called with whole output lines as they come; None to collect the answer instead (`content`).

    Attributes:
        stage: how far the answer has come; it only grows.
        inputs: of the message's tool calls, where it may have some.
        tool_inputs: these as JSON texts, after `take_inputs`; None where they did not come as events.
        given_up: its caller has left, and whoever gave the worker back did so before the CLI had stopped.
    """

    __slots__ = (
        "_content_of",
        "_streams",
        "api_requests",
        "content",
        "future",
        "given_up",
        "inputs",
        "last_output",
        "message_id",
        "model",
        "pending",
        "script",
        "sink",
        "stage",
        "started",
        "stop_reason",
        "stop_sequence",
        "taken",
        "tool_inputs",
        "usage",
    )

    def __init__(self, script: Script, model: str, sink: Sink | None, now: float) -> None:
        self.script = script
        self.pending = list(script.rest)
        self.sink = _telling(sink) if script.structured and sink is not None else sink
        self._streams = sink is not None
        self.stage = Stage.ASKED
        self.model = model
        self.started = self.last_output = now
        self.future: asyncio.Future[ChatResult] = asyncio.get_running_loop().create_future()
        self.given_up = False
        # The CLI works on it, so the model may have been asked: its `init` line has come. What is parked has had it.
        self.taken = script.results is not None
        self.api_requests = 0  # as the CLI announces them; a call of its own shows here first
        self.stop_reason: str | None = None
        self.stop_sequence: str | None = None
        self.usage: dict[str, Any] = {}
        self.message_id: str | None = None  # of the message that is passed on
        self.content: list[dict[str, Any]] = []
        self._content_of: str | None = None
        self.inputs: ToolInputs | None = None
        self.tool_inputs: list[str] | None = None

    @property
    def over(self) -> bool:
        """Whether its caller has already been answered."""
        return self.future.done()

    @property
    def complete(self) -> bool:
        """Whether the message has ended."""
        return self.stage is Stage.COMPLETE

    @property
    def output_started(self) -> bool:
        """Whether content was passed on to the caller."""
        return self._streams and self.stage >= Stage.FLOWING

    @property
    def parks(self) -> bool:
        """Whether the answer is complete and calls client tools, for whose results the CLI waits."""
        return self.script.parks and self.complete and self.stop_reason == "tool_use"

    def saw_event(self, event: control.StreamEvent) -> bool:
        """Note the start or end of a message; True when the CLI must be kept from continuing.

        The first message that ends is the answer: one that the CLI asks for on its own after that is counted, but
        changes nothing.

        Raises:
            RpcError: the CLI began the answer again after part of it had been passed on.
        """
        if self.stage is Stage.COMPLETE:
            return False
        if event.type == "message_start":
            self._begin(event.message or {})
        elif event.type == "message_delta":
            self.usage.update(event.usage or {})
            if event.delta is not None and event.delta.stop_reason:
                self.stage = Stage.COMPLETE
                self.stop_reason = event.delta.stop_reason
                if self.script.structured and self.stop_reason == "tool_use":
                    self.stop_reason = "end_turn"
                self.stop_sequence = event.delta.stop_sequence
                return self.stop_reason in _CONTINUED_BY_CLI
        return False

    def _begin(self, message: dict[str, Any]) -> None:
        if self.output_started:
            raise self.failed_by(errors.broke_off())
        self.stage = max(self.stage, Stage.BEGUN)
        self.message_id = message.get("id")
        self.model = message.get("model") or self.model
        self.usage.update(message.get("usage") or {})
        self.inputs = ToolInputs(self.message_id) if self.script.calls else None

    def take_inputs(self) -> None:
        """Put the inputs of the calls into the content as the model wrote them, where they came as events."""
        calls = [block for block in self.content if block.get("type") == "tool_use"]
        if self.inputs is None or self.inputs.message_id != self._content_of:
            return
        texts = self.inputs.texts()
        if len(texts) == len(calls):
            self.tool_inputs = texts
            for block, text in zip(calls, texts, strict=True):
                block["input"] = value_of(text)

    def add_content(self, message_id: str | None, blocks: list[dict[str, Any]]) -> None:
        """A finished content block; only those of the last message count.

        Raises:
            RpcError: the CLI got the answer again, without a stream, after part of the first was passed on.
        """
        if self.output_started and self.message_id is not None and message_id != self.message_id:
            raise self.failed_by(errors.broke_off())
        self.message_id = message_id
        if message_id != self._content_of:
            self.content.clear()
            self._content_of = message_id
        self.content.extend(blocks)
        if self.script.structured:
            self.content = structured.told(self.content)

    @property
    def text(self) -> str:
        """The text blocks of the answer, joined."""
        return "".join(str(block.get("text", "")) for block in self.content if block.get("type") == "text")

    @property
    def thoughts(self) -> list[dict[str, Any]]:
        """The thinking blocks of the answer."""
        return [block for block in self.content if block.get("type") in ("thinking", "redacted_thinking")]

    @property
    def tool_call_ids(self) -> list[str]:
        """The ids of the answer's tool calls."""
        return [str(block.get("id")) for block in self.content if block.get("type") == "tool_use"]

    def result(
        self, line: control.ResultLine, *, worker: str, mode: Mode, cost_usd: float, now: float
    ) -> ChatResult:
        """Returns the turn's result once the CLI has reported its end."""
        usage = self.usage if self.complete else (line.usage or {})
        return ChatResult(
            stop_reason=self.stop_reason or line.stop_reason,
            stop_sequence=self.stop_sequence,
            model=self.model,
            usage=_counts(usage),
            cost_usd=cost_usd,
            duration_ms=int(1000 * (now - self.started)),
            api_calls=max(1, self.api_requests),
            worker=worker,
            mode=mode,
            ignored=list(self.script.ignored),
        )

    def failed_by(self, error: RpcError) -> RpcError:
        """Returns a failure of this turn, saying whether part of the answer has already been passed on."""
        return RpcError(error.code, error.message, {**error.data, "output_started": self.output_started})

    def resolve(self, result: ChatResult) -> None:
        """Hand the result over, unless the turn has already ended another way."""
        if not self.future.done():
            self.future.set_result(result)

    def reject(self, error: RpcError) -> None:
        """Fail the turn, unless it has already ended. A failure nobody waits for is not an error of the loop's."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()


def _counts(usage: dict[str, Any]) -> Usage:
    counts: Usage = {}
    for key in _USAGE_KEYS:
        value = usage.get(key)
        counts[key] = value if isinstance(value, int) else 0  # type: ignore[literal-required]
    details = usage.get("output_tokens_details")
    thought = details.get("thinking_tokens") if isinstance(details, dict) else None
    counts["thinking_tokens"] = thought if isinstance(thought, int) else 0
    return counts
