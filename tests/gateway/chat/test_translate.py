from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ccd_gateway.chat.schema import ChatBody
from ccd_gateway.chat.translate import (
    completion,
    finish_reason,
    ignored_by_daemon,
    in_clients_words,
    summed,
    to_call,
    usage,
)
from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import RESULT


def request(**more: Any) -> ChatBody:
    return msgspec.convert({"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}, ChatBody)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
WIRE_TOOL = {"name": "f", "input_schema": {"type": "object"}}
FUNCTION = {"name": "f", "description": "does"}
WIRE_FUNCTION = {"name": "f", "description": "does", "input_schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"max_tokens": 0}, {}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 1.7, "top_p": 0, "top_k": 3}, {"temperature": 1.0, "top_p": 0.0, "top_k": 3}),
        ({"top_p": 1}, {}),
        ({"stop": "x"}, {"stop_sequences": ["x"]}),
        ({"stop": ["a", "b", "c", "d", "e"]}, {"stop_sequences": ["a", "b", "c", "d", "e"]}),
        ({"stop": []}, {}),
        ({"stop": ["\n", "a"]}, {"stop_sequences": ["a"]}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
        ({"metadata": {"user_id": "m", "x": "y"}}, {"metadata": {"user_id": "m"}}),
        ({"metadata": {"x": "y"}}, {}),
        ({"reasoning_effort": "low"}, {"effort": "low"}),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"service_tier": "auto"}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"format": {"type": "json_object"}}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}},
                }
            },
            {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        ),
        ({"tools": [TOOL]}, {"tools": [WIRE_TOOL]}),
        ({"tools": [TOOL], "tool_choice": "auto"}, {"tools": [WIRE_TOOL], "tool_choice": {"type": "auto"}}),
        (
            {"tools": [TOOL], "tool_choice": "required"},
            {"tools": [WIRE_TOOL], "tool_choice": {"type": "any"}},
        ),
        (
            {"tools": [TOOL], "parallel_tool_calls": False},
            {"tools": [WIRE_TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        ({"tools": [], "tool_choice": "none", "parallel_tool_calls": False}, {}),
        (
            {"functions": [FUNCTION]},
            {"tools": [WIRE_FUNCTION], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        (
            {"functions": [FUNCTION], "function_call": {"name": "f"}},
            {
                "tools": [WIRE_FUNCTION],
                "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            },
        ),
        ({"functions": [FUNCTION], "tools": [TOOL]}, {"tools": [WIRE_TOOL]}),
    ],
)
def test_parameters_of_the_call(given_: dict[str, Any], wanted: dict[str, Any]) -> None:
    params = dict(to_call(request(**given_)).params)
    assert params.pop("messages") == [{"role": "user", "content": "hi"}]
    assert params == wanted


@pytest.mark.parametrize(
    ("given_", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"functions": ["f"]}, "tools[0].function"),
        ({"functions": [FUNCTION], "function_call": "required"}, "function_call"),
    ],
)
def test_what_is_wrong_is_named(given_: dict[str, Any], param: str) -> None:
    with pytest.raises(RpcError) as caught:
        to_call(request(**given_))
    assert (caught.value.code, caught.value.data["param"]) == (Code.BAD_PARAMS, param)


@pytest.mark.parametrize(
    ("param", "functions_form", "name"),
    [
        ("stop_sequences[1]", False, "stop[1]"),
        ("effort", False, "reasoning_effort"),
        ("format.schema", False, "response_format.json_schema.schema"),
        ("tools[2].name", False, "tools[2].function.name"),
        ("tools[2].input_schema", False, "tools[2].function.parameters"),
        ("tools[2].name", True, "functions[2].name"),
        ("tools[2].function", True, "functions[2].function"),
        ("tool_choice.name", True, "function_call"),
        ("metadata.user_id", False, "user"),
        ("messages[1].content", False, "messages[1].content"),
        (None, False, None),
    ],
)
def test_parameters_have_the_names_that_the_client_used(
    param: str | None, functions_form: bool, name: str | None
) -> None:
    error = RpcError(Code.BAD_PARAMS, "what", {"param": param} if param else {})
    renamed = in_clients_words(error, functions_form=functions_form)
    assert (renamed.code, renamed.message, renamed.data.get("param")) == (Code.BAD_PARAMS, "what", name)


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
    word_there = "function_call" if word == "tool_calls" else word
    assert finish_reason({"stop_reason": stop_reason}, functions_form=True) == word_there


def test_usage() -> None:
    counts = usage(RESULT["usage"])  # type: ignore[arg-type]
    assert (counts["prompt_tokens"], counts["completion_tokens"], counts["total_tokens"]) == (10, 7, 17)
    assert counts["prompt_tokens_details"]["cached_tokens"] == 3
    assert usage({})["total_tokens"] == 0


def answered(*content: dict[str, Any], functions_form: bool = False, **result: Any) -> dict[str, Any]:
    text = "".join(block.get("text", "") for block in content)
    answer: Any = {**RESULT, **result, "content": list(content), "text": text}
    body = completion(
        [answer], completion_id="c", created=1, model="asked", fingerprint="fp", functions_form=functions_form
    )
    assert (body["id"], body["object"], body["created"], body["model"]) == (
        "c",
        "chat.completion",
        1,
        "asked",
    )
    assert body["usage"]["total_tokens"] == 17
    choice: dict[str, Any] = body["choices"][0]
    return choice


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
CALLS = [
    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "é"}},
    {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
]


def test_completion() -> None:
    choice = answered(
        THOUGHT, {"type": "text", "text": "y"}, {"type": "text", "text": "es"}, stop_reason="max_tokens"
    )
    assert choice["message"] == {
        "role": "assistant",
        "content": "yes",
        "refusal": None,
        "annotations": [],
        "reasoning_content": "hm",
        "reasoning": "hm",
    }
    assert choice["finish_reason"] == "length"


def test_completion_with_tool_calls() -> None:
    choice = answered(*CALLS, stop_reason="tool_use")
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"a":"é"}'}},
        {"id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    with_text = answered({"type": "text", "text": "wait"}, *CALLS, stop_reason="tool_use")
    assert with_text["message"]["content"] == "wait"
    choice = answered(*CALLS, stop_reason="tool_use", functions_form=True)
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":"é"}'}
    assert "tool_calls" not in choice["message"]


def test_completion_of_a_refusal() -> None:
    for content, said in ([{"type": "text", "text": "no"}], "no"), ([], "The model refused to answer."):
        choice = answered(*content, stop_reason="refusal")
        assert (choice["message"]["content"], choice["message"]["refusal"]) == (None, said)
        assert choice["finish_reason"] == "content_filter"


def test_several_answers_are_several_choices() -> None:
    answers: Any = [{**RESULT, "content": [], "text": text} for text in "ab"]
    body = completion(answers, completion_id="c", created=1, model="m", fingerprint="fp")
    assert [(c["index"], c["message"]["content"]) for c in body["choices"]] == [(0, "a"), (1, "b")]
    assert body["usage"]["total_tokens"] == 34
    assert summed([{"usage": {"a": 1, "b": None}}, {}, {"usage": {"a": 2}}]) == {"a": 3}


def test_names_of_what_the_daemon_ignored() -> None:
    results = [{"ignored": ["temperature", "stop_sequences"]}, {"ignored": ["effort", "temperature"]}, {}]
    assert ignored_by_daemon(results) == ["temperature", "stop", "reasoning_effort"]
