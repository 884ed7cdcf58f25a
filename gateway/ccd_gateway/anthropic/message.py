"""The Message object: its complete shape, and how it is put together from events. Pure."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from ccd_gateway.anthropic.events import MessageEvent

_decode = msgspec.json.decode
#: Delta type: the key of the piece in the delta, and of the text in the block that it continues.
_TEXTS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
}


def whole_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Usage with every key that the API's own has; what is not known is null, or zero for a count."""
    written = usage.get("cache_creation_input_tokens") or 0
    defaults = {
        "input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": None,
        "server_tool_use": None,
        "inference_geo": None,
        "service_tier": "standard",
    }
    return {**defaults, **{key: value for key, value in usage.items() if value is not None}}


def opening(message: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The message of `message_start`: whole but for its content, under the name that the client asked for."""
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        **{key: value for key, value in message.items() if key != "model"},
        "usage": whole_usage(message.get("usage") or {}),
    }


def whole_block(block: Mapping[str, Any]) -> dict[str, Any]:
    """A content block with the keys that the API's own always has."""
    if block.get("type") == "text":
        return {"type": "text", "text": "", "citations": None, **block}
    if block.get("type") == "tool_use":
        return {**block, "caller": block.get("caller") or {"type": "direct"}}
    return dict(block)


def _told(block: dict[str, Any]) -> dict[str, Any]:
    """A finished block: clients take a list of citations or none, but not null, in a whole message."""
    return {**block, "citations": block.get("citations") or []} if block.get("type") == "text" else block


class Collector:
    """Puts a message together from its events."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._message = opening({}, model)
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, list[str]] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}

    def add(self, events: Iterable[MessageEvent]) -> None:
        """Take the next events."""
        for kind, data in events:
            take = _TAKE.get(kind)
            if take is not None:
                take(self, _decode(data))

    def message(self) -> dict[str, Any]:
        """The message, when all events are in."""
        for (index, key), pieces in self._texts.items():
            self._blocks[index][key] = self._blocks[index].get(key, "") + "".join(pieces)
        for index, pieces in self._inputs.items():
            self._blocks[index]["input"] = _input("".join(pieces))
        content = [_told(self._blocks[index]) for index in sorted(self._blocks)]
        return {**self._message, "content": content, "usage": whole_usage(self._usage)}

    def _start(self, event: dict[str, Any]) -> None:
        self._message = opening(event.get("message") or {}, self._model)
        self._usage.update((event.get("message") or {}).get("usage") or {})

    def _block(self, event: dict[str, Any]) -> None:
        self._blocks[event["index"]] = whole_block(event["content_block"])

    def _delta(self, event: dict[str, Any]) -> None:
        index, delta = event["index"], event["delta"]
        if index not in self._blocks:
            return
        kind = delta.get("type")
        if kind in _TEXTS:
            source, key = _TEXTS[kind]
            self._texts.setdefault((index, key), []).append(delta[source])
        elif kind == "input_json_delta":
            self._inputs.setdefault(index, []).append(delta["partial_json"])
        elif kind == "citations_delta":
            block = self._blocks[index]
            block["citations"] = [*(block["citations"] or ()), delta["citation"]]

    def _end(self, event: dict[str, Any]) -> None:
        delta = event.pop("delta", None) or {}
        usage = event.pop("usage", None) or {}
        event.pop("type", None)
        self._message.update(delta)
        self._message.update(event)  # context_management, and what else later versions add
        self._usage.update({key: value for key, value in usage.items() if value is not None})


_TAKE = {
    "message_start": Collector._start,
    "content_block_start": Collector._block,
    "content_block_delta": Collector._delta,
    "message_delta": Collector._end,
}


def _input(text: str) -> Any:
    """The arguments of a tool call, digit for digit; those of one that was cut short are no JSON, and left out."""
    if not text:
        return {}
    return Raw(text.encode()) if _is_json(text) else {}


def _is_json(text: str) -> bool:
    """Whether a text is JSON, with numbers of any size."""
    try:
        _decode(text)
    except msgspec.DecodeError:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
    return True
