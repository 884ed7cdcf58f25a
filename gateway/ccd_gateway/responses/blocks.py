"""The parts of a response's output while they are made: its items, and the open blocks that write into them. Pure.

What opens, goes on and closes is here, one class for each kind of block; which of them a piece of the answer is for is
decided in `events`. Another kind of item is another class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import Raw

from ccd_gateway.answer.lines import REFUSED
from ccd_gateway.responses.resource import new_id

Item = dict[str, Any]
_encode = msgspec.json.encode
_EMPTY = b'""'


def sse(event: Mapping[str, Any]) -> bytes:
    """One event; its name is its type."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event))


class Output:
    """The items of a response, and the numbers of its events.

    Args:
        items: the response's `output`.
        sequence: the number of the first event.

    Attributes:
        sequence: the number of the next event.
        message: the open message, which may get another part.
    """

    def __init__(self, items: list[Item], sequence: int) -> None:
        self._items = items
        self.sequence = sequence
        self.message: Item | None = None
        self._message_at = 0  # its place among the items

    def event(self, kind: str, **fields: Any) -> bytes:
        """An event of any kind."""
        event = {"type": kind, "sequence_number": self.sequence, **fields}
        self.sequence += 1
        return sse(event)

    def add(self, item: Item) -> tuple[bytes, dict[str, Any]]:
        """An item begins; returns the event, and what every further one says about where it is."""
        at = len(self._items)
        self._items.append(item)
        place = {"item_id": item["id"], "output_index": at}
        return self.event("response.output_item.added", output_index=at, item=item), place

    def done(self, item: Item, at: int, status: str) -> bytes:
        """An item is complete, or as complete as it will be."""
        item["status"] = status
        return self.event("response.output_item.done", output_index=at, item=item)

    def part_of_message(self) -> tuple[bytes, Item, dict[str, Any]]:
        """Where the next part of a message goes: the events before it, the message, and the place."""
        events = b""
        if self.message is None:
            self.message = {
                "id": new_id("msg"),
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            events, place = self.add(self.message)
            self._message_at = place["output_index"]
        message = self.message
        place = {"item_id": message["id"], "output_index": self._message_at}
        return events, message, {**place, "content_index": len(message["content"])}

    def close_message(self, status: str = "completed") -> bytes:
        """The open message gets no more parts."""
        message, self.message = self.message, None
        return b"" if message is None else self.done(message, self._message_at, status)

    def refusal(self) -> bytes:
        """A part that says so, after whatever the model said before it stopped."""
        events, message, place = self.part_of_message()
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


class OutputBlock(ABC):
    """An open block.

    Attributes:
        item: the item that it is of, as it will be in the output.
        opened: the events that open it.
    """

    _delta: ClassVar[str]  # the type of its deltas
    _end: ClassVar[bytes] = b"}\n\n"  # what stands after a delta

    def __init__(self, output: Output, item: Item, place: dict[str, Any], opened: bytes) -> None:
        self.item = item
        self.opened = opened
        self._output = output
        self._place = place
        self._pieces: list[bytes] = []  # the JSON text so far, without quotes
        head = _encode({"type": self._delta, **place})[:-1]
        self._head = b'event: %b\ndata: %b,"delta":' % (self._delta.encode(), head)

    def delta(self, raw: bytes) -> bytes:
        """More of it; `raw` is a JSON string."""
        self._pieces.append(raw[1:-1])
        sequence = self._output.sequence
        self._output.sequence = sequence + 1
        return b'%b%b,"sequence_number":%d%b' % (self._head, raw, sequence, self._end)

    @property
    def text(self) -> Raw:
        """All of it as one JSON string."""
        return Raw(b'"' + b"".join(self._pieces) + b'"')

    @abstractmethod
    def close(self, status: str) -> bytes:
        """It ends; `incomplete` where the answer was cut within it."""


class TextBlock(OutputBlock):
    """A part of a message."""

    _delta = "response.output_text.delta"
    _end = b',"logprobs":[]}\n\n'

    def __init__(self, output: Output) -> None:
        events, message, place = output.part_of_message()
        part = _text_part(Raw(_EMPTY))
        message["content"].append(part)
        opened = events + output.event("response.content_part.added", **place, part=part)
        super().__init__(output, message, place, opened)

    def close(self, status: str) -> bytes:
        """The part ends; the message goes on."""
        text, part = self.text, _text_part(self.text)
        self.item["content"][self._place["content_index"]] = part
        done = self._output.event("response.output_text.done", **self._place, text=text, logprobs=[])
        return done + self._output.event("response.content_part.done", **self._place, part=part)


class ThinkingBlock(OutputBlock):
    """A `reasoning` item, shown as a summary or not at all."""

    _delta = "response.reasoning_summary_text.delta"

    def __init__(self, output: Output, *, shown: bool) -> None:
        item = {
            "id": new_id("rs"),
            "type": "reasoning",
            "summary": [],
            "content": [],
            "status": "in_progress",
        }
        opened, place = output.add(item)
        self._shown = shown
        place = {**place, "summary_index": 0}
        if shown:
            part = {"type": "summary_text", "text": ""}
            opened += output.event("response.reasoning_summary_part.added", **place, part=part)
        super().__init__(output, item, place, opened)

    def delta(self, raw: bytes) -> bytes:
        """More of it, if it is shown."""
        return super().delta(raw) if self._shown else b""

    def close(self, status: str) -> bytes:
        """The item ends; thinking is never incomplete."""
        events = b""
        if self._shown:
            part = {"type": "summary_text", "text": self.text}
            self.item["summary"] = [part]
            done = self._output.event("response.reasoning_summary_text.done", **self._place, text=self.text)
            events = done + self._output.event(
                "response.reasoning_summary_part.done", **self._place, part=part
            )
        return events + self._output.done(self.item, self._place["output_index"], "completed")


class CallBlock(OutputBlock):
    """A call of a function."""

    _delta = "response.function_call_arguments.delta"

    def __init__(self, output: Output, call_id: str, name: str) -> None:
        item = {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        }
        opened, place = output.add(item)
        super().__init__(output, item, place, opened)

    def delta(self, raw: bytes) -> bytes:
        """More of its arguments."""
        return super().delta(raw) if raw != _EMPTY else b""

    def close(self, status: str) -> bytes:
        """The call is complete. One without parameters comes without any piece of arguments, which must be JSON too."""
        item = self.item
        item["arguments"] = self.text if any(self._pieces) or status == "incomplete" else "{}"
        done = self._output.event(
            "response.function_call_arguments.done",
            **self._place,
            name=item["name"],
            arguments=item["arguments"],
        )
        return done + self._output.done(item, self._place["output_index"], status)


def _text_part(text: Raw) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
