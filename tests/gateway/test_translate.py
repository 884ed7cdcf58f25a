from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_gateway.errors import ApiError
from ccd_gateway.schema import ChatRequest
from ccd_gateway.translate import (
    LineReader,
    completion,
    finish_reason,
    ignored_by_daemon,
    sampling,
    target,
    usage,
)
from fakes.gateway_daemon import RESULT, line, start, text, thinking


def request(**more: Any) -> ChatRequest:
    return msgspec.convert({"model": "m", "messages": [{}], **more}, ChatRequest)


def read(*payloads: bytes) -> list[tuple[bool, str]]:
    reader = LineReader()
    return [(d.thinking, json.loads(d.raw)) for payload in payloads for d in reader.feed(payload)]


@pytest.mark.parametrize(
    ("model", "header", "wanted"),
    [
        ("sonnet", None, (None, "sonnet")),
        ("agent/sonnet", None, ("agent", "sonnet")),
        ("agent/a/b", None, ("agent", "a/b")),
        ("agent/", None, ("agent", None)),
        ("agent/sonnet", "chat", ("chat", "agent/sonnet")),
        (
            "arn:aws:bedrock:eu:1:inference-profile/x",
            None,
            (None, "arn:aws:bedrock:eu:1:inference-profile/x"),
        ),
        ("/x", None, (None, "/x")),
    ],
)
def test_target(model: str, header: str | None, wanted: tuple[str | None, str | None]) -> None:
    assert target(model, header) == wanted


@pytest.mark.parametrize("header", ["", "a b", "a/b", "x" * 65])
def test_wrong_profile_header(header: str) -> None:
    with pytest.raises(ApiError) as caught:
        target("m", header)
    assert caught.value.error["param"] == "X-CCD-Profile"


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"max_tokens": 0}, {}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 1.7, "top_p": 0, "top_k": 3}, {"temperature": 1.0, "top_p": 0.0, "top_k": 3}),
        ({"stop": "x"}, {"stop_sequences": ["x"]}),
        ({"stop": ["a", "b", "c", "d", "e"]}, {"stop_sequences": ["a", "b", "c", "d", "e"]}),
        ({"stop": []}, {}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
        ({"metadata": {"user_id": "m", "x": "y"}}, {"metadata": {"user_id": "m"}}),
        ({"metadata": {"x": "y"}}, {}),
    ],
)
def test_sampling(given_: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sampling(request(**given_)) == wanted


@pytest.mark.parametrize("stop", ["", ["a", ""], ["a"] * 65])
def test_wrong_stop(stop: Any) -> None:
    with pytest.raises(ApiError) as caught:
        sampling(request(stop=stop))
    assert caught.value.error["param"] == "stop"


@pytest.mark.parametrize(
    ("stop_reason", "word"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("model_context_window_exceeded", "length"),
        (None, "stop"),
        ("something_new", "stop"),
    ],
)
def test_finish_reason(stop_reason: str | None, word: str) -> None:
    assert finish_reason({"stop_reason": stop_reason}) == word


def test_usage() -> None:
    counts = usage(RESULT["usage"])  # type: ignore[arg-type]
    assert (counts["prompt_tokens"], counts["completion_tokens"], counts["total_tokens"]) == (10, 7, 17)
    assert counts["prompt_tokens_details"]["cached_tokens"] == 3
    assert usage({})["total_tokens"] == 0


def test_completion() -> None:
    content = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "yes"}]
    answer: Any = {**RESULT, "stop_reason": "max_tokens", "content": content, "text": "yes"}
    body = completion(answer, completion_id="c", created=1, model="asked", fingerprint="fp")
    assert (body["id"], body["object"], body["created"], body["model"]) == (
        "c",
        "chat.completion",
        1,
        "asked",
    )
    choice = body["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": "yes",
        "refusal": None,
        "annotations": [],
        "reasoning_content": "hm",
    }
    assert choice["finish_reason"] == "length"
    assert body["usage"]["total_tokens"] == 17


def test_names_of_what_the_daemon_ignored() -> None:
    assert ignored_by_daemon({"ignored": ["temperature", "stop_sequences"]}) == ["temperature", "stop"]
    assert ignored_by_daemon({}) == []


def test_text_and_thinking_in_order() -> None:
    got = read(start() + thinking("hm") + text("a") + text('b"\n\u2028é😀'), text("c"))
    assert got == [(True, "hm"), (False, "a"), (False, 'b"\n\u2028é😀'), (False, "c")]


def test_lines_that_are_no_deltas() -> None:
    delta = {"type": "text_delta", "text": "x"}
    inner = {"type": "content_block_delta", "index": 0, "delta": delta}
    noise = [
        b'{"type":"system","subtype":"api_retry"}\n',
        b'{"type":"assistant","message":{"content":[{"type":"text","text":"content_block_delta"}]}}\n',
        json.dumps({"type": "assistant", "event": inner}).encode() + b"\n",
        line({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}),
        line({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}}),
        line({"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x"}}),
        line({"type": "content_block_delta", "delta": None}),
        line({"type": "content_block_delta", "delta": {"text": 5}}),
        line({"type": "content_block_delta", "delta": {"text": ""}}),
        line({"type": "content_block_delta", "delta": 5}),
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
    assert read(*payloads) == [(False, piece) for piece in pieces]
