from __future__ import annotations

import json
from typing import Any

from ccd_gateway.answer.lines import Delta
from ccd_gateway.chat.sse import DONE, ChunkWriter, error_event
from ccd_gateway.surface.driver import KEEPALIVE
from ccd_gateway.surface.ignored import in_last_event


def writer(include_usage: bool = False, **options: Any) -> ChunkWriter:
    return ChunkWriter('id"1', 17, 'm/"x"', "fp", include_usage=include_usage, **options)


def data(event: bytes) -> Any:
    assert event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2
    return json.loads(event[6:])


HEAD = {
    "id": 'id"1',
    "object": "chat.completion.chunk",
    "created": 17,
    "model": 'm/"x"',
    "service_tier": "default",
    "system_fingerprint": "fp",
}


def choice(delta: dict[str, Any], reason: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]


TEXT = Delta("text", b'"a\\n\\u00e9"', 0)
THOUGHT = Delta("thinking", b'"t"', 0)
CALL = Delta("call", b"", 1, 0, "toolu_1", 'f"')
MORE = Delta("arguments", b'"{\\"a\\""', 1, 0)
SECOND = Delta("call", b"", 2, 1, "toolu_2", "g")


def test_every_kind_of_chunk() -> None:
    w = writer()
    role = {"role": "assistant", "content": "", "refusal": None}
    assert data(w.role()) == {**HEAD, "choices": choice(role)}
    assert data(w.chunk(TEXT)) == {**HEAD, "choices": choice({"content": "a\né"})}
    assert data(w.chunk(THOUGHT)) == {**HEAD, "choices": choice({"reasoning_content": "t", "reasoning": "t"})}
    assert data(w.refusal("no")) == {**HEAD, "choices": choice({"refusal": "no"})}
    assert data(w.finish("length")) == {**HEAD, "choices": choice({}, "length")}


def test_fragments_of_a_tool_call() -> None:
    """The first has id, type and name, the later ones only more arguments."""
    w = writer()
    first = {"index": 0, "id": "toolu_1", "type": "function", "function": {"name": 'f"', "arguments": ""}}
    later = {"index": 0, "function": {"arguments": '{"a"'}}
    assert data(w.chunk(CALL)) == {**HEAD, "choices": choice({"tool_calls": [first]})}
    assert data(w.chunk(MORE)) == {**HEAD, "choices": choice({"tool_calls": [later]})}
    assert data(w.chunk(SECOND))["choices"][0]["delta"]["tool_calls"][0]["index"] == 1


def test_legacy_fragments_of_the_only_call() -> None:
    w = writer(functions_form=True)
    assert data(w.chunk(CALL))["choices"] == choice({"function_call": {"name": 'f"', "arguments": ""}})
    assert data(w.chunk(MORE))["choices"] == choice({"function_call": {"arguments": '{"a"'}})
    assert w.chunk(SECOND) == b""


def test_the_choice_is_named() -> None:
    assert data(writer(choice=3).chunk(TEXT))["choices"][0]["index"] == 3


def test_usage_key_only_when_asked_for() -> None:
    w = writer(include_usage=True)
    for event in (w.role(), w.chunk(TEXT), w.chunk(THOUGHT), w.chunk(CALL), w.chunk(MORE), w.finish("stop")):
        assert data(event)["usage"] is None
    assert data(w.usage({"total_tokens": 3})) == {**HEAD, "choices": [], "usage": {"total_tokens": 3}}


def test_what_is_ignored_is_in_the_last_chunk() -> None:
    further = in_last_event(["temperature", "stop", "a\nb"])
    assert further == {"ccd_ignored": ["temperature", "stop", "a?b"]}
    w = writer(include_usage=True)
    for event in (w.finish("stop", further), w.usage({}, further)):
        assert data(event)["ccd_ignored"] == further["ccd_ignored"]
    assert in_last_event([]) == {}
    assert "ccd_ignored" not in data(w.finish("stop", {}))


def test_error_event_and_constants() -> None:
    error = {"message": "upstream died", "type": "server_error", "param": None, "code": "upstream_error"}
    assert data(error_event(error)) == {"error": error}
    assert DONE == b"data: [DONE]\n\n"
    assert KEEPALIVE == b": keep-alive\n"  # a second line end would be an event without data
