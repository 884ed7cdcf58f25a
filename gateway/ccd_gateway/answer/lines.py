"""Reads the CLI's lines, as `chat.stream` carries them, one decode for each: the pieces of an answer.

Texts stay the JSON strings that the CLI wrote, quotes and escapes included, because every surface writes them
as JSON strings again. Lines of other kinds, of sub-agents, and lines that cannot be read are no part of an
answer.

Not here: how a piece is written, and what the Messages API's own events are (`anthropic.events`), whose clients get
them as they stand.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw, Struct

Kind: TypeAlias = Literal["text", "thinking", "call", "arguments", "end"]
TEXT: Final = "text"
THINKING: Final = "thinking"
CALL: Final = "call"
ARGUMENTS: Final = "arguments"
END: Final = "end"

REFUSED: Final = "The model refused to answer."
_EMPTY = b'""'
_NO_ARGUMENTS = b'"{}"'
_EMPTY_INPUTS = (b"", b"{}", b"null")
_encode = msgspec.json.encode


class Delta(NamedTuple):
    """A piece of an answer.

    Attributes:
        kind: `text`, `thinking`, `call` (a tool call begins), `arguments` (more of its arguments), or `end` (a block
            is complete).
        raw: a JSON string, quotes included: text, thinking, or a piece of the JSON text of arguments;
            empty for `call` and `end`.
        block: which content block of the answer it belongs to.
        number: which tool call of the answer, from 0; -1 for text and thinking.
        id: the call's id, of a `call`.
        name: the tool's name, of a `call`.
    """

    kind: Kind
    raw: bytes
    block: int
    number: int = -1
    id: str = ""
    name: str = ""


class _Piece(Struct):
    text: Raw = Raw()
    thinking: Raw = Raw()
    partial_json: Raw = Raw()


class _AnswerBlock(Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: Raw = Raw()
    thinking: Raw = Raw()
    input: Raw = Raw()


class _Head(Struct):
    id: str = ""
    model: str = ""


class _AnswerEvent(Struct):
    type: str = ""
    index: int = 0
    delta: _Piece | None = None
    content_block: _AnswerBlock | None = None
    message: _Head | None = None


class _Message(Struct):
    id: str = ""
    model: str = ""
    content: list[_AnswerBlock] = []


class _AnswerLine(Struct):
    type: str = ""
    event: _AnswerEvent | None = None
    message: _Message | None = None
    parent_tool_use_id: str | None = None


class _OpenCall:
    """A tool call that has begun."""

    __slots__ = ("empty", "given", "number")

    def __init__(self, number: int, given: bytes) -> None:
        self.number = number
        self.empty = True  # no arguments yet
        self.given = given  # the input that stood in its beginning, which counts if no other comes


_decode_line = msgspec.json.Decoder(_AnswerLine).decode


class LineReader:
    """Finds the pieces of the answer in the payloads of one `chat.stream` call.

    A message that the CLI got whole comes only as `assistant` lines; for a streamed one these repeat what was
    said, and are skipped by the message's id.

    Attributes:
        started: the model's answer has begun, so a failure from now on comes after output.
        model: who answers, once that has begun.
    """

    __slots__ = ("_blocks", "_calls", "_message_id", "_rest", "_streamed_id", "model", "started")

    def __init__(self) -> None:
        self.started = False
        self.model = ""
        self._rest: list[bytes] = []
        self._calls: dict[int, _OpenCall] = {}  # by block
        self._blocks = 0
        self._message_id = ""
        self._streamed_id: str | None = None

    def feed(self, payload: bytes) -> list[Delta]:
        """The pieces in a payload, in order. A line that is not complete waits for the next payload."""
        if not payload.endswith(b"\n"):
            payload = self._hold_back(payload)
        elif self._rest:
            payload = b"".join((*self._rest, payload))
            self._rest.clear()
        deltas: list[Delta] = []
        for line in payload.split(b"\n"):
            if line:
                self._read(line, deltas)
        return deltas

    def _hold_back(self, payload: bytes) -> bytes:
        """Keep what comes after the last line end; the pieces are joined once only, when the line ends."""
        whole, newline, rest = payload.rpartition(b"\n")
        if not newline:
            self._rest.append(payload)
            return b""
        whole = b"".join((*self._rest, whole))
        self._rest[:] = [rest]
        return whole

    def _read(self, line: bytes, deltas: list[Delta]) -> None:
        try:
            decoded = _decode_line(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # not a line that this gateway knows
        event = decoded.event
        if decoded.parent_tool_use_id is not None:
            return
        if decoded.type == "stream_event" and event is not None:
            if event.type == "content_block_delta":
                self._piece(event, deltas)
            else:
                self._event(event, deltas)
        elif decoded.type == "assistant" and decoded.message is not None:
            self._whole(decoded.message, deltas)

    def _piece(self, event: _AnswerEvent, deltas: list[Delta]) -> None:
        delta = event.delta
        if delta is None:
            return
        self._streamed_id = self._message_id
        if raw := _string(delta.text):
            deltas.append(Delta(TEXT, raw, event.index))
        elif raw := _string(delta.partial_json):
            call = self._calls.get(event.index)
            if call is not None:
                call.empty = False
                deltas.append(Delta(ARGUMENTS, raw, event.index, call.number))
        elif raw := _string(delta.thinking):
            deltas.append(Delta(THINKING, raw, event.index))

    def _event(self, event: _AnswerEvent, deltas: list[Delta]) -> None:
        if event.type == "message_start":
            self.started = True
            head = event.message or _Head()
            self._message_id, self.model = head.id, head.model
        elif event.type == "content_block_start" and event.content_block is not None:
            self._streamed_id = self._message_id
            self._begin(event.index, event.content_block, deltas)
        elif event.type == "content_block_stop":
            self._end(event.index, deltas)

    def _begin(self, index: int, block: _AnswerBlock, deltas: list[Delta]) -> None:
        self._blocks = max(self._blocks, index + 1)
        if block.type == "tool_use":
            call = self._calls[index] = _OpenCall(len(self._calls), bytes(block.input))
            deltas.append(Delta(CALL, b"", index, call.number, block.id, block.name))
        elif raw := _string(block.text):
            deltas.append(Delta(TEXT, raw, index))
        elif raw := _string(block.thinking):
            deltas.append(Delta(THINKING, raw, index))

    def _end(self, index: int, deltas: list[Delta]) -> None:
        """A call without arguments comes without any JSON, which no client could parse."""
        call = self._calls.get(index)
        if call is not None and call.empty:
            call.empty = False
            raw = _NO_ARGUMENTS if call.given in _EMPTY_INPUTS else _encode(call.given.decode())
            deltas.append(Delta(ARGUMENTS, raw, index, call.number))
        deltas.append(Delta(END, b"", index))

    def _whole(self, message: _Message, deltas: list[Delta]) -> None:
        if not message.content or message.id == self._streamed_id:
            return
        self.started = True
        self._message_id, self.model = message.id, message.model
        for block in message.content:
            index = self._blocks
            self._begin(index, block, deltas)
            self._blocks = index + 1
            self._end(index, deltas)


def _string(raw: Raw) -> bytes:
    """The JSON string as it was written; nothing for an empty one, and for what is no string."""
    found = bytes(raw)
    return found if found[:1] == b'"' and found != _EMPTY else b""
