"""The event stream of the Messages API as bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ccd_gateway.anthropic.events import MessageEvent
from ccd_gateway.anthropic.message import opening, whole_block, whole_usage

_decode, _encode = msgspec.json.decode, msgspec.json.encode
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_DELTA = b"event: content_block_delta\ndata: %b\n\n"


def framed(kind: str, data: bytes) -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


class EventWriter:
    """Writes the events of one stream; those that carry the answer's pieces go through as they are.

    Args:
        model: what the client asked for.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._pinged = False

    def write(self, events: Iterable[MessageEvent]) -> bytes:
        """The events as they are sent."""
        return b"".join(
            [
                _DELTA % data if kind == "content_block_delta" else self._rare(kind, data)
                for kind, data in events
            ]
        )

    def _rare(self, kind: str, data: bytes) -> bytes:
        if kind == "message_start":
            return framed(kind, _encode(self._started(_decode(data))))
        if kind == "content_block_start":
            return framed(kind, _encode(_opened(_decode(data)))) + self._first_ping()
        if kind == "message_delta":
            return framed(kind, _encode(_ended(_decode(data))))
        return framed(kind, data)

    def _started(self, event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "message": opening(event.get("message") or {}, self._model)}

    def _first_ping(self) -> bytes:
        """The API sends one after the first block's start; some clients wait for it."""
        ping, self._pinged = (b"" if self._pinged else PING), True
        return ping


def _opened(event: Mapping[str, Any]) -> dict[str, Any]:
    return {**event, "content_block": whole_block(event.get("content_block") or {})}


def _ended(event: Mapping[str, Any]) -> dict[str, Any]:
    delta = {"stop_reason": None, "stop_sequence": None, "stop_details": None, "container": None}
    whole = whole_usage(event.get("usage") or {})
    told = event.get("usage") or {}
    usage = {key: value for key, value in whole.items() if key in told or key in _END_USAGE}
    return {**event, "delta": {**delta, **(event.get("delta") or {})}, "usage": usage}


_END_USAGE = frozenset(
    {
        *("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"),
        *("output_tokens_details", "server_tool_use"),
    }
)
