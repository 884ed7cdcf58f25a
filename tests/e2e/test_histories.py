"""What clients send and what the model API says, through the whole path: nothing is changed without a word."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ccd_client import Client
from ccd_protocol.errors import RpcError
from fakes.stack import Api, Stack, running_stack

Json = dict[str, Any]
OLD, NEW = "claude-sonnet-4-5", "sonnet"
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("histories"), cli, api, gateway=True) as stack:
        yield stack


@pytest.fixture
def stack(running: Stack) -> Stack:
    running.settle()
    return running


class Answer(NamedTuple):
    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def events(self) -> list[Json]:
        lines = [line.removeprefix("data: ") for line in self.text.splitlines() if line.startswith("data: {")]
        return [json.loads(line) for line in lines]

    @property
    def ignored(self) -> list[str]:
        return [name for name in (self.headers["x-ccd-ignored"] or "").split(", ") if name]


def post(stack: Stack, surface: str, headers: dict[str, str] | None = None, **body: Any) -> Answer:
    request = urllib.request.Request(
        stack.url + PATHS[surface],
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **(headers or {})},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
            return Answer(response.status, response.headers, response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read().decode())


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def assistant(content: Any, *calls: Json) -> Json:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {})}


def call(call_id: str, arguments: Any = "{}") -> Json:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}


def result(call_id: str, content: Any = "done") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def scripted(prompt: str, **directive: Any) -> str:
    return f"{prompt} [[offline: {json.dumps(directive)}]]"


TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "fg"]
FLAT = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in "fg"]
CUSTOM = [{"name": name, "input_schema": {"type": "object"}} for name in "fg"]


def asked(stack: Stack, surface: str, prompt: str, **more: Any) -> Answer:
    """One question in the words of a surface."""
    model = more.pop("model", OLD)
    if surface == "responses":
        more = {"tools": FLAT, **more} if more.pop("with_tools", False) else more
        return post(stack, surface, model=model, input=prompt, **more)
    tools = CUSTOM if surface == "messages" else TOOLS
    more = {"tools": tools, **more} if more.pop("with_tools", False) else more
    more = {"max_tokens": 2000, **more} if surface == "messages" else more
    return post(stack, surface, model=model, messages=[user(prompt)], **more)


# --- histories ---


HISTORY = [
    assistant("Welcome!"),
    user("a"),
    assistant(""),
    user([]),
    user("b"),
    assistant(None, call("call_0", '{"n": 1'), call("call_0", "[1]")),
    user("hurry"),
    result("call_0", "first"),
    result("call_0", "second"),
    assistant(None, call("call_0")),
    user("so?"),
]
MENDED = [
    user("(The assistant begins.)"),
    assistant("Welcome!"),
    user("a"),
    user("b"),
    assistant(
        [
            {"type": "tool_use", "id": "call_0", "name": "f", "input": {"arguments": '{"n": 1'}},
            {"type": "tool_use", "id": "call_0--2", "name": "f", "input": {"arguments": [1]}},
        ]
    ),
    user(
        [
            {"type": "tool_result", "tool_use_id": "call_0", "content": "first"},
            {"type": "tool_result", "tool_use_id": "call_0--2", "content": "second"},
            {"type": "text", "text": "hurry"},
        ]
    ),
    assistant([{"type": "tool_use", "id": "call_0--3", "name": "f", "input": {}}]),
    user(
        [
            {
                "type": "tool_result",
                "tool_use_id": "call_0--3",
                "content": "(The result of this call is not known.)",
            },
            {"type": "text", "text": "so?"},
        ]
    ),
]


def plain(messages: list[Json]) -> list[Json]:
    """Contents as blocks, without the cache mark of the last one."""
    found = []
    for message in messages:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        bare = [{key: value for key, value in block.items() if key != "cache_control"} for block in blocks]
        found.append({"role": message["role"], "content": bare})
    return found


@pytest.mark.parametrize("surface", ["chat", "responses", "client"])
def test_one_rule_for_all_surfaces(stack: Stack, surface: str) -> None:
    if surface == "client":
        with Client(stack.socket) as client:
            ignored = client.chat(HISTORY, model=OLD, tools=TOOLS).ignored
    else:
        given = (
            {"input": HISTORY, "tools": FLAT}
            if surface == "responses"
            else {"messages": HISTORY, "tools": TOOLS}
        )
        answer = post(stack, surface, model=OLD, **given)
        assert answer.status == 200, answer.text
        ignored = answer.ignored
        strict = post(stack, surface, {"x-ccd-strict": "true"}, model=OLD, **given)
        assert strict.status == 400 and strict.json["error"]["param"] in ignored
    [body] = stack.api.bodies()
    assert plain(body["messages"]) == plain(MENDED)
    root = "input" if surface == "responses" else "messages"
    calls = f"{root}[5].tool_calls" if surface != "responses" else f"{root}[5]"
    assert f"{root}[2].content" in ignored and f"{root}[3].content" in ignored
    assert any(name.startswith(calls) for name in ignored)


def test_calls_over_the_socket_are_mended_too(stack: Stack) -> None:
    """In the wire's own shape, past the clients' library."""
    used = {"type": "tool_use", "id": "t:1", "name": "f", "input": {}}
    messages = [
        {"role": "assistant", "content": "Welcome!"},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [{"type": "text", "text": "so?"}]},
    ]
    tools = [{"name": "f", "input_schema": {"anyOf": [{"required": ["a"]}]}}]
    params = {"model": OLD, "messages": messages, "tools": tools}
    with Client(stack.socket) as client:
        result = client.call("chat.complete", params)
        with pytest.raises(RpcError) as caught:
            client.call("chat.complete", {**params, "strict": True})
    assert result["ignored"] == ["messages[1].content", "messages[2].content[0]", "tools[0].input_schema"]
    assert caught.value.data["param"] == "messages[1].content"
    [body] = stack.api.bodies()
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert plain(body["messages"])[1]["content"][1]["id"] == "t_1"


def test_an_answer_that_was_begun(stack: Stack) -> None:
    messages = [user("q"), assistant("It is ")]
    old = post(stack, "chat", model=OLD, messages=messages)
    new = post(stack, "chat", model=NEW, messages=messages)
    assert (old.status, new.status) == (200, 200)
    first, second = stack.api.bodies()
    assert plain(first["messages"])[-1] == {
        "role": "assistant",
        "content": [{"type": "text", "text": "It is"}],
    }
    assert [message["role"] for message in second["messages"] if message["role"] != "system"][-2:] == [
        "assistant",
        "user",
    ]
    assert new.ignored == ["messages"]
    strict = post(stack, "chat", {"x-ccd-strict": "true"}, model=NEW, messages=messages)
    assert strict.status == 400 and strict.json["error"]["param"] == "messages"


def test_stored_conversations_are_mended_too(stack: Stack) -> None:
    """The client has not seen what was stored, and goes on without the results of a call that it never ran."""
    name = f"histories-{stack.api.newest()}"
    first = asked(
        stack,
        "chat",
        scripted("x", tool_calls=[{"name": "f", "id": "t1"}]),
        with_tools=True,
        conversation_id=name,
    )
    assert first.json["choices"][0]["finish_reason"] == "tool_calls"
    second = asked(stack, "chat", "never mind", conversation_id=name, with_tools=True)
    assert second.status == 200, second.text
    *_, body = stack.api.bodies()
    assert [block["type"] for block in plain(body["messages"])[2]["content"]] == ["tool_result", "text"]


# --- thinking ---


def loop(answer: Answer, *more: Json) -> list[Json]:
    message = answer.json["choices"][0]["message"]
    assert message["tool_calls"], answer.text
    said = {key: message[key] for key in ("role", "content", "tool_calls")}
    return [said, result(message["tool_calls"][0]["id"]), *more]


def test_thinking_goes_back_to_its_own_model_only(stack: Stack) -> None:
    prompt = user(scripted("think", thinking="hm", tool_calls=[{"name": "f"}]))
    first = post(stack, "chat", model=NEW, messages=[prompt], tools=TOOLS, reasoning_effort="high")
    history = [prompt, *loop(first)]
    for model in (NEW, "opus", OLD):
        again = post(stack, "chat", model=model, messages=history, tools=TOOLS, reasoning_effort="high")
        assert again.status == 200, again.text
    bodies = stack.api.bodies()[1:]
    kinds = [[block["type"] for block in plain(body["messages"])[1]["content"]] for body in bodies]
    assert kinds == [["thinking", "tool_use"], ["tool_use"], ["tool_use"]]
    assert [body.get("thinking", {}).get("type") for body in bodies] == ["adaptive", "adaptive", None]


def test_the_fallback_model_answers_and_says_so(stack: Stack) -> None:
    prompt = user(scripted("think", thinking="hm", tool_calls=[{"name": "f", "id": "toolu_fb"}]))
    first = post(stack, "chat", model=OLD, messages=[prompt], tools=TOOLS, reasoning_effort="high")
    stack.api.script({"reply": {"status": 529}, "match": {"model": OLD}, "uses": -1})
    with Client(stack.socket) as client:
        answer = client.chat(
            [prompt, *loop(first, user("so?"))],
            model=OLD,
            tools=TOOLS,
            reasoning_effort="high",
            fallback_model="claude-opus-4-5",
        )
    assert answer.result["fallback"] and answer.model == "claude-opus-4-5"
    *_, body = stack.api.bodies()
    assert body["model"] == "claude-opus-4-5" and '"thinking"' not in json.dumps(body["messages"])


def test_thinking_that_a_client_brings_is_given_back_or_left_out(stack: Stack) -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "bm8="}, {"type": "text", "text": "b"}]
    answer = post(stack, "chat", model=OLD, messages=[user("a"), assistant(blocks), user("c")])
    assert answer.status == 200, answer.text
    assert "messages.thinking" in answer.ignored
    strict = post(
        stack, "chat", {"x-ccd-strict": "true"}, model=OLD, messages=[user("a"), assistant(blocks), user("c")]
    )
    assert strict.status == 400 and "signature" in strict.json["error"]["message"]


def test_who_answers_is_in_the_head(stack: Stack) -> None:
    for surface in PATHS:
        for stream in (False, True):
            answer = asked(stack, surface, "hi", stream=stream)
            assert answer.headers["x-ccd-model"] == OLD, surface


# --- values ---


NUMBERS = '{"a": 9007199254740993, "b": 18446744073709551617, "c": 1.50, "d": 1e22}'


@pytest.mark.parametrize("surface", [*PATHS, "client"])
def test_inputs_of_calls_come_digit_for_digit(stack: Stack, surface: str) -> None:
    prompt = scripted("x", tool_calls=[{"name": "f", "input_json": NUMBERS}, {"name": "g", "input": {}}])
    if surface == "client":
        with Client(stack.socket) as client:
            answer = client.chat(prompt, model=OLD, tools=TOOLS)
        assert [each.arguments for each in answer.tool_calls] == [json.loads(NUMBERS), {}]
        assert answer.message["tool_calls"][0]["function"]["arguments"] == NUMBERS
        return
    found = asked(stack, surface, prompt, with_tools=True)
    if surface == "chat":
        calls = [each["function"]["arguments"] for each in found.json["choices"][0]["message"]["tool_calls"]]
        assert calls == [NUMBERS, "{}"]
    elif surface == "responses":
        assert [item["arguments"] for item in found.json["output"]] == [NUMBERS, "{}"]
    else:
        assert f'"input":{NUMBERS}' in found.text


@pytest.mark.parametrize("odd", [{"whole_inputs": True}, {"interleaved": True}])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("surface", [*PATHS, "client"])
def test_any_api_that_keeps_the_protocol_is_answered_rightly(
    stack: Stack, surface: str, stream: bool, odd: Json
) -> None:
    wanted = [{"x": "a" * 40}, {"y": "b" * 40}]
    calls = [{"name": name, "input": given} for name, given in zip("fg", wanted, strict=True)]
    prompt = scripted("x", text="hello there you", tool_calls=calls, **odd)
    if surface == "client":
        with Client(stack.socket) as client:
            if stream:
                with client.chat(prompt, model=OLD, tools=TOOLS, stream=True) as chat:
                    list(chat)
                answer = chat.answer
            else:
                answer = client.chat(prompt, model=OLD, tools=TOOLS)
        assert (answer.text, [each.arguments for each in answer.tool_calls]) == ("hello there you", wanted)
        return
    found = asked(stack, surface, prompt, with_tools=True, stream=stream)
    assert found.status == 200, found.text
    text, inputs = READ[surface](found, stream)
    assert (text, [json.loads(each) for each in inputs]) == ("hello there you", wanted)


def read_chat(found: Answer, stream: bool) -> tuple[str, list[str]]:
    if not stream:
        message = found.json["choices"][0]["message"]
        return message["content"], [each["function"]["arguments"] for each in message["tool_calls"]]
    text, inputs = "", ["", ""]
    for chunk in found.events:
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
            for piece in choice["delta"].get("tool_calls") or ():
                inputs[piece["index"]] += piece["function"].get("arguments") or ""
    return text, inputs


def read_responses(found: Answer, stream: bool) -> tuple[str, list[str]]:
    response = found.events[-1]["response"] if stream else found.json
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    [message] = [item for item in response["output"] if item["type"] == "message"]
    if stream:
        said: dict[str, str] = {}
        for event in found.events:
            if "delta" in event:
                said[event["item_id"]] = said.get(event["item_id"], "") + event["delta"]
        assert [said[item["id"]] for item in calls] == [item["arguments"] for item in calls]
        assert said[message["id"]] == message["content"][0]["text"]
    return message["content"][0]["text"], [item["arguments"] for item in calls]


def read_messages(found: Answer, stream: bool) -> tuple[str, list[str]]:
    if not stream:
        text, *calls = found.json["content"]
        return text["text"], [json.dumps(block["input"]) for block in calls]
    said, given = ["", "", ""], [{}, {}, {}]
    for event in found.events:
        if event["type"] == "content_block_start":
            given[event["index"]] = event["content_block"].get("input") or {}
        if event["type"] == "content_block_delta":
            said[event["index"]] += event["delta"].get("text") or event["delta"].get("partial_json") or ""
    return said[0], [said[at] or json.dumps(given[at]) for at in (1, 2)]


READ = {"chat": read_chat, "responses": read_responses, "messages": read_messages}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("surface", PATHS)
@pytest.mark.parametrize("said", [{"text": "a b"}, {"tool_calls": [{"name": "f", "input": {"x": 1}}]}])
def test_an_answer_that_breaks_off_in_order_is_no_answer(
    stack: Stack, surface: str, stream: bool, said: Json
) -> None:
    stack.api.script({"reply": {**said, "no_end": True}, "uses": -1})
    found = asked(stack, surface, "hi", with_tools=True, stream=stream)
    assert "broke off" in found.text, found.text
    assert stream or found.status == 502
    stack.settle()


# --- the API's refusals ---


FAILURES = [
    (400, "invalid_request_error", "something is wrong with this", 400),
    (400, "invalid_request_error", "prompt is too long", 400),  # the CLI keeps the figures to itself
    (401, "authentication_error", "invalid x-api-key", 401),
    (402, "billing_error", "Credit balance is too low", 429),
    (403, "permission_error", "Your key may not use this", 403),
    (404, "not_found_error", "model: nope", 404),
    (409, "conflict_error", "busy", 409),
    (413, "request_too_large", "Request exceeds the maximum size", 413),
    (422, "invalid_request_error", "no", 422),
    (429, "rate_limit_error", "This request would exceed your limit", 429),
    (500, "api_error", "Internal server error", 500),
    (502, "api_error", "bad gateway", 502),
    (504, "timeout_error", "timed out", 504),
    (529, "overloaded_error", "Overloaded", 503),
]


@pytest.mark.parametrize(("status", "kind", "text", "openai"), FAILURES)
def test_refusals_keep_their_status_their_type_and_their_words(
    stack: Stack, status: int, kind: str, text: str, openai: int
) -> None:
    stack.api.script({"reply": {"status": status, "error_type": kind, "message": text}, "uses": -1})
    found = asked(stack, "messages", "hi")
    assert (found.status, found.json["error"]["type"]) == (status, kind), found.text
    if status not in (401, 404):  # the CLI has words of its own there
        assert found.json["error"]["message"] == text
    if status < 429 and status not in (401, 404, 409):
        assert len(stack.api.requests()) == 1
    for surface in ("chat", "responses"):
        answer = asked(stack, surface, "hi")
        assert answer.status == openai, answer.text
        assert status in (401, 404) or text in answer.json["error"]["message"]
    stack.settle()


@pytest.mark.parametrize("surface", ["chat", "responses"])
def test_a_refusal_names_the_clients_own_parameter(stack: Stack, surface: str) -> None:
    text = "tools.1.custom.input_schema: JSON schema is invalid"
    stack.api.script({"reply": {"status": 400, "message": text}, "uses": -1})
    error = asked(stack, surface, "hi", with_tools=True).json["error"]
    wanted = "tools[1].function.parameters" if surface == "chat" else "tools[1].parameters"
    assert (error["param"], error["message"]) == (wanted, f"{wanted}: JSON schema is invalid")
    stack.api.reset()
    stack.api.script({"reply": {"status": 400, "message": "messages.1.content.0: no"}, "uses": -1})
    said = [{"role": "system", "content": "s"}, user("a"), assistant("b"), user("c")]
    given = {"input": said} if surface == "responses" else {"messages": said}
    root = next(iter(given))
    assert post(stack, surface, model=OLD, **given).json["error"]["param"].startswith(f"{root}[2]")
    stack.settle()


# --- narrower sizes and kinds ---


def test_users_that_the_api_does_not_take(stack: Stack) -> None:
    for surface in ("chat", "responses"):
        for who in ("ann@example.com", "x" * 300):
            answer = asked(stack, surface, "hi", user=who)
            assert answer.status == 200, answer.text
            assert answer.ignored == ["user"]
    ids = [body["metadata"]["user_id"] for body in stack.api.bodies()]
    assert len(set(ids)) == 2 and all(len(each) == 32 for each in ids)
    with Client(stack.socket) as client, pytest.raises(RpcError):
        client.chat("hi", model=OLD, metadata={"user_id": "ann@example.com"}, strict=True)


def test_a_long_context_beside_a_beta_of_the_clients_own(stack: Stack) -> None:
    answer = post(
        stack,
        "messages",
        {"anthropic-beta": "own-2026-01-01"},
        model=f"{OLD}[1m]",
        max_tokens=500,
        messages=[user("hi")],
    )
    assert answer.status == 200, answer.text
    [request] = stack.api.requests()
    assert set(request["headers"]["anthropic-beta"].split(",")) == {"own-2026-01-01", "context-1m-2025-08-07"}


def test_tools_that_the_api_does_not_take_as_they_are(stack: Stack) -> None:
    odd = {"type": "object", "properties": {"a b": {"type": "string"}}, "oneOf": [{"required": ["a b"]}]}
    tools = [*TOOLS, {"type": "function", "function": {"name": "odd", "parameters": odd}}]
    answer = post(stack, "chat", model=OLD, messages=[user("hi")], tools=tools)
    assert answer.status == 200, answer.text
    assert answer.ignored == ["tools[2].function.parameters"]


def test_whole_numbers_and_empty_stops(stack: Stack) -> None:
    for surface, name in (
        ("chat", "max_tokens"),
        ("responses", "max_output_tokens"),
        ("messages", "max_tokens"),
    ):
        more = {"stop": ""} if surface == "chat" else {}
        answer = asked(stack, surface, "hi", **{name: 1024.0}, **more)
        assert answer.status == 200, answer.text
        assert stack.api.bodies()[-1]["max_tokens"] == 1024


def test_a_response_goes_on_with_the_model_before(stack: Stack) -> None:
    first = asked(stack, "responses", "hi").json
    second = post(stack, "responses", input="again", previous_response_id=first["id"])
    assert second.status == 200 and second.json["model"] == OLD, second.text
    assert post(stack, "responses", input="again").status == 400
