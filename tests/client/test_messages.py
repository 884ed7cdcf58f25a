"""OpenAI-style messages become system prompt and turns, or are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_client.messages import chat_params, chat_request, conversation
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
    assert conversation("hi")[:3] == (None, [user("hi")], [])


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


def call(call_id: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made: dict[str, Any], content: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(made)}


def result(call_id: str, content: Any = "done", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}


def used(call_id: str, name: str = "f", **given_: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": given_}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def answer_to(call_id: str, content: Any = "done", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjQ="


def test_a_tool_loop_with_parallel_calls() -> None:
    """Results stand at the head of the next user turn, whatever order they come in."""
    said = conversation(
        [
            user("weather?"),
            calls(
                call("a", "f", '{"city": "Rome", "n": [1.5, null]}'), call("b", "g", ""), content="looking"
            ),
            result("b", "sunny"),
            result("a", "no such city", is_error=True),
            user("and now?"),
            {"role": "assistant", "content": "wait"},
            calls(call("c")),
            result("c", ""),
            {"role": "assistant", "content": "so"},
            user("thanks"),
        ]
    )
    assert said.ignored == []
    assert said.messages == [
        user("weather?"),
        {
            "role": "assistant",
            "content": [text("looking"), used("a", "f", city="Rome", n=[1.5, None]), used("b", "g")],
        },
        user([answer_to("b", "sunny"), answer_to("a", "no such city", is_error=True), text("and now?")]),
        {"role": "assistant", "content": [text("wait"), used("c")]},
        user([{"type": "tool_result", "tool_use_id": "c"}]),
        {"role": "assistant", "content": "so"},
        user("thanks"),
    ]


def test_results_may_end_the_list_and_hold_images() -> None:
    parts = [text("here"), {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
    said = conversation([user("draw"), calls(call("a")), result("a", parts, name="f")])
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    assert said.messages[-1] == user([answer_to("a", [text("here"), image])])
    assert said.ignored == []


def test_ids_of_other_vendors_are_fitted() -> None:
    said = conversation([user("x"), calls(call("functions.f:0")), result("functions.f:0")])
    assert said.messages[1:] == [
        {"role": "assistant", "content": [used("functions_f_0")]},
        user([answer_to("functions_f_0")]),
    ]


def test_legacy_function_calls() -> None:
    said = conversation(
        [
            user("x"),
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "2"},
        ]
    )
    first, second = (turn["content"][0] for turn in (said.messages[1], said.messages[3]))  # type: ignore[index]
    assert (first["name"], first["input"], second["input"]) == ("f", {"a": 1}, {})  # type: ignore[index]
    assert said.messages[4]["content"] == [answer_to(second["id"], "2")]  # type: ignore[index]
    assert first["id"] != second["id"]  # type: ignore[index]


def test_a_continued_conversation_may_begin_with_results() -> None:
    assert conversation([result("a"), user("go on")], continued=True).messages == [
        user([answer_to("a"), text("go on")])
    ]
    assert chat_params([result("a")], conversation_id="c")["messages"] == [user([answer_to("a")])]
    refused([result("a")], "messages[0].tool_call_id")


def test_images_and_files() -> None:
    parts = [
        text("look"),
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "high"}},
        {"type": "image_url", "image_url": f"data:image/jpg;base64,{PNG}"},  # the bytes say what it is
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "data:text/csv;base64,w6QsMQ==", "filename": "a.csv"}},
        {"type": "file", "file": {"file_data": "data:text/plain,a%20b"}},
        {"type": "text", "text": "end", "cache_control": {"type": "ephemeral"}},
    ]
    said = conversation([user(parts)])
    assert said.ignored == ["messages[0].content[1].image_url.detail"]
    base64 = {"type": "base64", "media_type": "image/png", "data": PNG}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": PDF}
    assert said.messages[0]["content"] == [
        text("look"),
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "image", "source": base64},
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "ä,1"},
            "title": "a.csv",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a b"}},
        {**text("end"), "cache_control": {"type": "ephemeral"}},
    ]


def test_text_that_says_nothing_is_left_out_beside_text_that_does() -> None:
    said = conversation(
        [
            {"role": "system", "content": " "},
            user([text(""), text("hi"), text("\n")]),
            calls(call("a"), content="\n\n"),
            result("a"),
        ]
    )
    assert said.system is None
    assert said.messages[:2] == [user([text("hi")]), {"role": "assistant", "content": [used("a")]}]


def test_refusals_are_said_again() -> None:
    parts = [{"type": "refusal", "refusal": "no"}]
    for message in ({"content": None, "refusal": "no"}, {"content": parts}):
        said = conversation([user("x"), {"role": "assistant", **message}, user("why?")])
        assert said.messages[1] == {"role": "assistant", "content": [text("no")]}


def test_only_system_messages_are_the_prompt() -> None:
    assert conversation([{"role": "developer", "content": "x"}])[:3] == (None, [user("x")], [])


def image(url: Any) -> Any:
    return [user([{"type": "image_url", "image_url": {"url": url}}])]


def file(**what: Any) -> Any:
    return [user([{"type": "file", "file": what}])]


URL = "messages[0].content[0].image_url.url"
FILE = "messages[0].content[0].file.file_data"
BIG_PNG = "iVBORw0KGgo" + "A" * (7 << 20)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (image("http://169.254.169.254/latest"), URL),
        (image("file:///etc/passwd"), URL),
        (image("/etc/passwd"), URL),
        (image(""), URL),
        (image(5), URL),
        (image("data:image/png;base64"), URL),
        (image("data:image/png;base64,"), URL),
        (image("data:image/png;base64,@@@@"), URL),
        (image("data:image/png;base64,AAAA"), URL),
        (image(f"data:image/svg+xml;base64,{PNG}"), URL),
        (image("data:image/png;base64," + BIG_PNG), URL),
        (file(file_id="file-1"), "messages[0].content[0].file.file_id"),
        (file(file_data="JVBERi0="), FILE),
        (file(file_data="data:application/pdf;base64,AAAA"), FILE),
        (file(file_data="data:application/zip;base64,AAAA"), FILE),
        (file(file_data="data:text/plain;base64,//8="), FILE),
        (file(), FILE),
        ([user([{"type": "file"}])], "messages[0].content[0].file"),
        ([user([{"type": "input_audio", "input_audio": {}}])], "messages[0].content[0].type"),
        ([user([{"type": "refusal", "refusal": "x"}])], "messages[0].content[0].type"),
        ([{"role": "system", "content": image("x")[0]["content"]}], "messages[0].content[0].type"),
    ],
)
def test_images_and_files_that_cannot_be_sent(messages: Any, param: str) -> None:
    refused(messages, param)


ASKED = [user("a"), calls(call("x"), call("y"))]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([*ASKED, result("x"), result("x")], "messages[3].tool_call_id"),
        ([*ASKED, result("x"), result("z")], "messages[3].tool_call_id"),
        ([*ASKED, {"role": "tool", "content": "b"}], "messages[2].tool_call_id"),
        ([*ASKED, {"role": "function", "name": "g", "content": "b"}], "messages[2].name"),
        ([*ASKED, result("x", [{"type": "audio"}])], "messages[2].content[0].type"),
        ([user("a"), calls({"id": "x"})], "messages[1].tool_calls[0].function"),
        ([user("a"), calls({**call("x"), "type": "custom"})], "messages[1].tool_calls[0].type"),
        ([user("a"), calls({**call("x"), "id": ""})], "messages[1].tool_calls[0].id"),
        ([user("a"), calls(call("x", ""))], "messages[1].tool_calls[0].function.name"),
        *(
            ([user("a"), calls(call("x", "f", bad))], "messages[1].tool_calls[0].function.arguments")
            for bad in ("[" * 100_000, '"\\ud800"', b"{}")
        ),
        (
            [user("a"), calls({**call("x"), "function": {"name": "f", "arguments": {"a": float("nan")}}})],
            "messages[1].tool_calls[0].function.arguments.a",
        ),
        ([user("a"), {"role": "assistant", "audio": {"id": "x"}}, user("b")], "messages[1].audio"),
    ],
)
def test_tool_calls_and_results_must_fit(messages: Any, param: str) -> None:
    refused(messages, param)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (5, "messages"),
        (None, "messages"),
        (b"hi", "messages"),
        ({}, "messages"),
        ([], "messages"),
        ("", "messages[0].content"),
        (" ", "messages[0].content"),
        (["hi"], "messages[0]"),
        ([{}], "messages[0].role"),
        ([{"role": 5}], "messages[0].role"),
        ([{"role": []}], "messages[0].role"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([user("a"), {"role": "assistant", "tool_calls": 5}, user("b")], "messages[1].tool_calls"),
        ([user("a"), {"role": "assistant", "tool_calls": [5]}, user("b")], "messages[1].tool_calls[0]"),
        ([{"role": "user"}], "messages[0].content"),
        ([user(None)], "messages[0].content"),
        ([user("")], "messages[0].content"),
        ([user([])], "messages[0].content"),
        ([user(7)], "messages[0].content"),
        ([user(b"x")], "messages[0].content"),
        ([user([5])], "messages[0].content[0]"),
        ([user("a \ud800")], "messages[0].content"),
        ([user([text("a \udfff")])], "messages[0].content[0].text"),
        ([user([{"type": "text", "text": "a"}, {"type": "image_url"}])], "messages[0].content[1].image_url"),
        ([user([{"type": "text"}])], "messages[0].content[0].text"),
        ([user([{"type": "text", "text": ""}])], "messages[0].content"),
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
    assert chat_params("hi", stop=["a", "", "b"])["stop_sequences"] == ["a", "b"]
    assert "stop_sequences" not in chat_params("hi", stop="")
    refused("hi", "stop", stop=5)
    refused("hi", "stop", stop=["a", None])
    refused("hi", "system", system=5)


def test_what_has_no_place_is_told_and_refused_when_strict() -> None:
    named = [{**user("hi"), "name": "bob"}]
    assert chat_request(named, stop=["\n", "x"])[:2] == (
        {"messages": [user("hi")], "stop_sequences": ["x"]},
        ["messages[0].name", "stop"],
    )
    refused(named, "messages[0].name", strict=True)
    assert chat_params("hi", strict=True)["strict"] is True


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
message = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "function"]) | anything,
        "content": st.text(max_size=3)
        | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": anything}), max_size=2)
        | st.lists(st.fixed_dictionaries({"type": st.just("image_url"), "image_url": anything}), max_size=1)
        | st.lists(st.fixed_dictionaries({"type": st.just("file"), "file": anything}), max_size=1)
        | anything,
        "name": anything,
        "tool_calls": anything
        | st.lists(st.fixed_dictionaries({"id": anything, "function": anything}), max_size=2),
        "tool_call_id": anything,
        "refusal": anything,
        "function_call": anything,
    },
)


@given(st.lists(message | anything, max_size=4) | anything)
def test_anything_is_converted_or_refused_by_name(messages: Any) -> None:
    try:
        said = conversation(messages)
    except RpcError as error:
        assert error.code is Code.BAD_PARAMS and error.data["param"].startswith("messages")
    else:
        assert said.messages[0]["role"] == "user"
        assert all(turn["content"] for turn in said.messages)
