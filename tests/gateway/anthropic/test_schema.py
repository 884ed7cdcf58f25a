from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_gateway.anthropic.schema import MessagesRequest, Prompt, decode
from ccd_gateway.errors import ApiError

GOOD: dict[str, Any] = {
    "model": "sonnet",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "hi"}],
}


def refused(body: object, kind: type[Prompt] = MessagesRequest) -> str:
    with pytest.raises(ApiError) as caught:
        decode(body if isinstance(body, bytes) else json.dumps(body).encode(), kind)
    assert caught.value.status == 400
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Expected int, got null"),
        ({"max_tokens": 0}, "max_tokens: Expected int >= 1"),
        ({"max_tokens": True}, "max_tokens: Expected int, got bool"),
        ({"temperature": 1.5}, "temperature: Expected float <= 1.0"),
        ({"top_k": -1}, "top_k: Expected int >= 0"),
        ({"stop_sequences": ["a", 1]}, "stop_sequences.1: Expected str, got int"),
        ({"stream": "yes"}, "stream: Expected bool | null, got str"),
        ({"messages": []}, "messages: Expected array of length >= 1"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        ({"messages": [GOOD["messages"][0], {"content": "x"}]}, "messages.1.role: Field required"),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages.0.role: Expected str, got int"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: Expected str | array, got int"),
        (
            {"messages": [{"role": "user", "content": ["x"]}]},
            "messages.0.content.0: Expected object, got str",
        ),
        ({"system": [5]}, "system.0: Expected object, got int"),
        ({"max_token": 5}, "max_token: Extra inputs are not permitted"),
        ({"betas": ["x"]}, "betas: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_named_first(change: dict[str, Any], message: str) -> None:
    assert refused(GOOD | change) == message


@pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
def test_what_is_missing_is_named(name: str) -> None:
    assert refused({key: value for key, value in GOOD.items() if key != name}) == f"{name}: Field required"


def test_a_count_takes_no_max_tokens_and_no_stream() -> None:
    asked = {"model": "sonnet", "messages": GOOD["messages"]}
    assert decode(json.dumps(asked).encode(), Prompt).model == "sonnet"
    assert refused(GOOD, Prompt) == "max_tokens: Extra inputs are not permitted"


def test_null_is_absent() -> None:
    request = decode(
        json.dumps(GOOD | {"system": None, "tools": None, "top_p": None}).encode(), MessagesRequest
    )
    assert (request.system, request.tools, request.top_p) == (None, None, None)


@given(
    st.binary() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps)
)
def test_no_body_is_anything_but_read_or_refused(body: bytes | str) -> None:
    refused(body if isinstance(body, bytes) else body.encode())


@given(st.dictionaries(st.sampled_from(sorted(MessagesRequest.__struct_fields__)), st.integers() | st.text()))
def test_no_parameter_is_anything_but_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        decode(json.dumps(GOOD | fields).encode(), MessagesRequest)
    except ApiError as error:
        assert error.status == 400
        assert str(error).partition(":")[0].partition(".")[0] in fields
