"""From the CLI's lines, as `chat.stream` carries them, to events and to the whole answer: pure.

Lines of unknown types are skipped, because newer CLIs add types. Lines that belong to a tool's sub-agent
(`parent_tool_use_id`) are not part of the answer and are skipped too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ccd_protocol.errors import Code, RpcError


class Started(NamedTuple):
    """The model began to answer."""

    model: str
    message_id: str


class TextDelta(NamedTuple):
    """More of the answer's text."""

    text: str


class ThinkingDelta(NamedTuple):
    """More of the model's thinking."""

    text: str


class Retrying(NamedTuple):
    """The CLI tries the model API again, before any output."""

    attempt: int
    delay_ms: int
    status: int | None  # the HTTP status that the API gave


Event: TypeAlias = Started | TextDelta | ThinkingDelta | Retrying


@dataclass(slots=True)
class Answer:
    """A whole answer.

    Attributes:
        text: the text blocks, joined.
        content: content blocks of the Messages API, thinking included.
        stop_reason: end_turn, max_tokens, stop_sequence, tool_use, refusal …
        usage: token counts as the model API reported them.
        model: the model that answered, by its full name.
        result: everything that the daemon says about the turn (`ChatResult`).
    """

    text: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    usage: Mapping[str, int]
    model: str
    result: Mapping[str, Any] = field(repr=False)


def whole_answer(result: Mapping[str, Any]) -> Answer:
    """The answer in the result of `chat.complete`."""
    return _answer(result.get("content", []), result)


def _answer(content: list[dict[str, Any]], result: Mapping[str, Any]) -> Answer:
    text = "".join(block.get("text", "") for block in content if block.get("type") == "text")
    usage = result.get("usage") or {}
    return Answer(text, content, result.get("stop_reason"), usage, result.get("model") or "", result)


class Decoder:
    """Turns the payloads of one `chat.stream` into events, and keeps the content blocks."""

    def __init__(self) -> None:
        self._tail: list[bytes] = []
        self._blocks: dict[int, dict[str, Any]] = {}
        self._parts: dict[tuple[int, str], list[str]] = {}

    def feed(self, payload: bytes) -> list[Event]:
        """The events in a payload; a line that it leaves unfinished waits for the next.

        Raises:
            RpcError: INTERNAL when a line is not a JSON object.
        """
        end = payload.rfind(b"\n") + 1
        if not end:
            self._tail.append(payload)
            return []
        lines = b"".join((*self._tail, payload[:end]))
        self._tail = [payload[end:]] if end < len(payload) else []
        events: list[Event] = []
        for line in lines.split(b"\n"):
            if line:
                self._line(line, events)
        return events

    def answer(self, result: Mapping[str, Any]) -> Answer:
        """The whole answer, once the call has ended with this result."""
        for (index, key), parts in self._parts.items():
            block = self._blocks[index]
            if key == "partial_json":
                block["input"] = _tool_input("".join(parts))
            else:
                block[key] = block.get(key, "") + "".join(parts)
        self._parts.clear()
        return _answer([self._blocks[index] for index in sorted(self._blocks)], result)

    def _line(self, line: bytes, events: list[Event]) -> None:
        try:
            message = json.loads(line)
            if message.get("parent_tool_use_id"):
                return
            if message.get("type") == "stream_event":
                self._stream_event(message["event"], events)
            elif message.get("type") == "system" and message.get("subtype") == "api_retry":
                events.append(_retrying(message))
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise RpcError(Code.INTERNAL, f"a line of the stream is not as expected: {error!r}") from None

    def _stream_event(self, event: dict[str, Any], events: list[Event]) -> None:
        kind = event["type"]
        if kind == "content_block_delta":
            self._delta(event["index"], event["delta"], events)
        elif kind == "content_block_start":
            self._blocks[event["index"]] = dict(event["content_block"])
        elif kind == "message_start":
            message = event["message"]
            events.append(Started(message.get("model", ""), message.get("id", "")))

    def _delta(self, index: int, delta: dict[str, Any], events: list[Event]) -> None:
        for key in ("text", "thinking", "signature", "partial_json"):
            if key not in delta:
                continue
            if index not in self._blocks:
                raise ValueError("a delta before its block")
            self._parts.setdefault((index, key), []).append(delta[key])
            if key == "text":
                events.append(TextDelta(delta[key]))
            elif key == "thinking":
                events.append(ThinkingDelta(delta[key]))


def _tool_input(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise RpcError(Code.INTERNAL, f"the model's tool input is not JSON: {error}") from None


def _retrying(message: Mapping[str, Any]) -> Retrying:
    status = message.get("error_status")
    return Retrying(
        int(message.get("attempt", 0)),
        int(message.get("retry_delay_ms", 0)),
        status if isinstance(status, int) else None,
    )
