from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_gateway.answer.lines import LineReader
from fakes.gateway_daemon import call, line, start, stop, text, thinking, whole


def read(*payloads: bytes) -> list[tuple[Any, ...]]:
    """The pieces, in short: kind and text, or kind, number and what the call or its arguments are."""
    reader = LineReader()
    found = [delta for payload in payloads for delta in reader.feed(payload)]
    return [
        (d.kind, d.number, d.id, d.name)
        if d.kind == "call"
        else (d.kind, json.loads(d.raw))
        if d.number < 0
        else (d.kind, d.number, json.loads(d.raw))
        for d in found
        if d.kind != "end"
    ]


def test_text_and_thinking_in_order() -> None:
    got = read(start() + thinking("hm") + text("a") + text('b"\n\u2028é😀'), text("c"))
    assert got == [("thinking", "hm"), ("text", "a"), ("text", 'b"\n\u2028é😀'), ("text", "c")]


def test_parallel_tool_calls() -> None:
    got = read(
        start() + text("wait"),
        call(1, "toolu_a", "f", "", '{"a"', ": 1}"),
        call(2, "toolu_b", "g", '{"b":"é"}') + call(3, "toolu_c", "h"),
        line({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}}),
    )
    assert got == [
        ("text", "wait"),
        ("call", 0, "toolu_a", "f"),
        ("arguments", 0, '{"a"'),
        ("arguments", 0, ": 1}"),
        ("call", 1, "toolu_b", "g"),
        ("arguments", 1, '{"b":"é"}'),
        ("call", 2, "toolu_c", "h"),
        ("arguments", 2, "{}"),  # the model sends nothing for no arguments, and nothing is no JSON
    ]


def test_an_input_may_stand_in_the_beginning_of_its_block() -> None:
    """The API never does so, but its protocol lets it; pieces that come after all count instead."""
    begins = [
        line(
            {
                "type": "content_block_start",
                "index": index,
                "content_block": {
                    "type": "tool_use",
                    "id": f"t{index}",
                    "name": "f",
                    "input": {"a": [1.5, index]},
                },
            }
        )
        for index in (0, 1)
    ]
    piece = {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": "{}"},
    }
    got = read(start(), *begins, line(piece), stop(0), stop(1))
    assert got == [
        ("call", 0, "t0", "f"),
        ("call", 1, "t1", "f"),
        ("arguments", 1, "{}"),
        ("arguments", 0, '{"a": [1.5, 0]}'),
    ]


def test_blocks_end_where_they_are_said_to() -> None:
    reader = LineReader()
    found = reader.feed(start() + text("a") + stop(0) + whole("m9", {"type": "text", "text": "b"}))
    assert [(delta.kind, delta.block) for delta in found] == [
        ("text", 0),
        ("end", 0),
        ("text", 0),
        ("end", 0),
    ]
    reader.feed(line({"type": "message_start", "message": {"id": "m2", "model": "claude-x"}}))
    assert reader.model == "claude-x"


def test_a_streamed_message_is_not_said_twice() -> None:
    assert read(start("m1") + text("a") + whole("m1", {"type": "text", "text": "a"}) + stop(0)) == [
        ("text", "a")
    ]


def test_a_message_that_comes_whole_is_read_from_its_assistant_lines() -> None:
    lines = [
        start("m1"),  # of an attempt that broke off before any content
        whole("m2", {"type": "thinking", "thinking": "hm", "signature": "s"}),
        whole("m2", {"type": "text", "text": "é"}),
        whole("m2", {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": ["é"]}}),
        whole("m2", {"type": "tool_use", "id": "t2", "name": "g", "input": {}}),
    ]
    assert (
        read(*lines)
        == read(b"".join(lines))
        == [
            ("thinking", "hm"),
            ("text", "é"),
            ("call", 0, "t1", "f"),
            ("arguments", 0, '{"a": ["\\u00e9"]}'),
            ("call", 1, "t2", "g"),
            ("arguments", 1, "{}"),
        ]
    )


def test_an_announced_message_that_comes_whole_is_read_too() -> None:
    assert read(start("m1") + whole("m1", {"type": "text", "text": "late"})) == [("text", "late")]
    reader = LineReader()
    reader.feed(whole("m1", {"type": "text", "text": "late"}))
    assert reader.started


def test_lines_that_are_no_part_of_the_answer() -> None:
    delta = {"type": "text_delta", "text": "x"}
    inner = {"type": "content_block_delta", "index": 0, "delta": delta}
    said = {"role": "assistant", "content": [{"type": "text", "text": "x"}]}
    noise = [
        b'{"type":"system","subtype":"api_retry"}\n',
        json.dumps({"type": "assistant", "parent_tool_use_id": "t", "message": said}).encode() + b"\n",
        json.dumps({"type": "user", "message": said}).encode() + b"\n",
        json.dumps({"type": "user", "message": {"content": "x"}}).encode() + b"\n",
        json.dumps({"type": "assistant", "event": inner}).encode() + b"\n",
        line({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}),
        line({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}}),
        line({"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x"}}),
        line({"type": "content_block_delta", "delta": None}),
        line({"type": "content_block_delta", "delta": {"text": 5}}),
        line({"type": "content_block_delta", "delta": {"text": ""}}),
        line({"type": "content_block_delta", "delta": 5}),
        line({"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use"}}),
        line(inner, parent_tool_use_id="toolu_1"),
        b'not json "content_block_delta"\n',
        b'{"type":"stream_event","event":{"type":"content_block_delta","delta":{"text":"\xff\n',
        b"\n",
    ]
    assert read(*noise, b"".join(noise)) == []


def test_started_at_message_start() -> None:
    reader = LineReader()
    reader.feed(b'{"type":"system","subtype":"api_retry"}\n')
    assert not reader.started
    reader.feed(start())
    assert reader.started


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.text(min_size=1, max_size=20), max_size=6),
    cuts=st.lists(st.integers(min_value=0, max_value=4000), max_size=12),
)
def test_lines_cut_anywhere(pieces: list[str], cuts: list[int]) -> None:
    whole = start() + b"".join(text(piece) for piece in pieces)
    edges = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    payloads = [whole[a:b] for a, b in pairwise(edges)]
    assert read(*payloads) == [("text", piece) for piece in pieces]
