"""From the CLI's lines to the events of the Messages API. Pure.

The CLI writes every event of the model API into a line of its own, so an event is cut out of its line as
it stands and only its type is looked at. What the CLI does not pass on is made here: an answer that it
got without a stream (it asks so when a stream failed) comes as `assistant` lines only, and the end of a
message is told by the call's result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

_encode = msgspec.json.encode
_DELTA = b'{"type":"content_block_delta"'


class MessageEvent(NamedTuple):
    """One event; `data` is its JSON, the type included."""

    type: str
    data: bytes


class _Named(Struct):
    model: str = ""


class _CliLine(Struct):
    type: str = ""
    event: Raw = Raw()
    message: Raw = Raw()
    parent_tool_use_id: str | None = None


class _Typed(Struct):
    type: str = ""
    message: _Named | None = None


class _WholeMessage(Struct):
    model: str = ""
    content: list[dict[str, Any]] = []
    id: str | None = None
    usage: dict[str, Any] | None = None
    stop_details: dict[str, Any] | None = None


_decode_line = msgspec.json.Decoder(_CliLine).decode
_decode_typed = msgspec.json.Decoder(_Typed).decode
_decode_message = msgspec.json.Decoder(_WholeMessage).decode
_KNOWN = frozenset({"message_start", "content_block_start", "content_block_stop", "message_delta"})


def event(type: str, **fields: Any) -> MessageEvent:
    """An event that ccd makes itself."""
    return MessageEvent(type, _encode({"type": type, **fields}))


class EventReader:
    """Finds the events in the payloads of one `chat.stream` call.

    Attributes:
        started: the model's answer has begun.
        model: who answers, once that has begun.
    """

    __slots__ = ("_blocks", "_ended", "_rest", "_stop_details", "_streamed", "model", "started")

    def __init__(self) -> None:
        self.started = False
        self.model = ""
        self._rest: list[bytes] = []
        self._streamed = False  # blocks came as events, so `assistant` lines only repeat them
        self._blocks = 0  # blocks made of `assistant` lines
        self._ended = False
        self._stop_details: dict[str, Any] | None = None  # of a message that came whole

    def feed(self, payload: bytes) -> list[MessageEvent]:
        """The events in a payload, in order. A line that is not complete waits for the next payload."""
        end = payload.rfind(b"\n") + 1
        if not end:
            self._rest.append(payload)
            return []
        lines = b"".join((*self._rest, payload[:end])) if self._rest else payload[:end]
        self._rest = [payload[end:]] if end < len(payload) else []
        found: list[MessageEvent] = []
        for line in lines.split(b"\n"):
            if line:
                self._read(line, found)
        return found

    def finish(
        self, result: Mapping[str, Any], further: Mapping[str, Any] | None = None
    ) -> list[MessageEvent]:
        """What is still missing of the message once its call has ended with this result.

        Args:
            result: the call's.
            further: keys of the last event.
        """
        found: list[MessageEvent] = []
        if not self.started:
            self._start(_WholeMessage(usage=result.get("usage")), found)
        if not self._ended:
            delta = {name: result.get(name) for name in ("stop_reason", "stop_sequence")}
            delta["stop_details"] = self._stop_details
            found.append(event("message_delta", delta=delta, usage=dict(result.get("usage") or {})))
        found.append(event("message_stop", **(further or {})))
        return found

    def _read(self, line: bytes, found: list[MessageEvent]) -> None:
        try:
            decoded = _decode_line(line)
            if decoded.parent_tool_use_id is not None:
                return
            if decoded.type == "stream_event":
                self._pass_on(bytes(decoded.event), found)
            elif decoded.type == "assistant" and not self._streamed:
                self._take_whole(_decode_message(decoded.message), found)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # not a line that this gateway knows

    def _pass_on(self, data: bytes, found: list[MessageEvent]) -> None:
        if data.startswith(_DELTA):
            found.append(MessageEvent("content_block_delta", data))
            return
        typed = _decode_typed(data)
        kind = typed.type
        if kind == "content_block_delta":
            found.append(MessageEvent(kind, data))
        elif kind in _KNOWN and not (kind == "message_start" and self.started):  # a second one is a retry's
            self.started = True
            self.model = typed.message.model if typed.message is not None else self.model
            self._streamed = self._streamed or kind == "content_block_start"
            self._ended = self._ended or kind == "message_delta"
            found.append(MessageEvent(kind, data))

    def _take_whole(self, message: _WholeMessage, found: list[MessageEvent]) -> None:
        self.model = message.model or self.model
        if not self.started:
            self._start(message, found)
        self._stop_details = message.stop_details or self._stop_details
        for block in message.content:
            found += block_events(self._blocks, block)
            self._blocks += 1

    def _start(self, message: _WholeMessage, found: list[MessageEvent]) -> None:
        self.started = True
        kept = {key: value for key, value in (("id", message.id), ("usage", message.usage)) if value}
        found.append(event("message_start", message=kept))


def block_events(index: int, block: Mapping[str, Any]) -> list[MessageEvent]:
    """A finished content block as the events that stream it."""
    kind = block.get("type")
    empty, deltas = dict(block), list[dict[str, Any]]()
    if kind == "text":
        empty["text"] = ""
        deltas.append({"type": "text_delta", "text": block.get("text", "")})
        empty["citations"] = None
        deltas += [{"type": "citations_delta", "citation": each} for each in block.get("citations") or ()]
    elif kind == "thinking":
        empty.update(thinking="", signature="")
        deltas.append({"type": "thinking_delta", "thinking": block.get("thinking", "")})
        deltas.append({"type": "signature_delta", "signature": block.get("signature", "")})
    elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
        empty["input"] = {}
        text = _encode(block.get("input") or {}).decode()
        deltas.append({"type": "input_json_delta", "partial_json": text})
    return [
        event("content_block_start", index=index, content_block=empty),
        *(event("content_block_delta", index=index, delta=delta) for delta in deltas),
        event("content_block_stop", index=index),
    ]
