"""The output of one response as events: its items, and the blocks that are open in them.

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
    """An open block: a part of a message, thinking, or a call.

    Attributes:
        kind: text, thinking or tool.
        item: the item that it is of, as it will be in the output.
        place: what every event of it says about where it is.
        pieces: the JSON text so far, without quotes.
    """

    def __init__(
        self, kind: str, item: dict[str, Any], place: dict[str, Any], delta: str, end: bytes = b"}\n\n"
    ) -> None:
        self.kind = kind
        self.item = item
        self.place = place
        self.pieces: list[bytes] = []
        self.delta = _delta_head(delta, place)
        self.end = end

    @property
    def text(self) -> Raw:
        """All pieces as one JSON string."""
        return Raw(b'"' + b"".join(self.pieces) + b'"')


class Output:
    """The items of one response, which is changed in place.

    Attributes:
        sequence: the number of the next event.
        open: the blocks that are open, each by its number in the answer.
    """

    def __init__(self, response: Response, *, with_summary: bool, sequence: int) -> None:
        self.response = response
        self.sequence = sequence
        self.open: dict[int, _ResponseBlock] = {}
        self._with_summary = with_summary
        self._message: dict[str, Any] | None = None  # the open message, which may get another part
        self._message_at = 0  # its place in the output

    def is_open(self, number: int, kind: str) -> bool:
        """Whether a block is open, and of this kind."""
        block = self.open.get(number)
        return block is not None and block.kind == kind

    # --- opening ---

    def open_text(self, number: int) -> bytes:
        """Begin a part of text, in the open message or a new one."""
        events, message = self._open_message()
        part = _text_part(Raw(_EMPTY))
        place = {**self._place(message, self._message_at), "content_index": len(message["content"])}
        events += self.event("response.content_part.added", **place, part=part)
        message["content"].append(part)
        end = b',"logprobs":[]}\n\n'
        self.open[number] = _ResponseBlock("text", message, place, "response.output_text.delta", end)
        return events

    def _open_message(self) -> tuple[bytes, dict[str, Any]]:
        if self._message is not None:
            return b"", self._message
        message = {
            "id": new_id("msg"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        events, self._message_at = self._add(message)
        self._message = message
        return events, message

    def open_thinking(self, number: int) -> bytes:
        """Begin an item of reasoning."""
        item = {
            "id": new_id("rs"),
            "type": "reasoning",
            "summary": [],
            "content": [],
            "status": "in_progress",
        }
        events, at = self._add(item)
        place = {**self._place(item, at), "summary_index": 0}
        if self._with_summary:
            part = {"type": "summary_text", "text": ""}
            events += self.event("response.reasoning_summary_part.added", **place, part=part)
        self.open[number] = _ResponseBlock("thinking", item, place, "response.reasoning_summary_text.delta")
        return events

    def open_tool(self, number: int, call_id: str, name: str) -> bytes:
        """Begin an item that calls a function."""
        item = {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        }
        events, at = self._add(item)
        place = self._place(item, at)
        self.open[number] = _ResponseBlock("tool", item, place, "response.function_call_arguments.delta")
        return events

    def _add(self, item: dict[str, Any]) -> tuple[bytes, int]:
        at = len(self.response["output"])
        self.response["output"].append(item)
        return self.event("response.output_item.added", output_index=at, item=item), at

    @staticmethod
    def _place(item: dict[str, Any], at: int) -> dict[str, Any]:
        return {"item_id": item["id"], "output_index": at}

    # --- going on ---

    def delta(self, number: int, raw: bytes) -> bytes:
        """Go on with an open block; `raw` is a JSON string."""
        block = self.open[number]
        block.pieces.append(raw[1:-1])
        sequence = self.sequence
        self.sequence += 1
        return b'%b%b,"sequence_number":%d%b' % (block.delta, raw, sequence, block.end)

    def event(self, kind: str, **fields: Any) -> bytes:
        """The next event."""
        event = {"type": kind, "sequence_number": self.sequence, **fields}
        self.sequence += 1
        return sse(event)

    # --- closing ---

    def close(self, number: int, status: str = "completed") -> bytes:
        """A block ends; nothing where there is none of the number."""
        block = self.open.pop(number, None)
        if block is None:
            return b""
        if block.kind == "text":
            return self._close_text(block)
        return self._close_thinking(block) if block.kind == "thinking" else self._close_tool(block, status)

    def _close_text(self, block: _ResponseBlock) -> bytes:
        place, part = block.place, _text_part(block.text)
        block.item["content"][place["content_index"]] = part
        return self.event("response.output_text.done", **place, text=block.text, logprobs=[]) + self.event(
            "response.content_part.done", **place, part=part
        )

    def _close_thinking(self, block: _ResponseBlock) -> bytes:
        item, events = block.item, b""
        if self._with_summary:
            part = {"type": "summary_text", "text": block.text}
            item["summary"] = [part]
            events += self.event("response.reasoning_summary_text.done", **block.place, text=block.text)
            events += self.event("response.reasoning_summary_part.done", **block.place, part=part)
        return events + self._done(item, block.place["output_index"], "completed")

    def _close_tool(self, block: _ResponseBlock, status: str) -> bytes:
        item = block.item
        # A function without parameters is called without any piece of arguments, which must be JSON too.
        item["arguments"] = block.text if any(block.pieces) or status == "incomplete" else "{}"
        done = self.event(
            "response.function_call_arguments.done",
            **block.place,
            name=item["name"],
            arguments=item["arguments"],
        )
        return done + self._done(item, block.place["output_index"], status)

    def leave_message(self) -> bytes:
        """Something else begins: the message gets no more parts, unless one of them is still open."""
        if any(block.item is self._message for block in self.open.values()):
            return b""
        return self.close_message()

    def close_message(self, status: str = "completed") -> bytes:
        """End the open message, which then gets no further part."""
        message, self._message = self._message, None
        return b"" if message is None else self._done(message, self._message_at, status)

    def _done(self, item: dict[str, Any], at: int, status: str) -> bytes:
        item["status"] = status
        return self.event("response.output_item.done", output_index=at, item=item)

    def refusal(self) -> bytes:
        """A part that says so, after whatever the model said before it stopped."""
        events, message = self._open_message()
        place = {**self._place(message, self._message_at), "content_index": len(message["content"])}
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
