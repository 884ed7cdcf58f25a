"""The events of a response's stream, and the response that they add up to. Pure.

The model's answer comes as pieces of blocks; a block ends where another begins, or the answer does. Every
text stays the JSON text that the CLI wrote: pieces are joined without their quotes and never decoded, and
what is the same in all deltas of a block is encoded once.

Order of a block: its item is added, a part of it begins, deltas, and the same backwards (`blocks`). Texts that follow
each other are parts of one message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ccd_gateway.answer.lines import ARGUMENTS, CALL, TEXT, THINKING, Delta
from ccd_gateway.responses.blocks import CallBlock, Output, OutputBlock, TextBlock, ThinkingBlock
from ccd_gateway.responses.resource import Response, usage
from ccd_protocol.methods import ChatAnswer, ChatResult

_INCOMPLETE = frozenset({"max_tokens", "model_context_window_exceeded"})
_encode = msgspec.json.encode


class ResponseEvents:
    """Makes the events of one response. Feed it the answer's pieces in order; each call returns events.

    Blocks may be open at the same time and take turns; each is known by its number in the answer.

    Args:
        response: the response before the answer, which is never changed.
        with_summary: whether the model's thinking is shown.
        sequence: the number of the first event.

    Attributes:
        response: the response as far as it has come; complete after `finish`.
        output: its items, and the numbers of the events.
    """

    def __init__(self, response: Response, *, with_summary: bool, sequence: int = 0) -> None:
        self.response: Response = {**response, "output": []}
        self.output = Output(self.response["output"], sequence)
        self._with_summary = with_summary
        self._open: dict[int, OutputBlock] = {}

    # --- the response as a whole ---

    def status(self, name: str) -> bytes:
        """`response.created`, `response.queued` or `response.in_progress`."""
        return self.output.event(f"response.{name}", response=self.response)

    def begin(self) -> bytes:
        """The two events before the answer."""
        return self.status("created") + self.status("in_progress")

    def finish(self, result: ChatResult, completed_at: int) -> bytes:
        """End the answer: what is open is closed, and the response is complete."""
        reason = result.get("stop_reason")
        cut = reason in _INCOMPLETE
        status = "incomplete" if cut else "completed"
        events = b"".join([self._close(number, status) for number in list(self._open)])
        if reason == "refusal":
            events += self.output.refusal()
        events += self.output.close_message(status)
        self.response |= {
            "status": status,
            "completed_at": None if cut else completed_at,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": usage(result.get("usage") or {}),
        }
        return events + self.status(status)

    def fail(self, error: Mapping[str, Any]) -> bytes:
        """The last event of a stream that fails: OpenAI's flat form and Open Responses' nested, at once."""
        nested = {name: error[name] for name in ("type", "code", "message", "param")}
        flat = {name: error[name] for name in ("code", "message", "param")}
        return self.output.event("error", **flat, error=nested)

    # --- pieces of the answer ---

    def pieces(self, deltas: list[Delta]) -> bytes:
        """What came of a stream at a time."""
        events = [self._piece(delta) for delta in deltas]
        return events[0] if len(events) == 1 else b"".join(events)

    def _piece(self, delta: Delta) -> bytes:
        kind, number = delta.kind, delta.block
        if kind == TEXT:
            return self._text(number, delta.raw)
        if kind == ARGUMENTS:
            return self._arguments(number, delta.raw)
        if kind == THINKING:
            return self._thinking(number, delta.raw)
        return self._tool(number, delta.id, delta.name) if kind == CALL else self._close(number)

    def _text(self, number: int, raw: bytes) -> bytes:
        block = self._open.get(number)
        if type(block) is TextBlock:
            return block.delta(raw)
        return self._opened(number, lambda: TextBlock(self.output), leave=False) + self._open[number].delta(
            raw
        )

    def _thinking(self, number: int, raw: bytes) -> bytes:
        block = self._open.get(number)
        if type(block) is ThinkingBlock:
            return block.delta(raw)
        events = self._opened(number, lambda: ThinkingBlock(self.output, shown=self._with_summary))
        return events + self._open[number].delta(raw)

    def _tool(self, number: int, call_id: str, name: str) -> bytes:
        return self._opened(number, lambda: CallBlock(self.output, call_id, name))

    def _arguments(self, number: int, raw: bytes) -> bytes:
        block = self._open.get(number)
        return block.delta(raw) if type(block) is CallBlock else b""

    def _opened(self, number: int, make: Callable[[], OutputBlock], *, leave: bool = True) -> bytes:
        """Close what was open under a number, and the message unless the new block is of it, and open another."""
        events = self._close(number) + (self._leave_message() if leave else b"")
        block = self._open[number] = make()
        return events + block.opened

    def _close(self, number: int, status: str = "completed") -> bytes:
        """A block ends; nothing where there is none of the number."""
        block = self._open.pop(number, None)
        return b"" if block is None else block.close(status)

    def _leave_message(self) -> bytes:
        """Something else begins: the message gets no more parts, unless one of them is still open."""
        if any(block.item is self.output.message for block in self._open.values()):
            return b""
        return self.output.close_message()

    def blocks(self, content: list[dict[str, Any]], inputs: Sequence[str] = ()) -> bytes:
        """Whole content blocks of the Messages API.

        Args:
            content: them.
            inputs: the JSON text of each call's input, where it is known as the model wrote it.
        """
        written = iter(inputs)
        events = b""
        for number, block in enumerate(content):
            kind = block.get("type")
            if kind == "text" and block.get("text"):
                events += self._text(number, _encode(block["text"]))
            elif kind == "thinking":
                events += self._thinking(number, _encode(block.get("thinking") or ""))
            elif kind == "tool_use":
                events += self._tool(number, str(block.get("id")), str(block.get("name")))
                text = next(written, None) or _encode(block.get("input") or {}).decode()
                events += self._arguments(number, _encode(text))
            else:
                continue
            events += self._close(number)
        return events


def complete(response: Response, answer: ChatAnswer, *, with_summary: bool, completed_at: int) -> Response:
    """The response of an answer that came whole."""
    events = ResponseEvents(response, with_summary=with_summary)
    events.blocks(answer["content"], answer.get("tool_inputs", ()))
    events.finish(answer, completed_at)
    return events.response
