from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ccd_gateway.anthropic.events import EventReader, MessageEvent, block_events
from ccd_gateway.anthropic.message import Collector
from fakes.gateway_daemon import line, start, text

RESULT = {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 4}}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
STOP = {"type": "content_block_stop", "index": 0}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}
LINES = start() + line(BLOCK) + text("hé") + text(" 😀") + line(STOP) + line(END)
TYPES = [
    *("message_start", "content_block_start", "content_block_delta", "content_block_delta"),
    *("content_block_stop", "message_delta"),
]


def assistant(*blocks: dict[str, Any], **more: Any) -> bytes:
    message = {"id": "msg_w", "model": "m", "content": list(blocks), "usage": {"input_tokens": 9}}
    return (
        json.dumps({"type": "assistant", "message": message, "parent_tool_use_id": None, **more}).encode()
        + b"\n"
    )


def types(events: list[MessageEvent]) -> list[str]:
    for event in events:
        assert json.loads(event.data)["type"] == event.type
    return [event.type for event in events]


def test_events_are_cut_out_as_they_stand() -> None:
    reader = EventReader()
    found = reader.feed(LINES)
    assert types(found) == TYPES
    written = [
        json.dumps(json.loads(each)["event"], ensure_ascii=False).encode() for each in LINES.splitlines()
    ]
    assert [event.data for event in found] == written
    assert types(reader.finish(RESULT)) == ["message_stop"]


@given(st.lists(st.integers(0, len(LINES)), max_size=8))
def test_payloads_may_be_cut_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(LINES)]
    reader = EventReader()
    found: list[MessageEvent] = []
    for begin, end in itertools.pairwise(edges):
        found += reader.feed(LINES[begin:end])
    assert found == EventReader().feed(LINES)


@given(
    st.lists(
        st.binary() | st.sampled_from([b"{}\n", b'{"type":"stream_event"}\n', b'{"type":"assistant"}\n'])
    )
)
def test_no_payload_breaks_it(payloads: list[bytes]) -> None:
    reader = EventReader()
    for payload in payloads:
        reader.feed(payload + b"\n")
    assert types(reader.finish(RESULT))[-1] == "message_stop"


def test_what_is_not_the_answers_is_left_out() -> None:
    reader = EventReader()
    others = (
        line(BLOCK, parent_tool_use_id="toolu_1"),
        assistant({"type": "text", "text": "sub"}, parent_tool_use_id="toolu_1"),
        line({"type": "message_stop"}),  # the CLI's, of an attempt that broke; ours comes last
        line({"type": "something_new"}),
        b'{"type":"system","subtype":"status"}\n',
    )
    assert reader.feed(b"".join(others)) == []
    assert not reader.started


def test_a_repeated_start_is_not_passed_on() -> None:
    assert types(EventReader().feed(start() + start() + line(BLOCK))) == [
        "message_start",
        "content_block_start",
    ]


def test_assistant_lines_only_repeat_what_was_streamed() -> None:
    assert (
        types(EventReader().feed(start() + line(BLOCK) + assistant({"type": "text", "text": "x"})))
        == TYPES[:2]
    )


def test_an_answer_that_was_not_streamed_is_made_into_events() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "hello", "citations": [{"type": "char_location"}]},
        {"type": "tool_use", "id": "t", "name": "n", "input": {"a": [1, "ü"]}},
        {"type": "redacted_thinking", "data": "xx"},
    ]
    reader = EventReader()
    found = reader.feed(b"".join(assistant(block) for block in blocks))
    assert reader.started
    found += reader.finish({**RESULT, "stop_reason": "tool_use"})
    assert types(found)[0] == "message_start"
    assert types(found)[-2:] == ["message_delta", "message_stop"]
    collector = Collector("m")
    collector.add(found)
    message = msgspec.json.decode(msgspec.json.encode(collector.message()))
    assert message["id"] == "msg_w"
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["output_tokens"] == 4
    assert message["content"] == [
        blocks[0],
        blocks[1],
        {**blocks[2], "caller": {"type": "direct"}},
        blocks[3],
    ]


def test_a_started_stream_that_failed_before_its_content_goes_on_with_the_whole_answer() -> None:
    found = EventReader().feed(
        start() + line({"type": "message_stop"}) + assistant({"type": "text", "text": "x"})
    )
    assert types(found) == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    ]


def test_an_answer_without_any_line_is_still_a_message() -> None:
    assert types(EventReader().finish(RESULT)) == ["message_start", "message_delta", "message_stop"]


def test_blocks_count_up() -> None:
    assert {json.loads(event.data)["index"] for event in block_events(7, {"type": "text", "text": "x"})} == {
        7
    }


def test_why_the_model_refused_survives_an_answer_that_was_not_streamed() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": None}
    message = {"id": "msg_1", "content": [{"type": "text", "text": "no"}], "stop_details": details}
    reader = EventReader()
    reader.feed(json.dumps({"type": "assistant", "message": message}).encode() + b"\n")
    ended, _ = reader.finish({**RESULT, "stop_reason": "refusal"})
    assert json.loads(ended.data)["delta"] == {
        "stop_reason": "refusal",
        "stop_sequence": None,
        "stop_details": details,
    }
