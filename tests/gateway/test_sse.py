from __future__ import annotations

import json
from typing import Any

from ccd_gateway.sse import DONE, KEEPALIVE, ChunkWriter, error_event


def writer(include_usage: bool = False) -> ChunkWriter:
    return ChunkWriter('id"1', 17, 'm/"x"', "fp", include_usage=include_usage)


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


def test_every_kind_of_chunk() -> None:
    w = writer()
    role = {"role": "assistant", "content": "", "refusal": None}
    assert data(w.role()) == {**HEAD, "choices": choice(role)}
    assert data(w.content(b'"a\\n\\u00e9"')) == {**HEAD, "choices": choice({"content": "a\né"})}
    assert data(w.reasoning(b'"t"')) == {**HEAD, "choices": choice({"reasoning_content": "t"})}
    assert data(w.finish("length")) == {**HEAD, "choices": choice({}, "length")}


def test_usage_key_only_when_asked_for() -> None:
    w = writer(include_usage=True)
    for event in (w.role(), w.content(b'"a"'), w.reasoning(b'"a"'), w.finish("stop")):
        assert data(event)["usage"] is None
    assert data(w.usage({"total_tokens": 3})) == {**HEAD, "choices": [], "usage": {"total_tokens": 3}}


def test_error_event_and_constants() -> None:
    error = {"message": "upstream died", "type": "server_error", "param": None, "code": "upstream_error"}
    assert data(error_event(error)) == {"error": error}
    assert DONE == b"data: [DONE]\n\n"
    assert KEEPALIVE == b": keep-alive\n\n"
