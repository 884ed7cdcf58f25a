"""What a client says over a session's WebSocket, read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_gateway.errors import ApiError
from ccd_gateway.sessions import requests
from ccd_protocol.errors import Code, RpcError


@pytest.mark.parametrize(
    ("message", "method", "params"),
    [
        ({"type": "user_message", "content": "hi"}, "session.send", {"content": "hi"}),
        (
            {"type": "user_message", "content": [{"type": "text", "text": "hi"}]},
            "session.send",
            {"content": [{"type": "text", "text": "hi"}]},
        ),
        (
            {"type": "permission_response", "request_id": "r"},
            "session.answer",
            {"request_id": "r", "behavior": "deny", "updated_input": None, "message": None},
        ),
        (
            {"type": "permission_response", "request_id": "r", "behavior": "allow", "updated_input": {}},
            "session.answer",
            {"request_id": "r", "behavior": "allow", "updated_input": {}, "message": None},
        ),
        ({"type": "interrupt"}, "session.interrupt", {}),
        ({"type": "interrupt", "id": 1, "timestamp": "2026-01-01T00:00:00Z"}, "session.interrupt", {}),
        (
            {"type": "permission_response", "request_id": "r", "behavior": "allow", "updatedInput": {"a": 1}},
            "session.answer",
            {"request_id": "r", "behavior": "allow", "updated_input": {"a": 1}, "message": None},
        ),
        ({"type": "set_model", "model": "opus"}, "session.set_model", {"model": "opus"}),
        ({"type": "set_model"}, "session.set_model", {"model": None}),
        ({"type": "set_permission_mode", "mode": "plan"}, "session.set_permission_mode", {"mode": "plan"}),
    ],
)
def test_messages(message: dict[str, Any], method: str, params: dict[str, Any]) -> None:
    assert requests.read(json.dumps(message)) == (method, params)


def test_keep_alive_asks_for_nothing() -> None:
    assert requests.read('{"type":"keep_alive","id":"x"}') is None


GOOD: list[dict[str, Any]] = [
    {"type": "user_message", "content": "hi"},
    {"type": "permission_response", "request_id": "r", "behavior": "allow"},
    {"type": "interrupt"},
    {"type": "set_model", "model": "haiku"},
    {"type": "set_permission_mode", "mode": "plan"},
]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: message["type"])
@pytest.mark.parametrize(
    "key",
    ["modle", "updated-input", "updatedinput", "Behavior", "tenant", "session_id", "params", "", "type "],
)
def test_a_key_that_is_not_known_is_an_error(message: dict[str, Any], key: str) -> None:
    assert requests.read(json.dumps(message)) is not None
    with pytest.raises(RpcError) as refusal:
        requests.read(json.dumps({**message, key: None}))
    assert refusal.value.code is Code.BAD_PARAMS and "nothing was done" in refusal.value.message


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "{",
        "[]",
        "null",
        "{}",
        '{"type":"unknown"}',
        '{"type":5}',
        '{"type":"user_message"}',
        '{"type":"user_message","content":5}',
        '{"type":"permission_response"}',
        '{"type":"permission_response","request_id":"r","updated_input":[]}',
        '{"type":"set_permission_mode"}',
        '{"type":"user_message","content":"\\ud800"}',
        '{"type":"user_message","content":"\ud800"}',
        "[" * 100_000,
        '{"type":"user_message","content":[{"a":' + "[" * 100_000,
    ],
)
def test_what_cannot_be_understood(line: str) -> None:
    with pytest.raises(ApiError) as refusal:
        requests.read(line)
    assert refusal.value.status == 400
