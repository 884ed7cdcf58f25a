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
from msgspec import Raw

from ccd_gateway.answer.lines import ARGUMENTS, REFUSED, TEXT, THINKING, Delta
from ccd_gateway.responses.resource import Response, new_id, usage
from ccd_protocol.methods import ChatAnswer, ChatResult

_INCOMPLETE = frozenset({"max_tokens", "model_context_window_exceeded"})
_encode = msgspec.json.encode
_EMPTY = b'""'


def sse(event: Mapping[str, Any]) -> bytes:
    """One event; its name is its type."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event))


class _Block:
    """The open part of the open item.

    Attributes:
        kind: text, thinking or tool.
        item: the item as it will be in the output.
        pieces: the JSON text so far, without quotes.
    """

    def __init__(self, kind: str, item: dict[str, Any], delta: bytes, end: bytes = b"}\n\n") -> None:
        self.kind = kind
        self.item = item
        self.pieces: list[bytes] = []
        self.delta = delta
        self.end = end

    @property
    def text(self) -> Raw:
        """All pieces as one JSON string."""
        return Raw(b'"' + b"".join(self.pieces) + b'"')


class ResponseEvents:
    """Makes the events of one response. Feed it the answer's pieces in order; each call returns events.

    Args:
        response: the response before the answer, which is never changed.
        with_summary: whether the model's thinking is shown.
        sequence: the number of the first event.

    Attributes:
        response: the response as far as it has come; complete after `finish`.
        sequence: the number of the next event.
    """

    def __init__(self, response: Response, *, with_summary: bool, sequence: int = 0) -> None:
        self.response: Response = {**response, "output": []}
        self.sequence = sequence
        self._with_summary = with_summary
        self._block: _Block | None = None
        self._message: dict[str, Any] | None = None  # the open message, which may get another part

    # --- the response as a whole ---

    def status(self, name: str) -> bytes:
        """`response.created`, `response.queued` or `response.in_progress`."""
        return self._event(f"response.{name}", response=self.response)

    def begin(self) -> bytes:
        """The two events before the answer."""
        return self.status("created") + self.status("in_progress")

    def finish(self, result: ChatResult, completed_at: int) -> bytes:
        """End the answer: what is open is closed, and the response is complete."""
        reason = result.get("stop_reason")
        cut = reason in _INCOMPLETE
        events = self._close_block("incomplete" if cut else "completed")
        if reason == "refusal":
            events += self._refusal()
        events += self._close_message("incomplete" if cut else "completed")
        status = "incomplete" if cut else "completed"
        self.response |= {
            "status": status,
            "completed_at": None if cut else completed_at,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": usage(result.get("usage") or {}),
        }
        return events + self._event(f"response.{status}", response=self.response)

    def fail(self, error: Mapping[str, Any]) -> bytes:
        """The last event of a stream that fails: OpenAI's flat form and Open Responses' nested, at once."""
        nested = {name: error[name] for name in ("type", "code", "message", "param")}
        flat = {name: error[name] for name in ("code", "message", "param")}
        return self._event("error", **flat, error=nested)

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
        if self._block is None or self._block.kind != "text":
            events = self._close_block() + self._open_text()
        return events + self._delta(raw)

    def thinking(self, raw: bytes) -> bytes:
        """A piece of thinking; `raw` is a JSON string."""
        events = b""
        if self._block is None or self._block.kind != "thinking":
            events = self._close_block() + self._close_message() + self._open_thinking()
        return events + self._delta(raw) if self._with_summary else events

    def tool(self, call_id: str, name: str) -> bytes:
        """A call of a function begins."""
        return self._close_block() + self._close_message() + self._open_tool(call_id, name)

    def arguments(self, raw: bytes) -> bytes:
        """A piece of the arguments of the call that has begun; `raw` is a JSON string."""
        if self._block is None or self._block.kind != "tool" or raw == _EMPTY:
            return b""
        return self._delta(raw)

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

    # --- opening ---

    def _open_text(self) -> bytes:
        events, message = self._open_message()
        place = {**self._place(message), "content_index": len(message["content"])}
        events += self._event("response.content_part.added", **place, part=_text_part(Raw(_EMPTY)))
        end = b',"logprobs":[]}\n\n'
        self._block = _Block("text", message, _delta_head("response.output_text.delta", place), end)
        return events

    def _open_message(self) -> tuple[bytes, dict[str, Any]]:
        if self._message is not None:
            return b"", self._message
        self._message = {
            "id": new_id("msg"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        return self._add_item(self._message), self._message

    def _open_thinking(self) -> bytes:
        item = {
            "id": new_id("rs"),
            "type": "reasoning",
            "summary": [],
            "content": [],
            "status": "in_progress",
        }
        events = self._add_item(item)
        place = {**self._place(item), "summary_index": 0}
        if self._with_summary:
            part = {"type": "summary_text", "text": ""}
            events += self._event("response.reasoning_summary_part.added", **place, part=part)
        self._block = _Block("thinking", item, _delta_head("response.reasoning_summary_text.delta", place))
        return events

    def _open_tool(self, call_id: str, name: str) -> bytes:
        item = {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        }
        events = self._add_item(item)
        head = _delta_head("response.function_call_arguments.delta", self._place(item))
        self._block = _Block("tool", item, head)
        return events

    def _add_item(self, item: dict[str, Any]) -> bytes:
        self.response["output"].append(item)
        return self._event(
            "response.output_item.added", output_index=len(self.response["output"]) - 1, item=item
        )

    def _place(self, item: dict[str, Any]) -> dict[str, Any]:
        """Only the newest item is ever open."""
        return {"item_id": item["id"], "output_index": len(self.response["output"]) - 1}

    # --- going on ---

    def _delta(self, raw: bytes) -> bytes:
        block = self._block
        assert block is not None
        block.pieces.append(raw[1:-1])
        number = self.sequence
        self.sequence += 1
        return b'%b%b,"sequence_number":%d%b' % (block.delta, raw, number, block.end)

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self.sequence, **fields}
        self.sequence += 1
        return sse(event)

    # --- closing ---

    def _close_block(self, status: str = "completed") -> bytes:
        block, self._block = self._block, None
        if block is None:
            return b""
        if block.kind == "text":
            return self._close_text(block)
        return self._close_thinking(block) if block.kind == "thinking" else self._close_tool(block, status)

    def _close_text(self, block: _Block) -> bytes:
        content = block.item["content"]
        place = {**self._place(block.item), "content_index": len(content)}
        part = _text_part(block.text)
        content.append(part)
        return self._event("response.output_text.done", **place, text=block.text, logprobs=[]) + self._event(
            "response.content_part.done", **place, part=part
        )

    def _close_thinking(self, block: _Block) -> bytes:
        item, events = block.item, b""
        if self._with_summary:
            place = {**self._place(item), "summary_index": 0}
            part = {"type": "summary_text", "text": block.text}
            item["summary"] = [part]
            events += self._event("response.reasoning_summary_text.done", **place, text=block.text)
            events += self._event("response.reasoning_summary_part.done", **place, part=part)
        return events + self._item_done(item, "completed")

    def _close_tool(self, block: _Block, status: str) -> bytes:
        item = block.item
        # A function without parameters is called without any piece of arguments, which must be JSON too.
        item["arguments"] = block.text if any(block.pieces) or status == "incomplete" else "{}"
        done = self._event(
            "response.function_call_arguments.done",
            **self._place(item),
            name=item["name"],
            arguments=item["arguments"],
        )
        return done + self._item_done(item, status)

    def _close_message(self, status: str = "completed") -> bytes:
        message, self._message = self._message, None
        return b"" if message is None else self._item_done(message, status)

    def _item_done(self, item: dict[str, Any], status: str) -> bytes:
        item["status"] = status
        return self._event(
            "response.output_item.done", output_index=self._place(item)["output_index"], item=item
        )

    def _refusal(self) -> bytes:
        """A part that says so, after whatever the model said before it stopped."""
        events, message = self._open_message()
        place = {**self._place(message), "content_index": len(message["content"])}
        part = {"type": "refusal", "refusal": REFUSED}
        message["content"].append(part)
        return b"".join(
            (
                events,
                self._event("response.content_part.added", **place, part={"type": "refusal", "refusal": ""}),
                self._event("response.refusal.delta", **place, delta=REFUSED),
                self._event("response.refusal.done", **place, refusal=REFUSED),
                self._event("response.content_part.done", **place, part=part),
            )
        )


def _text_part(text: Raw) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _delta_head(kind: str, place: Mapping[str, Any]) -> bytes:
    head = _encode({"type": kind, **place})[:-1]
    return b'event: %b\ndata: %b,"delta":' % (kind.encode(), head)


def complete(response: Response, answer: ChatAnswer, *, with_summary: bool, completed_at: int) -> Response:
    """The response of an answer that came whole."""
    events = ResponseEvents(response, with_summary=with_summary)
    events.blocks(answer["content"])
    events.finish(answer, completed_at)
    return events.response
