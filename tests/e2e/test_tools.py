"""Client tools through the whole path: names and schemas unchanged, nothing executed, loops that complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ccd_client import Client
from ccd_client.events import TextDelta, ToolCall, ToolCallDelta, ToolCallStarted
from ccd_protocol.errors import Code, RpcError
from fakes.stack import Api, Stack, running_stack

SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Weather",
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/City"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"City": {"type": "string"}},
}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather", "parameters": SCHEMA},
}
BASH = {
    "type": "function",
    "function": {
        "name": "Bash",
        "description": "not the CLI's",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
    },
}
PING = {"type": "function", "function": {"name": "ping"}}
PNG = "iVBORw0KGgo="
CALLS = [
    {"name": "get_weather", "input": {"city": "Zürich"}, "id": "toolu_one"},
    {"name": "get_weather", "input": {"city": "Rome"}, "id": "toolu_two"},
    {"name": "ping", "input": {}, "id": "toolu_three"},
]
WANTED = [
    ToolCall("toolu_one", "get_weather", {"city": "Zürich"}),
    ToolCall("toolu_two", "get_weather", {"city": "Rome"}),
    ToolCall("toolu_three", "ping", {}),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("tools"), cli, api, gateway=True) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    stack.settle()
    with Client(stack.socket) as client:
        yield client


@pytest.fixture
def http(stack: Stack) -> Iterator[openai.OpenAI]:
    stack.api.reset()
    url = f"{stack.url}/v1"
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0, _strict_response_validation=True) as http:
        yield http


def said(prompt: str, /, **directive: Any) -> dict[str, Any]:
    content = f"{prompt} [[offline: {json.dumps(directive)}]]" if directive else prompt
    return {"role": "user", "content": content}


def test_the_api_receives_names_and_schemas_unchanged(stack: Stack, client: Client) -> None:
    client.chat("hello", tools=[WEATHER, BASH, PING])
    (body,) = stack.api.bodies()
    assert body["tools"] == [
        {"name": "get_weather", "description": "Weather", "input_schema": SCHEMA},
        {"name": "Bash", "description": "not the CLI's", "input_schema": BASH["function"]["parameters"]},  # type: ignore[index]
        {"name": "ping", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("options", "choice"),
    [
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "ping"}}},
            {"type": "tool", "name": "ping"},
        ),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
    ],
)
def test_the_choice_reaches_the_api(stack: Stack, client: Client, options: Any, choice: Any) -> None:
    question = [said("x", tool_calls=CALLS)]
    answer = client.chat(question, tools=[WEATHER, PING], **options)
    (body,) = stack.api.bodies()
    assert body["tool_choice"] == choice
    names = [call.name for call in answer.tool_calls]
    assert (
        names
        == {
            "none": [],
            "auto": ["get_weather"]
            if choice.get("disable_parallel_tool_use")
            else ["get_weather", "get_weather", "ping"],
            "any": ["get_weather", "get_weather", "ping"],
            "tool": ["ping"],
        }[choice["type"]]
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_with_parallel_calls(stack: Stack, client: Client, stream: bool) -> None:
    """Calls, their results (a text, an image, an error, nothing) and the next answer: one API call each."""
    history: list[dict[str, Any]] = [said("weather?", text="Let me see.", tool_calls=CALLS, deltas=3)]
    if stream:
        chat = client.chat(history, stream=True, tools=[WEATHER, PING])
        events = list(chat)
        answer = chat.answer
        started = [event for event in events if isinstance(event, ToolCallStarted)]
        assert started == [ToolCallStarted(n, call.id, call.name) for n, call in enumerate(WANTED)]
        for number, call in enumerate(WANTED):
            pieces = [e.arguments for e in events if isinstance(e, ToolCallDelta) and e.number == number]
            assert json.loads("".join(pieces)) == call.arguments
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == answer.text == "Let me see."
    else:
        answer = client.chat(history, tools=[WEATHER, PING])
    assert (answer.stop_reason, answer.tool_calls) == ("tool_use", WANTED)
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    history += [
        answer.message,
        {"role": "tool", "tool_call_id": "toolu_two", "content": [{"type": "text", "text": "map"}, image]},
        {"role": "tool", "tool_call_id": "toolu_one", "content": "no such city", "is_error": True},
        {"role": "tool", "tool_call_id": "toolu_three", "content": ""},
        said("so?"),
    ]
    last = client.chat(history, tools=[WEATHER, PING])
    assert last.stop_reason == "end_turn"
    assert last.result["api_calls"] == 1
    _, body = stack.api.bodies()
    assistant, results = body["messages"][1:]
    assert [block["type"] for block in assistant["content"]] == ["text", "tool_use", "tool_use", "tool_use"]
    assert [block.get("input") for block in assistant["content"][1:]] == [call.arguments for call in WANTED]
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    assert results["content"] == [
        {
            "type": "tool_result",
            "tool_use_id": "toolu_two",
            "content": [{"type": "text", "text": "map"}, {"type": "image", "source": source}],
        },
        {"type": "tool_result", "tool_use_id": "toolu_one", "content": "no such city", "is_error": True},
        {"type": "tool_result", "tool_use_id": "toolu_three"},
        {"type": "text", "text": "so?"},
    ]


def test_a_tool_named_like_the_clis_own_is_never_run_by_it(stack: Stack, client: Client) -> None:
    trace = stack.folder / "executed"
    command = {"name": "Bash", "input": {"command": f"touch {trace}"}, "id": "toolu_b"}
    answer = client.chat([said("x", tool_calls=[command])], tools=[BASH])
    assert answer.tool_calls == [ToolCall("toolu_b", "Bash", {"command": f"touch {trace}"})]
    client.chat("next")
    assert not trace.exists()
    assert len(stack.api.bodies()) == 2


def test_missing_and_unknown_results_cost_no_call(stack: Stack, client: Client) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "ping", "arguments": ""}}
    asked = [said("x"), {"role": "assistant", "tool_calls": [call]}]
    for history, param in (
        ([*asked, said("y")], "messages[1].tool_calls[0]"),  # not strict it would get a placeholder
        ([*asked, {"role": "tool", "tool_call_id": "b", "content": "z"}], "messages[2].tool_call_id"),
    ):
        with pytest.raises(RpcError) as caught:
            client.chat(history, tools=[PING], strict=True)
        assert (caught.value.code, caught.value.data["param"]) == (Code.BAD_PARAMS, param)
    assert stack.api.bodies() == []


def test_thinking_of_a_tool_turn_is_sent_back(stack: Stack, client: Client) -> None:
    """OpenAI clients do not echo it, and the API wants it before the calls that it led to."""
    options: dict[str, Any] = {"tools": [PING], "effort": "high", "model": "sonnet"}
    history = [said("x", thinking="let me think", tool_calls=[CALLS[2]])]
    answer = client.chat(history, **options)
    assert answer.thinking == "let me think"
    history += [answer.message, {"role": "tool", "tool_call_id": "toolu_three", "content": "pong"}]
    client.chat(history, **options)
    _, body = stack.api.bodies()
    assert [block["type"] for block in body["messages"][1]["content"]] == ["thinking", "tool_use"]
    assert body["messages"][1]["content"][0]["thinking"] == "let me think"


def test_openai_sdk_loop(stack: Stack, http: openai.OpenAI) -> None:
    messages: list[Any] = [said("weather?", tool_calls=CALLS)]
    first = http.chat.completions.create(model="sonnet", messages=messages, tools=[WEATHER, PING])  # type: ignore[list-item]
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls = choice.message.tool_calls or []
    assert [(c.id, c.function.name, json.loads(c.function.arguments)) for c in calls] == WANTED  # type: ignore[union-attr]
    messages.append(choice.message)
    messages += [
        {"role": "tool", "tool_call_id": call.id, "content": f"result of {call.id}"} for call in calls
    ]
    second = http.chat.completions.create(model="sonnet", messages=messages, tools=[WEATHER, PING])  # type: ignore[list-item]
    assert second.choices[0].finish_reason == "stop"
    assert "result of toolu_one" in (second.choices[0].message.content or "")
    _, body = stack.api.bodies()
    assert [block["tool_use_id"] for block in body["messages"][-1]["content"]] == [call.id for call in calls]


def test_openai_sdk_streams_calls(http: openai.OpenAI) -> None:
    question: list[Any] = [said("weather?", text="Let me see.", tool_calls=CALLS)]
    tools: Any = [WEATHER, PING]
    chunks = list(http.chat.completions.create(model="sonnet", messages=question, tools=tools, stream=True))
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    fragments = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    for number, wanted in enumerate(WANTED):
        mine = [fragment for fragment in fragments if fragment.index == number]
        assert mine[0].function is not None
        assert (mine[0].id, mine[0].type, mine[0].function.name, mine[0].function.arguments) == (
            wanted.id,
            "function",
            wanted.name,
            "",
        )
        assert all((f.id, f.type, f.function and f.function.name) == (None, None, None) for f in mine[1:])
        assert json.loads("".join(f.function.arguments or "" for f in mine if f.function)) == wanted.arguments


def test_openai_sdk_stream_helper(http: openai.OpenAI) -> None:
    question: list[Any] = [said("weather?", text="Let me see.", tool_calls=CALLS)]
    tool: Any = openai.pydantic_function_tool
    from pydantic import BaseModel, Field

    class GetWeather(BaseModel):
        city: str = Field(min_length=1)

    call = [{"name": "GetWeather", "input": {"city": "Rome"}}]
    question = [said("weather?", text="Let me see.", tool_calls=call)]
    with http.chat.completions.stream(
        model="claude-sonnet-4-5", messages=question, tools=[tool(GetWeather)]
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {
        "tool_calls.function.arguments.delta",
        "tool_calls.function.arguments.done",
        "content.done",
    } <= kinds
    calls = final.choices[0].message.tool_calls or []
    assert [call.function.parsed_arguments for call in calls] == [GetWeather(city="Rome")]


def test_legacy_functions(stack: Stack, http: openai.OpenAI) -> None:
    question: list[Any] = [said("weather?", tool_calls=CALLS)]
    functions: Any = [WEATHER["function"], PING["function"]]
    answer = http.chat.completions.create(model="sonnet", messages=question, functions=functions)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "function_call"
    assert message.function_call is not None
    assert json.loads(message.function_call.arguments) == {"city": "Zürich"}
    question += [message, {"role": "function", "name": "get_weather", "content": "rain"}]
    again = http.chat.completions.create(model="sonnet", messages=question, functions=functions)
    assert "rain" in (again.choices[0].message.content or "")
    chunks = list(
        http.chat.completions.create(model="sonnet", messages=question[:1], functions=functions, stream=True)
    )
    assert chunks[-1].choices[0].finish_reason == "function_call"
    pieces = [chunk.choices[0].delta.function_call for chunk in chunks]
    assert json.loads("".join(p.arguments or "" for p in pieces if p)) == {"city": "Zürich"}
