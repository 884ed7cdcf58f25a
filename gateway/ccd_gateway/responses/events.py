"""The events of a response's stream, and the response that they add up to. Pure.

The model's answer comes as pieces of blocks; a block ends where another begins, or the answer does. Every
text stays the JSON text that the CLI wrote: pieces are joined without their quotes and never decoded, and
what is the same in all deltas of a block is encoded once.

Order of a block: its item is added, a part of it begins, deltas, and the same backwards. Texts that follow
each other are parts of one message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ccd_gateway.answer.lines import ARGUMENTS, TEXT, THINKING, Delta
from ccd_gateway.responses.output import Output
from ccd_gateway.responses.resource import Response, usage
from ccd_protocol.methods import ChatAnswer, ChatResult

_INCOMPLETE = frozenset({"max_tokens", "model_context_window_exceeded"})
_encode = msgspec.json.encode
_EMPTY = b'""'


class ResponseEvents:
    """Makes the events of one response. Feed it the answer's pieces in order; each call returns events.

    Args:
        response: the response before the answer, which is never changed.
        with_summary: whether the model's thinking is shown.
        sequence: the number of the first event.

    Attributes:
        response: the response as far as it has come; complete after `finish`.
    """

    def __init__(self, response: Response, *, with_summary: bool, sequence: int = 0) -> None:
        self.response: Response = {**response, "output": []}
        self._with_summary = with_summary
        self._output = Output(self.response, with_summary=with_summary, sequence=sequence)

    @property
    def sequence(self) -> int:
        """The number of the next event."""
        return self._output.sequence

    @sequence.setter
    def sequence(self, number: int) -> None:
        self._output.sequence = number

    # --- the response as a whole ---

    def status(self, name: str) -> bytes:
        """`response.created`, `response.queued` or `response.in_progress`."""
        return self._output.event(f"response.{name}", response=self.response)

    def begin(self) -> bytes:
        """The two events before the answer."""
        return self.status("created") + self.status("in_progress")

    def finish(self, result: ChatResult, completed_at: int) -> bytes:
        """End the answer: what is open is closed, and the response is complete."""
        reason = result.get("stop_reason")
        cut = reason in _INCOMPLETE
        events = self._output.close_block("incomplete" if cut else "completed")
        if reason == "refusal":
            events += self._output.refusal()
        events += self._output.close_message("incomplete" if cut else "completed")
        status = "incomplete" if cut else "completed"
        self.response |= {
            "status": status,
            "completed_at": None if cut else completed_at,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": usage(result.get("usage") or {}),
        }
        return events + self._output.event(f"response.{status}", response=self.response)

    def fail(self, error: Mapping[str, Any]) -> bytes:
        """The last event of a stream that fails: OpenAI's flat form and Open Responses' nested, at once."""
        nested = {name: error[name] for name in ("type", "code", "message", "param")}
        flat = {name: error[name] for name in ("code", "message", "param")}
        return self._output.event("error", **flat, error=nested)

    # --- pieces of the answer ---

    def pieces(self, deltas: list[Delta]) -> bytes:
        """What came of a stream at a time."""
        events = [self._piece(delta) for delta in deltas]
        return events[0] if len(events) == 1 else b"".join(events)

    def _piece(self, delta: Delta) -> bytes:
        if delta.kind == TEXT:
            return self.text(delta.raw)
        if delta.kind == ARGUMENTS:
            return self.arguments(delta.raw)
        return self.thinking(delta.raw) if delta.kind == THINKING else self.tool(delta.id, delta.name)

    def text(self, raw: bytes) -> bytes:
        """A piece of text; `raw` is a JSON string."""
        events = b""
        if self._output.block is None or self._output.block.kind != "text":
            events = self._output.close_block() + self._output.open_text()
        return events + self._output.delta(raw)

    def thinking(self, raw: bytes) -> bytes:
        """A piece of thinking; `raw` is a JSON string."""
        events = b""
        if self._output.block is None or self._output.block.kind != "thinking":
            events = self._output.close_block() + self._output.close_message() + self._output.open_thinking()
        return events + self._output.delta(raw) if self._with_summary else events

    def tool(self, call_id: str, name: str) -> bytes:
        """A call of a function begins."""
        return (
            self._output.close_block() + self._output.close_message() + self._output.open_tool(call_id, name)
        )

    def arguments(self, raw: bytes) -> bytes:
        """A piece of the arguments of the call that has begun; `raw` is a JSON string."""
        if self._output.block is None or self._output.block.kind != "tool" or raw == _EMPTY:
            return b""
        return self._output.delta(raw)

    def blocks(self, content: list[dict[str, Any]]) -> bytes:
        """Whole content blocks of the Messages API."""
        events = b""
        for block in content:
            kind = block.get("type")
            if kind == "text" and block.get("text"):
                events += self.text(_encode(block["text"]))
            elif kind == "thinking":
                events += self.thinking(_encode(block.get("thinking") or ""))
            elif kind == "tool_use":
                events += self.tool(str(block.get("id")), str(block.get("name")))
                events += self.arguments(_encode(_encode(block.get("input") or {}).decode()))
        return events


def complete(response: Response, answer: ChatAnswer, *, with_summary: bool, completed_at: int) -> Response:
    """The response of an answer that came whole."""
    events = ResponseEvents(response, with_summary=with_summary)
    events.blocks(answer["content"])
    events.finish(answer, completed_at)
    return events.response
