from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ccd_gateway.chat.parameters import ignored_names, refuse_unsupported
from ccd_gateway.chat.schema import ChatBody
from ccd_gateway.errors import ApiError
from ccd_gateway.surface.ignored import header_value, refuse_ignored


def request(**more: Any) -> ChatBody:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
    return msgspec.convert(body, ChatBody)


NO_OPS: dict[str, list[Any]] = {
    "n": [None, 1, 8],
    "store": [None, False],
    "tools": [None, [], [{"type": "function", "function": {"name": "f"}}]],
    "tool_choice": [None, "none", "auto", "required", {"type": "function", "function": {"name": "f"}}],
    "parallel_tool_calls": [None, True, False],
    "functions": [None, [], [{"name": "f"}]],
    "function_call": [None, "none", "auto"],
    "response_format": [None, {"type": "text"}, {"type": "json_object"}],
    "reasoning_effort": [None, "none", "low"],
    "thinking": [None, {"type": "disabled"}],
    "modalities": [None, [], ["text"]],
    "audio": [None],
    "prediction": [None],
    "web_search_options": [None],
    "conversation_id": [None],
    "seed": [None],
    "logprobs": [None, False],
    "top_logprobs": [None, 0],
    "logit_bias": [None, {}],
    "frequency_penalty": [None, 0, 0.0],
    "presence_penalty": [None, 0],
    "service_tier": [None, "auto", "default"],
    "verbosity": [None, "medium"],
    "temperature": [None, 0, 1],
    "metadata": [None, {}, {"user_id": "u"}],
    "user": [None, "u"],
    "stream_options": [None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in NO_OPS for value in NO_OPS[name]])
def test_values_that_ask_for_nothing(name: str, value: Any) -> None:
    asked = request(**{name: value})
    refuse_unsupported(asked)
    assert ignored_names(asked, []) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("modalities", ["text", "audio"]),
    ],
)
def test_not_supported_names_the_parameter(name: str, value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        refuse_unsupported(request(**{name: value}))
    assert (caught.value.status, caught.value.error["param"]) == (400, name)
    assert caught.value.error["code"] == "unsupported_parameter"
    assert name in caught.value.error["message"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"seed": 1}, ["seed"]),
        ({"seed": 0}, ["seed"]),
        ({"logprobs": True, "top_logprobs": 2}, ["logprobs", "top_logprobs"]),
        ({"logit_bias": {"50256": -100}}, ["logit_bias"]),
        ({"frequency_penalty": 0.5, "presence_penalty": -0.5}, ["frequency_penalty", "presence_penalty"]),
        ({"service_tier": "flex"}, ["service_tier"]),
        ({"verbosity": "low"}, ["verbosity"]),
        ({"temperature": 1.5}, ["temperature"]),
        ({"max_tokens": 0}, ["max_tokens"]),
        ({"metadata": {"user_id": "u", "order": "7"}}, ["metadata.order"]),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            ["stream_options.include_obfuscation"],
        ),
        ({"stream_options": {"include_usage": True}}, ["stream_options"]),
        ({"store": True}, ["store"]),
        ({"audio": {"voice": "alloy"}}, ["audio"]),
        ({"prediction": {"type": "content", "content": "x"}}, ["prediction"]),
        ({"web_search_options": {}}, ["web_search_options"]),
        ({"functions": [{"name": "f"}], "tools": [{"type": "function"}]}, ["functions"]),
        ({"function_call": {"name": "f"}}, ["function_call"]),
    ],
)
def test_ignored_is_named_and_refused_when_strict(given: dict[str, Any], named: list[str]) -> None:
    asked = request(**given)
    refuse_unsupported(asked)
    assert ignored_names(asked, []) == named
    with pytest.raises(ApiError) as caught:
        refuse_ignored(named)
    assert (caught.value.status, caught.value.error["param"]) == (400, named[0])


def test_unknown_fields_are_named_safely() -> None:
    names = ignored_names(request(), ["top_a", "a\r\nSet-Cookie: x", "", "x" * 100, "é"])
    assert header_value(names) == "top_a, a??Set-Cookie??x, ?, " + "x" * 64
    assert header_value([f"a{i}" for i in range(100)]).endswith("a31, ...")
