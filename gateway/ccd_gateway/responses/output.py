"""The output of one response as events: its items, one after the other, and the block that is open in the newest.

`events` decides what comes next; nothing here knows of the answer's pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from ccd_gateway.answer.lines import REFUSED
from ccd_gateway.responses.resource import Response, new_id

_INCOMPLETE = frozenset({"max_tokens", "model_context_window_exceeded"})
_encode = msgspec.json.encode
_EMPTY = b'""'


def sse(event: Mapping[str, Any]) -> bytes:
    """One event; its name is its type."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event))


class _ResponseBlock:
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


class Output:
    """The items of one response, which is changed in place.

    Attributes:
        sequence: the number of the next event.
        block: the one that is open.
    """

    def __init__(self, response: Response, *, with_summary: bool, sequence: int) -> None:
        self.response = response
        self.sequence = sequence
        self.block: _ResponseBlock | None = None
        self._with_summary = with_summary
        self._message: dict[str, Any] | None = None  # the open message, which may get another part

    # --- opening ---

    def open_text(self) -> bytes:
        """Begin a part of text, in the open message or a new one."""
        events, message = self._open_message()
        place = {**self._place(message), "content_index": len(message["content"])}
        events += self.event("response.content_part.added", **place, part=_text_part(Raw(_EMPTY)))
        end = b',"logprobs":[]}\n\n'
        self.block = _ResponseBlock("text", message, _delta_head("response.output_text.delta", place), end)
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
        return self._add(self._message), self._message

    def open_thinking(self) -> bytes:
        """Begin an item of reasoning."""
        item = {
            "id": new_id("rs"),
            "type": "reasoning",
            "summary": [],
            "content": [],
            "status": "in_progress",
        }
        events = self._add(item)
        place = {**self._place(item), "summary_index": 0}
        if self._with_summary:
            part = {"type": "summary_text", "text": ""}
            events += self.event("response.reasoning_summary_part.added", **place, part=part)
        self.block = _ResponseBlock(
            "thinking", item, _delta_head("response.reasoning_summary_text.delta", place)
        )
        return events

    def open_tool(self, call_id: str, name: str) -> bytes:
        """Begin an item that calls a function."""
        item = {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        }
        events = self._add(item)
        head = _delta_head("response.function_call_arguments.delta", self._place(item))
        self.block = _ResponseBlock("tool", item, head)
        return events

    def _add(self, item: dict[str, Any]) -> bytes:
        self.response["output"].append(item)
        return self.event(
            "response.output_item.added", output_index=len(self.response["output"]) - 1, item=item
        )

    def _place(self, item: dict[str, Any]) -> dict[str, Any]:
        """Only the newest item is ever open."""
        return {"item_id": item["id"], "output_index": len(self.response["output"]) - 1}

    # --- going on ---

    def delta(self, raw: bytes) -> bytes:
        """Go on with the open block; `raw` is a JSON string."""
        block = self.block
        assert block is not None
        block.pieces.append(raw[1:-1])
        number = self.sequence
        self.sequence += 1
        return b'%b%b,"sequence_number":%d%b' % (block.delta, raw, number, block.end)

    def event(self, kind: str, **fields: Any) -> bytes:
        """The next event."""
        event = {"type": kind, "sequence_number": self.sequence, **fields}
        self.sequence += 1
        return sse(event)

    # --- closing ---

    def close_block(self, status: str = "completed") -> bytes:
        """End what is open of the newest item, if anything is."""
        block, self.block = self.block, None
        if block is None:
            return b""
        if block.kind == "text":
            return self._close_text(block)
        return self._close_thinking(block) if block.kind == "thinking" else self._close_tool(block, status)

    def _close_text(self, block: _ResponseBlock) -> bytes:
        content = block.item["content"]
        place = {**self._place(block.item), "content_index": len(content)}
        part = _text_part(block.text)
        content.append(part)
        return self.event("response.output_text.done", **place, text=block.text, logprobs=[]) + self.event(
            "response.content_part.done", **place, part=part
        )

    def _close_thinking(self, block: _ResponseBlock) -> bytes:
        item, events = block.item, b""
        if self._with_summary:
            place = {**self._place(item), "summary_index": 0}
            part = {"type": "summary_text", "text": block.text}
            item["summary"] = [part]
            events += self.event("response.reasoning_summary_text.done", **place, text=block.text)
            events += self.event("response.reasoning_summary_part.done", **place, part=part)
        return events + self._done(item, "completed")

    def _close_tool(self, block: _ResponseBlock, status: str) -> bytes:
        item = block.item
        # A function without parameters is called without any piece of arguments, which must be JSON too.
        item["arguments"] = block.text if any(block.pieces) or status == "incomplete" else "{}"
        done = self.event(
            "response.function_call_arguments.done",
            **self._place(item),
            name=item["name"],
            arguments=item["arguments"],
        )
        return done + self._done(item, status)

    def close_message(self, status: str = "completed") -> bytes:
        """End the open message, which then gets no further part."""
        message, self._message = self._message, None
        return b"" if message is None else self._done(message, status)

    def _done(self, item: dict[str, Any], status: str) -> bytes:
        item["status"] = status
        return self.event(
            "response.output_item.done", output_index=self._place(item)["output_index"], item=item
        )

    def refusal(self) -> bytes:
        """A part that says so, after whatever the model said before it stopped."""
        events, message = self._open_message()
        place = {**self._place(message), "content_index": len(message["content"])}
        part = {"type": "refusal", "refusal": REFUSED}
        message["content"].append(part)
        return b"".join(
            (
                events,
                self.event("response.content_part.added", **place, part={"type": "refusal", "refusal": ""}),
                self.event("response.refusal.delta", **place, delta=REFUSED),
                self.event("response.refusal.done", **place, refusal=REFUSED),
                self.event("response.content_part.done", **place, part=part),
            )
        )


def _text_part(text: Raw) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _delta_head(kind: str, place: Mapping[str, Any]) -> bytes:
    head = _encode({"type": kind, **place})[:-1]
    return b'event: %b\ndata: %b,"delta":' % (kind.encode(), head)
