"""OpenAI-style messages become system prompt and turns, or are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_client.messages import chat_params, conversation
from ccd_protocol.errors import Code, RpcError


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def refused(messages: Any, param: str, **settings: Any) -> None:
    with pytest.raises(RpcError) as caught:
        chat_params(messages, **settings)
    assert caught.value.code is Code.BAD_PARAMS
    assert caught.value.data == {"param": param}
    assert caught.value.message.startswith(param)


def test_a_prompt_is_one_user_turn() -> None:
    assert conversation("hi") == (None, [user("hi")], [])


def test_turns_stay_turns() -> None:
    history = [user("a"), {"role": "assistant", "content": "b"}, user([{"type": "text", "text": "c"}])]
    assert conversation(history).messages == history


def test_system_and_developer_messages_become_the_system_prompt() -> None:
    said = conversation(
        [
            {"role": "system", "content": "one"},
            user("hi"),
            {
                "role": "developer",
                "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}],
            },
            user("again"),
        ]
    )
    assert said.system == "one\n\ntwo\n\nthree"
    assert said.messages == [user("hi"), user("again")]


def test_keys_without_a_place_are_listed_when_they_say_something() -> None:
    said = conversation(
        [
            {**user("hi"), "name": "bob"},
            {
                "role": "assistant",
                "content": "yes",
                "refusal": None,
                "annotations": [],
                "tool_calls": None,
                "id": "x",
            },
            user("go on"),
        ]
    )
    assert said.ignored == ["messages[0].name", "messages[1].id"]
    assert said.messages[1] == {"role": "assistant", "content": "yes"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (5, "messages"),
        (None, "messages"),
        (b"hi", "messages"),
        ({}, "messages"),
        ([], "messages"),
        ("", "messages[0].content"),
        ([{"role": "system", "content": "x"}], "messages"),
        (["hi"], "messages[0]"),
        ([{}], "messages[0].role"),
        ([{"role": 5}], "messages[0].role"),
        ([{"role": []}], "messages[0].role"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"role": "tool", "content": "x"}], "messages[0].role"),
        ([user("a"), {"role": "function", "content": "x"}], "messages[1].role"),
        ([user("a"), {"role": "assistant", "content": "b"}], "messages[1].role"),
        ([user("a"), {"role": "assistant", "tool_calls": [{}]}, user("b")], "messages[1].tool_calls"),
        ([user("a"), {"role": "assistant", "function_call": {"name": "f"}}], "messages[1].function_call"),
        ([{"role": "user"}], "messages[0].content"),
        ([user(None)], "messages[0].content"),
        ([user("")], "messages[0].content"),
        ([user([])], "messages[0].content"),
        ([user(7)], "messages[0].content"),
        ([user(b"x")], "messages[0].content"),
        ([user(["x"])], "messages[0].content[0]"),
        ([user([{"type": "text", "text": "a"}, {"type": "image_url"}])], "messages[0].content[1].type"),
        ([user([{"type": "text"}])], "messages[0].content[0].text"),
        ([user([{"type": "text", "text": ""}])], "messages[0].content[0].text"),
        ([user([{"type": "text", "text": 5}])], "messages[0].content[0].text"),
    ],
)
def test_refusals_name_the_parameter(messages: Any, param: str) -> None:
    refused(messages, param)


def test_other_parameters() -> None:
    params = chat_params(
        [{"role": "system", "content": "list"}, user("hi")],
        system="own",
        stop="x",
        model="m",
        top_k=None,
        temperature=0,
    )
    assert params == {
        "messages": [user("hi")],
        "system": "own\n\nlist",
        "stop_sequences": ["x"],
        "model": "m",
        "temperature": 0,
    }
    assert chat_params("hi", stop=["a", "b"])["stop_sequences"] == ["a", "b"]
    refused("hi", "stop", stop=5)
    refused("hi", "stop", stop=[""])
    refused("hi", "stop", stop=["a", None])
    refused("hi", "system", system=5)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
message = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system"]) | anything,
        "content": st.text(max_size=3)
        | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": anything}), max_size=2)
        | anything,
        "name": anything,
        "tool_calls": anything,
    },
)


@given(st.lists(message | anything, max_size=4) | anything)
def test_anything_is_converted_or_refused_by_name(messages: Any) -> None:
    try:
        said = conversation(messages)
    except RpcError as error:
        assert error.code is Code.BAD_PARAMS and error.data["param"].startswith("messages")
    else:
        assert said.messages[-1]["role"] == "user"
        assert all(turn["content"] for turn in said.messages)
