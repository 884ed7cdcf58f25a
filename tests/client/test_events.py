"""CLI lines become events and the whole answer, however they are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_client.events import (
    Decoder,
    Event,
    Retrying,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    whole_answer,
)
from ccd_protocol.errors import Code, RpcError


def line(event: dict[str, Any], **more: Any) -> bytes:
    return (
        json.dumps({"type": "stream_event", "event": event, "parent_tool_use_id": None} | more).encode()
        + b"\n"
    )


def start(index: int, **block: Any) -> bytes:
    return line({"type": "content_block_start", "index": index, "content_block": block})


def delta(index: int, **what: Any) -> bytes:
    return line({"type": "content_block_delta", "index": index, "delta": what})


TURN = b"".join(
    [
        b'{"type":"system","subtype":"init"}\n',
        line({"type": "message_start", "message": {"id": "msg_1", "model": "claude-x"}}),
        start(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="hm"),
        delta(0, type="thinking_delta", thinking="m"),
        delta(0, type="signature_delta", signature="sig"),
        b'{"type":"assistant","message":{}}\n',
        line({"type": "content_block_stop", "index": 0}),
        start(1, type="text", text=""),
        delta(1, type="text_delta", text="Hä"),
        delta(1, type="text_delta", text="llo"),
        line({"type": "content_block_stop", "index": 1}),
        start(2, type="tool_use", id="t1", name="f", input={}),
        delta(2, type="input_json_delta", partial_json='{"a"'),
        delta(2, type="input_json_delta", partial_json=":1}"),
        line({"type": "content_block_stop", "index": 2}),
        line({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}),
        line({"type": "message_stop"}),
        b'{"type":"brand_new"}\n',
    ]
)
EVENTS: list[Event] = [
    Started("claude-x", "msg_1"),
    ThinkingDelta("hm"),
    ThinkingDelta("m"),
    TextDelta("Hä"),
    TextDelta("llo"),
    ToolCallStarted(0, "t1", "f"),
    ToolCallDelta(0, '{"a"'),
    ToolCallDelta(0, ":1}"),
]
RESULT = {"stop_reason": "tool_use", "model": "claude-x-1", "usage": {"input_tokens": 1}}


def test_a_turn() -> None:
    decoder = Decoder()
    assert decoder.feed(TURN) == EVENTS
    answer = decoder.answer(RESULT)
    assert answer.content == [
        {"type": "thinking", "thinking": "hmm", "signature": "sig"},
        {"type": "text", "text": "Hällo"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
    ]
    assert (answer.text, answer.stop_reason, answer.model) == ("Hällo", "tool_use", "claude-x-1")
    assert answer.usage == {"input_tokens": 1}
    assert answer.result is RESULT
    assert decoder.answer(RESULT) == answer
    assert answer.tool_calls == [ToolCall("t1", "f", {"a": 1})]
    assert answer.thinking == "hmm"
    assert answer.message == {
        "role": "assistant",
        "content": "Hällo",
        "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        ],
    }


def whole(message_id: str, block: dict[str, Any]) -> bytes:
    message = {"id": message_id, "model": "claude-y", "content": [block]}
    return json.dumps({"type": "assistant", "message": message, "parent_tool_use_id": None}).encode() + b"\n"


def test_a_message_that_comes_whole() -> None:
    """After a stream that broke off before any content the CLI asks once more without one."""
    decoder = Decoder()
    lines = [
        line({"type": "message_start", "message": {"id": "m1", "model": "claude-x"}}),
        whole("m2", {"type": "thinking", "thinking": "hm", "signature": "s"}),
        whole("m2", {"type": "text", "text": "late"}),
        whole("m2", {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}),
    ]
    assert decoder.feed(b"".join(lines)) == [
        Started("claude-x", "m1"),
        Started("claude-y", "m2"),
        ThinkingDelta("hm"),
        TextDelta("late"),
        ToolCallStarted(0, "t1", "f"),
        ToolCallDelta(0, '{"a": 1}'),
    ]
    answer = decoder.answer(RESULT)
    assert (answer.text, answer.thinking, answer.tool_calls) == (
        "late",
        "hm",
        [ToolCall("t1", "f", {"a": 1})],
    )


def test_a_streamed_message_is_not_said_twice() -> None:
    decoder = Decoder()
    decoder.feed(TURN)
    assert decoder.feed(whole("msg_1", {"type": "text", "text": "Hällo"})) == []
    assert decoder.answer(RESULT).text == "Hällo"


def test_arguments_that_max_tokens_cut_short_are_dropped() -> None:
    decoder = Decoder()
    decoder.feed(start(0, type="tool_use", id="t", name="f", input={}) + delta(0, partial_json='{"a'))
    assert decoder.answer({"stop_reason": "max_tokens"}).tool_calls == [ToolCall("t", "f", {})]


def test_a_call_without_arguments() -> None:
    decoder = Decoder()
    lines = start(0, type="tool_use", id="t", name="f", input={}) + delta(0, partial_json="")
    events = decoder.feed(lines + line({"type": "content_block_stop", "index": 0}))
    assert events == [ToolCallStarted(0, "t", "f"), ToolCallDelta(0, "{}")]
    assert decoder.answer(RESULT).tool_calls == [ToolCall("t", "f", {})]


@given(st.lists(st.integers(0, len(TURN)), max_size=6))
def test_payloads_may_be_cut_anywhere(cuts: list[int]) -> None:
    decoder = Decoder()
    cuts = sorted(cuts)
    payloads = [TURN[a:b] for a, b in zip([0, *cuts], [*cuts, len(TURN)], strict=True) if a < b]
    assert [event for payload in payloads for event in decoder.feed(payload)] == EVENTS
    assert decoder.answer(RESULT).text == "Hällo"


def test_a_tool_of_the_clis_own_is_not_part_of_the_answer() -> None:
    inner = line(
        {"type": "content_block_delta", "index": 0, "delta": {"text": "no"}}, parent_tool_use_id="t1"
    )
    assert Decoder().feed(inner) == []


def test_retries_are_told() -> None:
    retry = {
        "type": "system",
        "subtype": "api_retry",
        "attempt": 2,
        "retry_delay_ms": 500.7,
        "error_status": 529,
    }
    assert Decoder().feed(json.dumps(retry).encode() + b"\n") == [Retrying(2, 500, 529)]
    assert Decoder().feed(b'{"type":"system","subtype":"api_retry"}\n') == [Retrying(0, 0, None)]


@pytest.mark.parametrize(
    "bad",
    [
        b"not json\n",
        b"[1]\n",
        b'"text"\n',
        b'{"type":"stream_event"}\n',
        b'{"type":"stream_event","event":5}\n',
        line({"type": "content_block_delta", "index": 3, "delta": {"text": "x"}}),
        line({"type": "content_block_delta", "index": [], "delta": {"text": "x"}}),
        line({"type": "content_block_start", "index": 0}),
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_bad_line_is_a_typed_error(bad: bytes) -> None:
    with pytest.raises(RpcError) as caught:
        Decoder().feed(bad)
    assert caught.value.code is Code.INTERNAL


@given(st.binary(max_size=60))
def test_garbage_never_raises_anything_else(garbage: bytes) -> None:
    try:
        Decoder().feed(garbage + b"\n")
    except RpcError as error:
        assert error.code is Code.INTERNAL


def test_tool_input_that_is_no_json_is_a_typed_error() -> None:
    decoder = Decoder()
    decoder.feed(start(0, type="tool_use", id="t", name="f", input={}) + delta(0, partial_json="{"))
    with pytest.raises(RpcError) as caught:
        decoder.answer({})
    assert caught.value.code is Code.INTERNAL


def test_whole_answer_tolerates_what_is_missing() -> None:
    answer = whole_answer(
        {"content": [{"type": "text", "text": "a"}, {"type": "x"}, {"type": "text", "text": "b"}]}
    )
    assert (answer.text, answer.stop_reason, answer.model, answer.usage) == ("ab", None, "", {})
