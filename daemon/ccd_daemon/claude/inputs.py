"""The inputs of a message's tool calls as the model wrote them, out of the CLI's event lines. Pure.

The CLI's own account of a finished call has been through JavaScript, where large integers are rounded, and it has lost
an input that stood in the beginning of its block. The events have neither done.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

_PIECE = b'"input_json_delta"'
_EMPTY = (b"", b"{}", b"null")
_MAX_WIRE, _MIN_WIRE = (1 << 64) - 1, -(1 << 63)


class _Delta(msgspec.Struct):
    partial_json: str = ""


class _Event(msgspec.Struct):
    index: int = -1
    delta: _Delta | None = None


class _Line(msgspec.Struct):
    event: _Event
    parent_tool_use_id: str | None = None


_decode = msgspec.json.Decoder(_Line).decode


class ToolInputs:
    """Of one message: made when its first call begins. Lines are kept as they are until the texts are asked for."""

    __slots__ = ("_begun", "_data")

    def __init__(self) -> None:
        self._begun: dict[int, bytes] = {}  # by index: the input in the beginning
        self._data: list[bytes] = []

    def begin(self, index: int, given: bytes) -> None:
        """A call begins; `given` is the JSON of the input that stands in its beginning."""
        self._begun[index] = b"" if given in _EMPTY else given

    def more(self, data: bytes) -> None:
        """Whole lines of the message."""
        if _PIECE in data:
            self._data.append(data)

    def texts(self) -> list[str]:
        """Returns the JSON texts of the inputs, in the order of the calls; an empty one is `{}`."""
        pieces: dict[int, list[str]] = {index: [] for index in self._begun}
        for line in b"".join(self._data).split(b"\n"):
            if _PIECE not in line:
                continue
            decoded = _decode(line)
            if decoded.parent_tool_use_id is None and decoded.event.delta is not None:
                pieces.get(decoded.event.index, []).append(decoded.event.delta.partial_json)
        return [
            "".join(pieces[index]) or self._begun[index].decode() or "{}" for index in sorted(self._begun)
        ]


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
    """The number, or what JSON says where there is none so large."""
    found = float(digits)
    return None if found in (float("inf"), float("-inf")) else found
