from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_gateway.chat.schema import decode_chat
from ccd_gateway.errors import ApiError

GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def refused(body: bytes | dict[str, Any]) -> dict[str, Any]:
    with pytest.raises(ApiError) as caught:
        decode_chat(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert caught.value.status == 400
    return caught.value.error


def test_good_and_unknown_fields() -> None:
    decoded = decode_chat(
        b"\xef\xbb\xbf" + json.dumps({**GOOD, "stream": None, "zeta": 1, "alpha": {}}).encode()
    )
    assert decoded.request.messages == GOOD["messages"]
    assert decoded.request.stream is None
    assert decoded.unknown == ["zeta", "alpha"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 5),
        ("model", ""),
        ("model", None),
        ("messages", "hi"),
        ("messages", {}),
        ("messages", []),
        ("stream", "yes"),
        ("stream", 1),
        ("max_tokens", "10"),
        ("max_tokens", 1.5),
        ("max_tokens", -1),
        ("max_tokens", True),
        ("max_completion_tokens", []),
        ("temperature", "1"),
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("top_p", 1.1),
        ("top_k", 0),
        ("stop", 5),
        ("stream_options", True),
        ("user", 5),
        ("user", "x" * 4097),
        ("metadata", {"a": 1}),
        ("metadata", []),
        ("n", 0),
        ("n", "1"),
        ("tools", {}),
        ("logit_bias", []),
        ("frequency_penalty", 3),
        ("seed", "x"),
        ("logprobs", 1),
        ("response_format", "text"),
    ],
)
def test_wrong_type_names_the_field(name: str, value: Any) -> None:
    error = refused({**GOOD, name: value})
    assert error["param"] == name
    assert error["type"] == "invalid_request_error"
    assert "`" not in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({**GOOD, "messages": ["hi"]}, "messages[0]"),
        ({**GOOD, "messages": [{}, 3]}, "messages[1]"),
        ({**GOOD, "stop": ["a", 3]}, "stop[1]"),
        ({**GOOD, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ],
)
def test_the_path_inside_a_field(body: dict[str, Any], param: str) -> None:
    assert refused(body)["param"] == param


@pytest.mark.parametrize("name", ["model", "messages"])
def test_missing(name: str) -> None:
    error = refused({key: value for key, value in GOOD.items() if key != name})
    assert error == {
        "message": f"Missing required parameter: '{name}'.",
        "type": "invalid_request_error",
        "param": name,
        "code": "missing_required_parameter",
    }


def test_empty_messages() -> None:
    assert refused({**GOOD, "messages": []})["message"] == "Messages cannot be empty."


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b'{"model": NaN}',
        b'{"model": 1e999}',
        b"\xff\xfe",
        b'{"model": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{'model': 'm'}",
    ],
)
def test_malformed(body: bytes) -> None:
    assert refused(body)["code"] == "invalid_json"
