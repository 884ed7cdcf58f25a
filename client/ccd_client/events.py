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


class ToolCallStarted(NamedTuple):
    """The model calls a tool; `number` counts the calls of the answer from 0."""

    number: int
    id: str
    name: str


class ToolCallDelta(NamedTuple):
    """More of a call's arguments: a piece of JSON text, cut anywhere."""

    number: int
    arguments: str


class Retrying(NamedTuple):
    """The CLI tries the model API again, before any output."""

    attempt: int
    delay_ms: int
    status: int | None  # the HTTP status that the API gave


Event: TypeAlias = Started | TextDelta | ThinkingDelta | ToolCallStarted | ToolCallDelta | Retrying


class ToolCall(NamedTuple):
    """A call that the model makes and the caller is to run."""

    id: str  # for the result: {"role": "tool", "tool_call_id": id, "content": …}
    name: str
    arguments: dict[str, Any]


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

    @property
    def cost_usd(self) -> float:
        """What it cost, as the CLI reckons."""
        return float(self.result.get("cost_usd") or 0.0)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls that the model makes, in its order."""
        calls = [block for block in self.content if block.get("type") == "tool_use"]
        texts = self._inputs or [""] * len(calls)
        return [
            ToolCall(block["id"], block["name"], (json.loads(text) if text else block.get("input")) or {})
            for block, text in zip(calls, texts, strict=True)
        ]

    @property
    def _inputs(self) -> list[str] | None:
        """The inputs of the calls as the model wrote them, where all of them are JSON."""
        texts = self.result.get("tool_inputs")
        calls = [block for block in self.content if block.get("type") == "tool_use"]
        return (
            texts
            if isinstance(texts, list) and len(texts) == len(calls) and all(map(_is_json, texts))
            else None
        )

    @property
    def thinking(self) -> str:
        """What the model thought, as far as it is shown."""
        return "".join(block.get("thinking", "") for block in self.content if block.get("type") == "thinking")

    @property
    def ignored(self) -> list[str]:
        """Parameters that had no effect."""
        return list(self.result.get("ignored") or ())

    @property
    def message(self) -> dict[str, Any]:
        """The answer as an assistant message to continue the list with."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        texts = self._inputs or [""] * len(self.tool_calls)
        calls = [
            {
                "id": id_,
                "type": "function",
                "function": {"name": name, "arguments": text or json.dumps(arguments)},
            }
            for (id_, name, arguments), text in zip(self.tool_calls, texts, strict=True)
        ]
        return {**message, "tool_calls": calls} if calls else message


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def whole_answer(result: Mapping[str, Any]) -> Answer:
    """The answer in the result of `chat.complete`."""
    return _answer(result.get("content", []), result)


def _answer(content: list[dict[str, Any]], result: Mapping[str, Any]) -> Answer:
    text = "".join(block.get("text", "") for block in content if block.get("type") == "text")
    usage = result.get("usage") or {}
    return Answer(text, content, result.get("stop_reason"), usage, result.get("model") or "", result)


def lines_of(data: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """The JSON lines in what came, and what is left of a line that is not complete."""
    whole, _, rest = data.rpartition(b"\n")
    return [json.loads(line) for line in whole.split(b"\n") if line], rest


class Decoder:
    """Turns the payloads of one `chat.stream` into events, and keeps the content blocks.

    Content comes as `stream_event` lines. A message that the CLI got whole (after a failed stream it asks
    once more without one) comes only as `assistant` lines, one for each block; for a streamed
    message they repeat what was said, and are skipped by the message's id.
    """

    def __init__(self) -> None:
        self._tail: list[bytes] = []
        self._blocks: dict[int, dict[str, Any]] = {}
        self._parts: dict[tuple[int, str], list[str]] = {}
        self._calls: dict[int, int] = {}  # index of a block: number of the call in it
        self._given: dict[int, Any] = {}  # index of a block: the input that stood in its beginning
        self._message_id = ""
        self._streamed_id: str | None = None  # of the message whose blocks came as stream events

    def feed(self, payload: bytes) -> list[Event]:
        """The events in a payload; a line that it leaves unfinished waits for the next.

        Raises:
            RpcError: INTERNAL when a line is not a JSON object, or a block or delta in it is not as expected.
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
        """The whole answer, once the call has ended with this result.

        Raises:
            RpcError: INTERNAL when the arguments of a tool call are not JSON.
        """
        for (index, key), parts in self._parts.items():
            block = self._blocks[index]
            if key == "partial_json":
                text = "".join(parts)
                block["input"] = _arguments(text, result) if text else block.get("input") or {}
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
            elif message.get("type") == "assistant":
                self._assistant(message["message"], events)
            elif message.get("type") == "system" and message.get("subtype") == "api_retry":
                events.append(_retrying(message))
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise RpcError(Code.INTERNAL, f"a line of the stream is not as expected: {error!r}") from None

    def _stream_event(self, event: dict[str, Any], events: list[Event]) -> None:
        kind = event["type"]
        if kind == "content_block_delta":
            self._delta(event["index"], event["delta"], events)
        elif kind == "content_block_start":
            self._streamed_id = self._message_id
            self._block(event["index"], event["content_block"], events)
        elif kind == "content_block_stop":
            self._stop(event["index"], events)
        elif kind == "message_start":
            message = event["message"]
            self._message_id = message.get("id", "")
            events.append(Started(message.get("model", ""), self._message_id))

    def _assistant(self, message: dict[str, Any], events: list[Event]) -> None:
        message_id, blocks = message.get("id", ""), message.get("content")
        if not blocks or message_id == self._streamed_id:
            return
        if message_id != self._message_id:
            self._message_id = message_id
            events.append(Started(message.get("model", ""), message_id))
        for block in blocks:
            index = len(self._blocks)
            self._block(index, block, events)
            if block["type"] == "tool_use":
                events.append(ToolCallDelta(self._calls[index], json.dumps(block["input"])))

    def _block(self, index: int, block: dict[str, Any], events: list[Event]) -> None:
        """A block begins, with or without content."""
        self._blocks[index] = dict(block)
        if block["type"] == "tool_use":
            self._given[index] = block.get("input") or {}
            self._calls[index] = len(self._calls)
            events.append(ToolCallStarted(self._calls[index], block["id"], block["name"]))
        elif block.get("text"):
            events.append(TextDelta(block["text"]))
        elif block.get("thinking"):
            events.append(ThinkingDelta(block["thinking"]))

    def _stop(self, index: int, events: list[Event]) -> None:
        """A call without arguments comes without any JSON, which would be no JSON to whoever joins the pieces."""
        if index in self._calls and not any(self._parts.get((index, "partial_json"), ())):
            events.append(ToolCallDelta(self._calls[index], json.dumps(self._given.get(index) or {})))

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
            elif key == "partial_json" and delta[key] and index in self._calls:
                events.append(ToolCallDelta(self._calls[index], delta[key]))


def _arguments(text: str, result: Mapping[str, Any]) -> Any:
    """A call's arguments; those of a call that max_tokens cut short are dropped, as the answer says so."""
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        if result.get("stop_reason") == "max_tokens":
            return {}
        raise RpcError(Code.INTERNAL, f"the model's tool input is not JSON: {error}") from None


def _retrying(message: Mapping[str, Any]) -> Retrying:
    status = message.get("error_status")
    return Retrying(
        int(message.get("attempt", 0)),
        int(message.get("retry_delay_ms", 0)),
        status if isinstance(status, int) else None,
    )
