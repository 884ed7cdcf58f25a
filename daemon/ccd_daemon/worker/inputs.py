"""The inputs of a message's tool calls as the model wrote them, out of the CLI's event lines. Pure.

The CLI's own account of a finished call has been through JavaScript, where large integers are rounded, and it has lost
an input that stood in the beginning of its block. The events have neither done.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

_BEGINS, _GOES_ON = b'"tool_use"', b'"input_json_delta"'
_EMPTY = (b"", b"{}", b"null")
_MAX_WIRE, _MIN_WIRE = (1 << 64) - 1, -(1 << 63)


class _InputBlock(msgspec.Struct):
    type: str = ""
    input: msgspec.Raw = msgspec.Raw(b"")


class _Delta(msgspec.Struct):
    partial_json: str = ""


class _InputEvent(msgspec.Struct):
    index: int = -1
    content_block: _InputBlock | None = None
    delta: _Delta | None = None


class _InputLine(msgspec.Struct):
    event: _InputEvent
    parent_tool_use_id: str | None = None


_decode = msgspec.json.Decoder(_InputLine).decode


class ToolInputs:
    """Of one message. Lines are kept as they are, and read when the texts are asked for.

    Attributes:
        message_id: the message's.
    """

    __slots__ = ("_data", "message_id")

    def __init__(self, message_id: str | None) -> None:
        self.message_id = message_id
        self._data: list[bytes] = []

    def more(self, data: bytes) -> None:
        """Whole lines of the message, of which only those about calls are kept."""
        if _GOES_ON in data or _BEGINS in data:
            self._data.append(data)

    def texts(self) -> list[str]:
        """Returns the JSON texts of the inputs, in the order of the calls; an empty one is `{}`."""
        begun: dict[int, bytes] = {}
        pieces: dict[int, list[str]] = {}
        for line in b"".join(self._data).split(b"\n"):
            if _GOES_ON not in line and _BEGINS not in line:
                continue
            decoded = _decode(line)
            event, block = decoded.event, decoded.event.content_block
            if decoded.parent_tool_use_id is not None:
                continue
            if block is not None and block.type == "tool_use":
                begun[event.index] = b"" if bytes(block.input) in _EMPTY else bytes(block.input)
            elif event.delta is not None:
                pieces.setdefault(event.index, []).append(event.delta.partial_json)
        return ["".join(pieces.get(index, ())) or begun[index].decode() or "{}" for index in sorted(begun)]


def value_of(text: str) -> dict[str, Any]:
    """Returns an input as a value that the wire can carry; an integer that is too large for it becomes a float.

    One that was cut short is empty.
    """
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_number)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _integer(digits: str) -> float | None:
    value = int(digits) if len(digits) < 25 else None
    return value if value is not None and _MIN_WIRE <= value <= _MAX_WIRE else _number(digits)


def _number(digits: str) -> float | None:
    """Returns the number, or what JSON says where there is none so large."""
    found = float(digits)
    return None if found in (float("inf"), float("-inf")) else found
