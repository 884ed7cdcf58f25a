"""An answer as the steps of a stream: bytes of server-sent events, and how long to wait before each. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from ccd_offline.answer.answers import ScriptedAnswer
from ccd_offline.answer.directives import Directive
from ccd_offline.errors import error_json

_WORD = re.compile(r"\s*\S+|\s+")
_INPUT_PIECE_CHARS = 24
_encode = msgspec.json.encode


class StreamStep(NamedTuple):
    """Wait, then send; `then` is what happens after the last one."""

    delay_ms: float
    data: bytes
    then: Literal["go on", "cut", "hang"] = "go on"


def event(name: str, **fields: Any) -> bytes:
    """One server-sent event as the Messages API writes it."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode({"type": name, **fields}))


def steps(answer: ScriptedAnswer, directive: Directive, request_id: str) -> Iterator[StreamStep]:
    """The stream of an answer, faults included. What needs no waiting in between is one step.

    The first delta always ends a step, so that it is on its way before the rest is put together.
    """
    pending = _start(answer)
    delay_ms = 0.0
    sent = 0
    if directive.first_ms:
        yield StreamStep(0, pending)
        pending, delay_ms = b"", directive.first_ms
    faults = _faults(directive, request_id)
    for data, is_delta in _blocks(answer, directive):
        if is_delta:
            if sent in faults:
                last, then = faults[sent]
                yield StreamStep(delay_ms, pending + last, then)
                return
            sent += 1
            if directive.delta_ms and sent > 1:
                if pending:
                    yield StreamStep(delay_ms, pending)
                pending, delay_ms = b"", directive.delta_ms
        pending += data
        if (is_delta and sent == 1) or len(pending) > 65536:
            yield StreamStep(delay_ms, pending)
            pending, delay_ms = b"", 0.0
    if faults:  # after the last delta, or past it
        last, then = faults[min(faults)]
        yield StreamStep(delay_ms, pending + last, then)
        return
    yield StreamStep(delay_ms, pending if directive.no_end else pending + _end(answer))


def _faults(
    directive: Directive, request_id: str
) -> dict[int, tuple[bytes, Literal["go on", "cut", "hang"]]]:
    """By number of deltas sent before it: the last bytes, and what then."""
    found: dict[int, tuple[bytes, Literal["go on", "cut", "hang"]]] = {}
    if directive.hang_after_deltas is not None:
        found[directive.hang_after_deltas] = (b"", "hang")
    if directive.cut_after_deltas is not None:
        found[directive.cut_after_deltas] = (b"", "cut")
    if directive.error_after_deltas is not None:
        kind = directive.error_type or "overloaded_error"
        body = error_json(kind, directive.message or "Overloaded", request_id)
        found[directive.error_after_deltas] = (b"event: error\ndata: " + body + b"\n\n", "go on")
    return found


def _start(answer: ScriptedAnswer) -> bytes:
    usage = {**answer.usage, "output_tokens": 1}
    del usage["output_tokens_details"]  # known at the end
    not_yet = dict.fromkeys(("stop_reason", "stop_sequence", "stop_details"))
    message = {**answer.message(), "content": [], **not_yet, "usage": usage}
    return event("message_start", message=message)


_USAGE_AT_THE_END = (
    *("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
    *("output_tokens", "output_tokens_details"),
)


def _end(answer: ScriptedAnswer) -> bytes:
    usage = {key: answer.usage[key] for key in _USAGE_AT_THE_END}
    delta: dict[str, object] = {"stop_reason": answer.stop_reason, "stop_sequence": answer.stop_sequence}
    if answer.stop_details is not None:
        delta["stop_details"] = answer.stop_details
    return event("message_delta", delta=delta, usage=usage) + event("message_stop")


def _blocks(answer: ScriptedAnswer, directive: Directive) -> Iterator[tuple[bytes, bool]]:
    """Events of the content blocks, each with whether it is a delta that carries content."""
    blocks = [_block(index, block, directive) for index, block in enumerate(answer.blocks)]
    if not directive.interleaved:
        yield from itertools.chain.from_iterable(blocks)
        return
    while blocks:
        for block in list(blocks):
            found = next(block, None)
            if found is None:
                blocks.remove(block)
            else:
                yield found


def _block(index: int, block: dict[str, Any], directive: Directive) -> Iterator[tuple[bytes, bool]]:
    empty, deltas = _PIECES[block["type"]](block, directive)
    opening = event("content_block_start", index=index, content_block=empty)
    yield opening + (event("ping") if index == 0 else b""), False
    for delta in deltas:
        yield event("content_block_delta", index=index, delta=delta), delta["type"] != "signature_delta"
    yield event("content_block_stop", index=index), False


_Pieces = tuple[dict[str, Any], Iterator[dict[str, Any]]]


def _text(block: dict[str, Any], directive: Directive) -> _Pieces:
    by_count = directive.deltas and directive.text is not None
    pieces = cut(block["text"], directive.deltas) if by_count else _WORD.findall(block["text"])
    return {"type": "text", "text": ""}, ({"type": "text_delta", "text": piece} for piece in pieces)


def _thinking(block: dict[str, Any], directive: Directive) -> _Pieces:
    deltas = [{"type": "thinking_delta", "thinking": word} for word in _WORD.findall(block["thinking"])]
    deltas.append({"type": "signature_delta", "signature": block["signature"]})
    return {"type": "thinking", "thinking": "", "signature": ""}, iter(deltas)


def _tool_use(block: dict[str, Any], directive: Directive) -> _Pieces:
    if directive.whole_inputs:
        return block, iter(())
    text = _encode(block["input"]).decode()
    starts = range(0, len(text), _INPUT_PIECE_CHARS)
    pieces = ["", *(text[at : at + _INPUT_PIECE_CHARS] for at in starts)]
    return {**block, "input": {}}, ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)


_PIECES = {"text": _text, "thinking": _thinking, "tool_use": _tool_use}


def cut(text: str, count: int) -> list[str]:
    """A text in `count` parts of nearly the same length; fewer where it has fewer characters."""
    count = max(1, min(count, len(text)))
    ends = [len(text) * number // count for number in range(count + 1)]
    return [text[start:end] for start, end in itertools.pairwise(ends)]
