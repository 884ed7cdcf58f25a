"""The events of a response's stream, and the response that they add up to. Pure.

The model's answer comes as pieces of blocks; a block ends where another begins, or the answer does. Every
text stays the JSON text that the CLI wrote: pieces are joined without their quotes and never decoded, and
what is the same in all deltas of a block is encoded once.

Order of a block: its item is added, a part of it begins, deltas, and the same backwards. Texts that follow
each other are parts of one message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from ccd_gateway.answer.lines import ARGUMENTS, CALL, REFUSED, TEXT, THINKING, Delta
from ccd_gateway.responses.resource import Response, new_id, usage
from ccd_protocol.methods import ChatAnswer, ChatResult

_INCOMPLETE = frozenset({"max_tokens", "model_context_window_exceeded"})
_encode = msgspec.json.encode
_EMPTY = b'""'


def sse(event: Mapping[str, Any]) -> bytes:
    """One event; its name is its type."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event))


class _Block:
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


class ResponseEvents:
    """Makes the events of one response. Feed it the answer's pieces in order; each call returns events.

    Blocks may be open at the same time and take turns; each is known by its number in the answer.

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
        self._open: dict[int, _Block] = {}
        self._message: dict[str, Any] | None = None  # the open message, which may get another part
        self._message_at = 0  # its place in the output

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
        status = "incomplete" if cut else "completed"
        events = b"".join([self._close(number, status) for number in list(self._open)])
        if reason == "refusal":
            events += self._refusal()
        events += self._close_message(status)
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
        kind, number = delta.kind, delta.block
        if kind == TEXT:
            return self._text(number, delta.raw)
        if kind == ARGUMENTS:
            return self._arguments(number, delta.raw)
        if kind == THINKING:
            return self._thinking(number, delta.raw)
        return self._tool(number, delta.id, delta.name) if kind == CALL else self._close(number)

    def _text(self, number: int, raw: bytes) -> bytes:
        events = b"" if self._is_open(number, "text") else self._close(number) + self._open_text(number)
        return events + self._delta(number, raw)

    def _thinking(self, number: int, raw: bytes) -> bytes:
        events = b""
        if not self._is_open(number, "thinking"):
            events = self._close(number) + self._leave_message() + self._open_thinking(number)
        return events + self._delta(number, raw) if self._with_summary else events

    def _is_open(self, number: int, kind: str) -> bool:
        block = self._open.get(number)
        return block is not None and block.kind == kind

    def _tool(self, number: int, call_id: str, name: str) -> bytes:
        return self._close(number) + self._leave_message() + self._open_tool(number, call_id, name)

    def _arguments(self, number: int, raw: bytes) -> bytes:
        return self._delta(number, raw) if self._is_open(number, "tool") and raw != _EMPTY else b""

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

    # --- opening ---

    def _open_text(self, number: int) -> bytes:
        events, message = self._open_message()
        part = _text_part(Raw(_EMPTY))
        place = {**self._place(message, self._message_at), "content_index": len(message["content"])}
        events += self._event("response.content_part.added", **place, part=part)
        message["content"].append(part)
        end = b',"logprobs":[]}\n\n'
        self._open[number] = _Block("text", message, place, "response.output_text.delta", end)
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
        events, self._message_at = self._add_item(message)
        self._message = message
        return events, message

    def _open_thinking(self, number: int) -> bytes:
        item = {
            "id": new_id("rs"),
            "type": "reasoning",
            "summary": [],
            "content": [],
            "status": "in_progress",
        }
        events, at = self._add_item(item)
        place = {**self._place(item, at), "summary_index": 0}
        if self._with_summary:
            part = {"type": "summary_text", "text": ""}
            events += self._event("response.reasoning_summary_part.added", **place, part=part)
        self._open[number] = _Block("thinking", item, place, "response.reasoning_summary_text.delta")
        return events

    def _open_tool(self, number: int, call_id: str, name: str) -> bytes:
        item = {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        }
        events, at = self._add_item(item)
        place = self._place(item, at)
        self._open[number] = _Block("tool", item, place, "response.function_call_arguments.delta")
        return events

    def _add_item(self, item: dict[str, Any]) -> tuple[bytes, int]:
        at = len(self.response["output"])
        self.response["output"].append(item)
        return self._event("response.output_item.added", output_index=at, item=item), at

    @staticmethod
    def _place(item: dict[str, Any], at: int) -> dict[str, Any]:
        return {"item_id": item["id"], "output_index": at}

    # --- going on ---

    def _delta(self, number: int, raw: bytes) -> bytes:
        block = self._open[number]
        block.pieces.append(raw[1:-1])
        sequence = self.sequence
        self.sequence += 1
        return b'%b%b,"sequence_number":%d%b' % (block.delta, raw, sequence, block.end)

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self.sequence, **fields}
        self.sequence += 1
        return sse(event)

    # --- closing ---

    def _close(self, number: int, status: str = "completed") -> bytes:
        """A block ends; nothing where there is none of the number."""
        block = self._open.pop(number, None)
        if block is None:
            return b""
        if block.kind == "text":
            return self._close_text(block)
        return self._close_thinking(block) if block.kind == "thinking" else self._close_tool(block, status)

    def _close_text(self, block: _Block) -> bytes:
        place, part = block.place, _text_part(block.text)
        block.item["content"][place["content_index"]] = part
        return self._event("response.output_text.done", **place, text=block.text, logprobs=[]) + self._event(
            "response.content_part.done", **place, part=part
        )

    def _close_thinking(self, block: _Block) -> bytes:
        item, events = block.item, b""
        if self._with_summary:
            part = {"type": "summary_text", "text": block.text}
            item["summary"] = [part]
            events += self._event("response.reasoning_summary_text.done", **block.place, text=block.text)
            events += self._event("response.reasoning_summary_part.done", **block.place, part=part)
        return events + self._item_done(item, block.place["output_index"], "completed")

    def _close_tool(self, block: _Block, status: str) -> bytes:
        item = block.item
        # A function without parameters is called without any piece of arguments, which must be JSON too.
        item["arguments"] = block.text if any(block.pieces) or status == "incomplete" else "{}"
        done = self._event(
            "response.function_call_arguments.done",
            **block.place,
            name=item["name"],
            arguments=item["arguments"],
        )
        return done + self._item_done(item, block.place["output_index"], status)

    def _leave_message(self) -> bytes:
        """Something else begins: the message gets no more parts, unless one of them is still open."""
        if any(block.item is self._message for block in self._open.values()):
            return b""
        return self._close_message()

    def _close_message(self, status: str = "completed") -> bytes:
        message, self._message = self._message, None
        return b"" if message is None else self._item_done(message, self._message_at, status)

    def _item_done(self, item: dict[str, Any], at: int, status: str) -> bytes:
        item["status"] = status
        return self._event("response.output_item.done", output_index=at, item=item)

    def _refusal(self) -> bytes:
        """A part that says so, after whatever the model said before it stopped."""
        events, message = self._open_message()
        place = {**self._place(message, self._message_at), "content_index": len(message["content"])}
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
    events.blocks(answer["content"], answer.get("tool_inputs", ()))
    events.finish(answer, completed_at)
    return events.response
