"""Histories as OpenAI's clients send them, with whatever became of them on the way: read, mended and named by path."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ccd_client.messages import chat_params, chat_request, conversation
from ccd_protocol.chat.history import MISSING_RESULT, OPENING
from ccd_protocol.errors import RpcError

Json = dict[str, Any]


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def assistant(content: Any, *calls: Json, **more: Any) -> Json:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {}), **more}


def call(call_id: str, arguments: Any = "{}", name: str = "f", **more: Any) -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def result(call_id: str, content: Any = "done") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def used(call_id: str, **given: Any) -> Json:
    return {"type": "tool_use", "id": call_id, "name": "f", "input": given}


def answered(call_id: str, content: Any = "done") -> Json:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


def text(said: str) -> Json:
    return {"type": "text", "text": said}


@pytest.mark.parametrize("nothing", ["", " \n", None, [], [text("")], [text(" "), text("")]])
def test_stopped_answers_are_left_out_and_named(nothing: Any) -> None:
    said = conversation([user("a"), assistant(nothing), user("b")])
    assert said.messages == [user("a"), user("b")]
    assert said.ignored == ["messages[1].content"]
    with pytest.raises(RpcError) as caught:
        chat_params([user("a"), assistant(nothing), user("b")], strict=True)
    assert caught.value.data == {"param": "messages[1].content"}


@pytest.mark.parametrize(
    ("arguments", "given", "named"),
    [
        ("", {}, False),
        (None, {}, False),
        ('{"a": 1.50}', {"a": 1.5}, False),
        ('{"a": 9007199254740992}', {"a": 1 << 53}, False),
        ("null", {}, True),
        ("[1]", {"arguments": [1]}, True),
        ('"x"', {"arguments": "x"}, True),
        ("7", {"arguments": 7}, True),
        ('{"a": "cut o', {"arguments": '{"a": "cut o'}, True),
        ('{"a": NaN}', {"arguments": '{"a": NaN}'}, True),
        ('{"a": 1e999}', {"arguments": '{"a": 1e999}'}, True),
        ({"a": 1}, {"a": 1}, True),
        ([1], {"arguments": [1]}, True),
        (5, {"arguments": 5}, True),
        ('{"a": 9007199254740993}', {"a": 9007199254740993}, True),
        ('{"a": [18446744073709551616]}', {"a": [18446744073709551616.0]}, True),
        ('{"a": 0.12345678901234567890}', {"a": 0.12345678901234568}, True),
        ('{"a": -0}', {"a": 0}, True),
        ('{"a": -0.0}', {"a": -0.0}, True),
        ('{"a": 1, "a": 2}', {"a": 2}, True),
    ],
)
def test_arguments_become_an_object(arguments: Any, given: Json, named: bool) -> None:
    said = conversation([user("a"), assistant(None, call("x", arguments)), result("x")])
    assert said.messages[1]["content"] == [used("x", **given)]
    assert said.ignored == (["messages[1].tool_calls[0].function.arguments"] if named else [])


def test_trimmed_windows() -> None:
    assert conversation([assistant("Welcome!"), user("hi")]).messages == [
        user(OPENING),
        assistant("Welcome!"),
        user("hi"),
    ]
    trimmed = conversation([{"role": "system", "content": "s"}, assistant(None, call("x")), result("x")])
    assert trimmed[:3] == (
        "s",
        [user(OPENING), assistant([used("x")]), user([answered("x")])],
        [],
    )


def test_a_conversation_may_end_with_the_assistant() -> None:
    assert conversation([user("a"), assistant("b and")]).messages == [user("a"), assistant("b and")]


def test_ids_that_repeat_are_made_unique_and_results_find_their_calls() -> None:
    said = conversation(
        [
            user("a"),
            *(m for n in range(3) for m in (assistant(None, call("call_0")), result("call_0", str(n)))),
        ]
    )
    assert [m["content"] for m in said.messages[1:]] == [
        [used("call_0")],
        [answered("call_0", "0")],
        [used("call_0--2")],
        [answered("call_0--2", "1")],
        [used("call_0--3")],
        [answered("call_0--3", "2")],
    ]
    assert said.ignored == []


def test_results_in_any_order_with_anything_between_them() -> None:
    said = conversation(
        [
            user("a"),
            assistant(None, call("x"), call("y"), call("z")),
            result("y"),
            {"role": "system", "content": "later"},
            user([{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]),
            result("x"),
        ]
    )
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    assert said.system == "later"
    assert said.messages[2] == user([answered("y"), answered("x"), answered("z", MISSING_RESULT), image])
    assert said.ignored == ["messages[1].tool_calls[2]"]


def test_a_placeholder_is_refused_by_strict_calls() -> None:
    with pytest.raises(RpcError) as caught:
        chat_params([user("a"), assistant(None, call("x")), user("so?")], strict=True)
    assert caught.value.data == {"param": "messages[1].tool_calls[0]"}


def test_names_of_functions_are_fitted() -> None:
    said = conversation([user("a"), assistant(None, call("x", name="my.f")), result("x")])
    assert said.messages[1]["content"][0]["name"] == "my_f"  # type: ignore[index, call-overload]
    assert said.ignored == ["messages[1].tool_calls[0].function.name"]


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SOURCE = {"type": "base64", "media_type": "image/png", "data": PNG}


def test_the_words_of_the_messages_api_are_taken() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    said = conversation(
        [
            user([{"type": "image", "source": {**SOURCE, "media_type": "image/jpeg"}}, text("look")]),
            assistant([thinking, text("so"), {**used("x", n=1), "caller": {"type": "direct"}}]),
            user(
                [
                    {**answered("x", [text("done"), {"type": "image", "source": SOURCE}]), "is_error": True},
                    text("go"),
                ]
            ),
            assistant([{"type": "redacted_thinking", "data": "abc"}, text("end")]),
            user([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}]),
        ]
    )
    image = {"type": "image", "source": SOURCE}
    assert said.ignored == []
    assert said.messages == [
        user([image, text("look")]),
        assistant([thinking, text("so"), used("x", n=1)]),
        user([{**answered("x", [text("done"), image]), "is_error": True}, text("go")]),
        assistant([{"type": "redacted_thinking", "data": "abc"}, text("end")]),
        user([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}]),
    ]


def test_the_words_of_responses_are_taken() -> None:
    said = conversation(
        [
            user(
                [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
                    {"type": "input_file", "file_data": "data:text/plain,x", "filename": "a.txt"},
                ]
            ),
            assistant([{"type": "output_text", "text": "yes", "annotations": [], "logprobs": []}]),
            user(["and", text("now")]),
        ]
    )
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "x"},
        "title": "a.txt",
    }
    assert said.messages == [
        user([text("look"), {"type": "image", "source": SOURCE}, document]),
        assistant([text("yes")]),
        user([text("and"), text("now")]),
    ]
    assert said.ignored == []


def test_calls_that_a_message_has_twice_are_made_once() -> None:
    said = conversation([user("a"), assistant([used("x", n=1)], call("x", '{"n": 1}')), result("x")])
    assert said.messages[1:] == [assistant([used("x", n=1)]), user([answered("x")])]


def test_what_only_the_other_route_takes_is_refused_with_its_name() -> None:
    with pytest.raises(RpcError) as caught:
        conversation([user("a"), assistant([{"type": "server_tool_use", "id": "x"}]), user("b")])
    assert caught.value.data == {"param": "messages[1].content[0].type"}
    assert "/v1/messages" in caught.value.message


def test_unsigned_thinking_is_named() -> None:
    said = conversation(
        [user("a"), assistant([{"type": "thinking", "thinking": "hm"}, text("b")]), user("c")]
    )
    assert said.messages[1] == assistant([text("b")])
    assert said.ignored == ["messages[1].content[0]"]


MARK = {"type": "ephemeral", "ttl": "1h"}


def test_keys_without_a_place_are_named_at_any_depth() -> None:
    messages = [
        user(
            [{**text("a"), "foo": 1}, {"type": "image_url", "image_url": {"url": "https://x.org/y", "z": 1}}]
        ),
        assistant(None, {**call("x"), "extra_content": {"a": 1}, "index": 3}),
        assistant(None, {"id": "y", "function": {"name": "f", "arguments": "{}", "x": True}}),
        {**result("x"), "meta": 1},
        result("y", [{**text("done"), "lang": "en"}]),
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}, "title": "F"}, "version": 2}]
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "mood": "good"}, "also": 1}
    found = chat_request(messages, tools=tools, response_format=form)
    assert sorted(found.ignored) == [
        "messages[0].content[0].foo",
        "messages[0].content[1].image_url.z",
        "messages[1].tool_calls[0].extra_content",
        "messages[2].tool_calls[0].function.x",
        "messages[3].meta",
        "messages[4].content[0].lang",
        "response_format.also",
        "response_format.json_schema.mood",
        "tools[0].function.title",
        "tools[0].version",
    ]


def test_cache_marks_of_any_part_are_sent() -> None:
    messages = [
        {"role": "system", "content": [{**text("one"), "cache_control": MARK}]},
        {"role": "system", "content": "two"},
        user([{**text("a"), "cache_control": MARK}]),
        assistant(None, {**call("x"), "cache_control": MARK}),
        result("x", [{**text("done"), "cache_control": MARK}]),
    ]
    params = chat_params(messages, system="own")
    assert params["system"] == [text("own"), {**text("one"), "cache_control": MARK}, text("two")]
    assert str(params["messages"]).count("cache_control") == 3


def test_the_description_of_an_answers_format_is_told() -> None:
    form = {
        "type": "json_schema",
        "json_schema": {"name": "n", "description": "A person.", "schema": {"type": "object"}},
    }
    found = chat_request("x", response_format=form)
    assert found.params["format"]["schema"] == {"type": "object", "description": "A person."}
    assert found.ignored == []


def test_values_that_the_way_changes_are_named() -> None:
    parameters = {
        "type": "object",
        "properties": {"n": {"maximum": 18446744073709551615, "minimum": -(2**70)}},
    }
    found = chat_request(
        "x", tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    )
    path = "tools[0].function.parameters.properties.n"
    assert found.ignored == [f"{path}.maximum", f"{path}.minimum"]
    limits = found.params["tools"][0]["input_schema"]["properties"]["n"]
    assert limits == {"maximum": float(2**64), "minimum": -float(2**70)}
    for bad in ({"a": float("inf")}, {"a": "\ud800"}, {5: 1}):
        with pytest.raises(RpcError) as caught:
            chat_request("x", tools=[{"type": "function", "function": {"name": "f", "parameters": bad}}])
        assert caught.value.data["param"].startswith("tools[0].function.parameters")


def test_tools_in_other_words() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    flat = {"type": "function", "name": "f", "description": "d", "parameters": parameters}
    theirs = {"name": "f", "description": "d", "input_schema": parameters}
    assert chat_params("x", tools=[flat]) == chat_params("x", tools=[theirs])
    assert chat_params("x", tools=[theirs])["tools"] == [theirs]


def image(width: int, height: int = 1) -> Json:
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IHDR" + size).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([image(8000), image(8001)], "messages[0].content[1].image_url.url"),
        ([image(1, 8001)], "messages[0].content[0].image_url.url"),
        ([image(1)] * 20 + [image(2001)], "messages[0].content[20]"),
        ([image(1)] * 601, "messages[0].content[600]"),
        (
            [
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64," + PNG[:10] + "A" * (5 << 20)},
                }
            ],
            "messages[0].content[0].image_url.url",
        ),
    ],
)
def test_images_are_measured_as_the_api_does(parts: list[Json], param: str) -> None:
    with pytest.raises(RpcError) as caught:
        conversation([user(parts)])
    assert caught.value.data == {"param": param}


def test_images_within_the_limits() -> None:
    conversation([user([image(8000)] * 20)])
    conversation([user([image(2000)] * 600)])


def test_the_answers_of_ccd_itself_are_taken_back_without_a_word() -> None:
    said = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "tool_calls": [call("x", json.dumps({}))],
    }
    assert conversation([user("a"), said, result("x")]).ignored == []
