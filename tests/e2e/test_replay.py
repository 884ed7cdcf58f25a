"""Mode `replay` on the wire: one conversation, one process; client tools that wait; what happens when it is gone."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from ccd_client import Client
from ccd_protocol.chat.history import MISSING_RESULT
from ccd_protocol.errors import Code, RpcError
from fakes.stack import Api, Stack, alive, running_stack, wait_until

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = {**SCHEMA, "additionalProperties": False}
TOOLS = [
    {"name": "get_weather", "description": "Weather", "input_schema": SCHEMA},
    {"name": "Bash", "description": "not the CLI's", "input_schema": {"type": "object"}},
]
Messages = list[dict[str, Any]]
numbers = itertools.count()


def off(**fields: Any) -> str:
    return f"[[offline: {json.dumps(fields)}]]"


def calling(*calls: tuple[str, str, dict[str, Any]], text: str = "") -> Messages:
    """A question that is answered with these calls; no two questions are the same."""
    wanted = [{"id": call, "name": name, "input": given} for call, name, given in calls]
    return [{"role": "user", "content": f"go {next(numbers)} {off(text=text, tool_calls=wanted)}"}]


ONE = (("toolu_one", "get_weather", {"city": "Zürich"}),)
TWO = (*ONE, ("toolu_two", "Bash", {"command": "ls"}))


def result(call: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "content": content, **more}


def ask(client: Client, messages: Messages, **params: Any) -> dict[str, Any]:
    return dict(client.call("chat.complete", {"messages": messages, **params}))


def said(answer: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": answer["content"]}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def texts(body: dict[str, Any]) -> list[tuple[str, str]]:
    """What was said in a request, without the CLI's own system messages and cache marks."""
    found = []
    for message in body["messages"]:
        blocks = message["content"]
        if message["role"] != "system":
            text = blocks if isinstance(blocks, str) else "|".join(str(b.get("text", b)) for b in blocks)
            found.append((message["role"], text))
    return found


def results_in(body: dict[str, Any]) -> list[dict[str, Any]]:
    blocks = [message["content"] for message in body["messages"] if message["role"] == "user"][-1]
    return [
        {key: value for key, value in block.items() if key != "cache_control"}
        for block in blocks
        if block["type"] == "tool_result"
    ]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    settings = {"CCD_ENGINE__BODY": "replay", "CCD_POOL__MAX_WORKERS": "6", "CCD_POOL__SPARES": "1"}
    with running_stack(tmp_path_factory.mktemp("replay"), cli, api, gateway=True, **settings) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    stack.settle()
    with Client(stack.socket) as client:
        yield client


@contextmanager
def counted(stack: Stack, **changes: int) -> Iterator[None]:
    """What changes in status within the block, and nothing else does."""
    before = stack.status()["pool"]
    yield
    after = stack.status()["pool"]
    assert {key: after[key] - before[key] for key in ("recognised", "rebuilt")} == {
        "recognised": 0,
        "rebuilt": 0,
        **changes,
    }


def why(stack: Stack) -> dict[str, int]:
    return {row["why"]: row["count"] for row in stack.status()["pool"]["missed"]}


def test_a_conversation_keeps_its_process_and_is_told_the_new_line_alone(
    stack: Stack, client: Client
) -> None:
    messages = [user("first")]
    workers = []
    with counted(stack, recognised=2):
        for number in range(3):
            answer = ask(client, messages, system="be brief", max_tokens=100 + number)
            workers.append(answer["worker"])
            # As OpenAI's clients echo it one time, in parts the other.
            echo = answer["text"] if number else answer["content"]
            messages += [{"role": "assistant", "content": echo}, user(f"more {number}")]
    assert len(set(workers)) == 1
    bodies = stack.api.bodies()
    assert len(bodies) == 3  # one call per turn
    assert texts(bodies[-1]) == [
        ("user", "first"),
        ("assistant", "[ccd offline echo] No model was asked. You said: first"),
        ("user", "more 0"),
        ("assistant", "[ccd offline echo] No model was asked. You said: more 0"),
        ("user", "more 1"),
    ]
    assert [body["max_tokens"] for body in bodies] == [100, 101, 102]
    assert "be brief" in str(bodies[-1]["system"])


def test_what_a_parameter_changed_is_back_in_the_next_turn(stack: Stack, client: Client) -> None:
    answer = ask(client, [user("a")], max_tokens=55, model="claude-opus-5-5", effort="low")
    ask(client, [user("a"), said(answer), user("b")], model="claude-opus-5-5")
    first, second = stack.api.bodies()
    assert (first["max_tokens"], first["output_config"]["effort"]) == (55, "low")
    assert first["thinking"]["type"] == "adaptive"
    assert second["max_tokens"] > 55
    assert "thinking" not in second
    assert second["output_config"] != first["output_config"]


def test_a_branch_is_a_new_conversation_that_is_typed_in(stack: Stack, client: Client) -> None:
    one = ask(client, [user("one")])
    two = ask(client, [user("one"), said(one), user("two")])
    with counted(stack, rebuilt=2):
        edited = ask(client, [user("one"), said(one), user("two, edited")])
        again = ask(client, [user("one"), said(one), user("two")])  # regenerated
    assert len({one["worker"], edited["worker"], again["worker"]}) == 3
    assert texts(stack.api.bodies()[2])[-1] == ("user", "two, edited")
    assert len(texts(stack.api.bodies()[2])) == 3
    with counted(stack, recognised=1):  # the first branch is still there
        ask(client, [user("one"), said(one), user("two"), said(two), user("three")])
    assert why(stack)["branched"] >= 2


@pytest.mark.parametrize("change", [{"system": "y"}, {"tools": TOOLS[:1]}, {"model": "claude-sonnet-4-5"}])
def test_another_system_prompt_tools_or_model_is_another_conversation(
    stack: Stack, client: Client, change: dict[str, Any]
) -> None:
    base: dict[str, Any] = {"system": "x", "tools": TOOLS, "model": "claude-opus-5-5"}
    answer = ask(client, [user("q")], **base)
    before = why(stack).get("changed", 0)
    other = ask(client, [user("q"), said(answer), user("r")], **{**base, **change})
    assert other["worker"] != answer["worker"]
    assert why(stack)["changed"] == before + 1


def test_nobody_elses_conversation_is_gone_on_with(stack: Stack, client: Client) -> None:
    """Neither by its history nor by its name."""
    secret = ask(client, [user("canary-secret")], tenant="a", conversation_id="ours")
    with counted(stack, rebuilt=1):
        stolen = ask(client, [user("canary-secret"), said(secret), user("go on")], tenant="b")
    assert stolen["worker"] != secret["worker"]
    forged = ask(client, [user("what was said before?")], tenant="b", conversation_id="ours")
    assert forged["worker"] != secret["worker"]
    assert "canary" not in json.dumps(stack.api.bodies()[-1])
    with counted(stack, recognised=1):
        ask(client, [user("and?")], tenant="a", conversation_id="ours")
    assert "canary" in json.dumps(stack.api.bodies()[-1])


def test_a_tools_result_goes_to_the_call_that_waits_for_it(stack: Stack, client: Client) -> None:
    messages = calling(*TWO, text="let me see")
    first = ask(client, messages, tools=TOOLS)
    assert first["stop_reason"] == "tool_use"
    assert [block.get("name") for block in first["content"]] == [None, "get_weather", "Bash"]
    assert [row["state"] for row in stack.workers()].count("parked") == stack.status()["pool"]["parked"] == 1
    assert first["cost_usd"] > 0
    assert first["usage"]["output_tokens"] > 0
    messages += [said(first), user([result("toolu_two", "no files"), result("toolu_one", "20 °C")])]
    with counted(stack, recognised=1):
        second = ask(client, messages, tools=TOOLS)
    assert second["worker"] == first["worker"]
    assert second["cost_usd"] > 0
    published, answered = stack.api.bodies()
    assert {tool["name"]: tool["input_schema"] for tool in published["tools"]} == {
        tool["name"]: tool["input_schema"] for tool in TOOLS
    }
    assert {found["tool_use_id"]: found["content"] for found in results_in(answered)} == {
        "toolu_one": [{"type": "text", "text": "20 °C"}],
        "toolu_two": [{"type": "text", "text": "no files"}],
    }
    with counted(stack, recognised=1):
        ask(client, [*messages, said(second), user("thanks")], tools=TOOLS)
    assert len(stack.api.bodies()) == 3


def test_renamed_calls_missing_results_errors_and_images(stack: Stack, client: Client) -> None:
    calls = (*TWO, ("toolu_three", "get_weather", {"city": "Rome"}))
    messages = calling(*calls)
    first = ask(client, messages, tools=TOOLS)
    echo = json.loads(json.dumps(said(first)).replace("toolu_", "call_of_mine_"))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    given = [
        result("call_of_mine_three", [{"type": "text", "text": "a"}, image]),
        result("call_of_mine_one", "no such city", is_error=True),
    ]
    with counted(stack, recognised=1):
        answer = ask(client, [*messages, echo, user(given)], tools=TOOLS)
    assert answer["ignored"] == ["messages[1].content[1]"]  # nobody gave one, and the model is told so
    found = {row["tool_use_id"]: row for row in results_in(stack.api.bodies()[-1])}
    assert found["toolu_three"]["content"] == [{"type": "text", "text": "a"}, image]
    assert found["toolu_one"]["content"] == "no such city"
    assert found["toolu_one"]["is_error"] is True
    assert found["toolu_two"]["content"] == [{"type": "text", "text": MISSING_RESULT}]


@pytest.mark.parametrize(
    "given",
    [
        [result("toolu_one", "20 °C"), {"type": "text", "text": "and hurry"}],
        [result("toolu_one", "word " * 12_000)],
        [result("toolu_one", "")],
    ],
    ids=["words beside it", "too large for the CLI", "empty"],
)
def test_what_a_waiting_call_cannot_be_given_reaches_the_model_as_it_is(
    stack: Stack, client: Client, given: Messages
) -> None:
    messages = calling(*ONE)
    first = ask(client, messages, tools=TOOLS)
    before = why(stack).get("results", 0)
    with counted(stack, rebuilt=1):
        ask(client, [*messages, said(first), user(given)], tools=TOOLS)
    assert why(stack)["results"] == before + 1
    last = [message for message in stack.api.bodies()[-1]["messages"] if message["role"] == "user"][-1]
    marked = [
        {key: value for key, value in block.items() if key != "cache_control"} for block in last["content"]
    ]
    assert marked == given


def test_a_call_of_a_tool_that_is_not_there_costs_no_second_call(stack: Stack, client: Client) -> None:
    slow = off(delta_ms=80, text="a b c", tool_calls=[{"name": "nope", "input": {}, "id": "toolu_x"}])
    messages = [user(slow)]
    first = ask(client, messages, tools=TOOLS)
    assert first["stop_reason"] == "tool_use"
    stack.settle()
    ask(client, [*messages, said(first), user([result("toolu_x", "r")])], tools=TOOLS)
    assert results_in(stack.api.bodies()[-1])[0]["content"] == "r"


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_with_a_schema_comes_by_the_clis_own_tool(stack: Stack, streamed: bool) -> None:
    """To the client it is a text, whose deltas come as they are made."""
    stack.settle()
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": CLOSED, "strict": True}}
    question: Any = [{"role": "user", "content": off(text='{"city": "Z\u00fcrich"}', deltas=3)}]
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="x", max_retries=0) as client:
        if streamed:
            chunks = list(
                client.chat.completions.create(
                    model="sonnet", messages=question, response_format=form, stream=True
                )
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            finish = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1]
        else:
            done = client.chat.completions.create(model="sonnet", messages=question, response_format=form)
            text, finish = done.choices[0].message.content or "", done.choices[0].finish_reason
    assert (json.loads(text), finish) == ({"city": "Zürich"}, "stop")
    (body,) = stack.api.bodies()
    assert [(tool["name"], tool["input_schema"]) for tool in body["tools"]] == [("StructuredOutput", CLOSED)]


BAD: dict[str, Messages] = {
    "a call that nobody made": [user("a"), user([result("toolu_x", "r")])],
    "two results": [
        user("a"),
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "Bash", "input": {}}]},
        user([result("c", "r"), result("c", "s")]),
    ],
    "a call of the user's": [user([{"type": "tool_use", "id": "c", "name": "Bash", "input": {}}])],
}


@pytest.mark.parametrize("name", BAD)
def test_a_history_that_contradicts_itself_is_refused(stack: Stack, client: Client, name: str) -> None:
    with pytest.raises(RpcError) as caught:
        ask(client, BAD[name], tools=TOOLS)
    assert caught.value.code is Code.BAD_PARAMS
    assert stack.api.bodies() == []


def test_results_come_from_another_gateway_process_and_after_a_restart(stack: Stack, client: Client) -> None:
    """Over HTTP, with OpenAI's client, streamed; the process waits in the daemon, whoever asked it."""
    function = {"name": "get_weather", "description": "Weather", "parameters": SCHEMA}
    wanted: dict[str, Any] = {
        "model": "claude-opus-5-5",
        "tools": [{"type": "function", "function": function}],
    }
    messages: Any = calling(*ONE)
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="x", max_retries=0) as first:
        calls: dict[str, str] = {}
        for chunk in first.chat.completions.create(messages=messages, stream=True, **wanted):
            for call in (chunk.choices[0].delta.tool_calls or ()) if chunk.choices else ():
                assert call.function is not None
                calls["id"] = call.id or calls["id"]
                calls["name"] = call.function.name or calls["name"]
                calls["arguments"] = calls.get("arguments", "") + (call.function.arguments or "")
    assert calls["name"] == "get_weather"
    assert json.loads(calls["arguments"]) == {"city": "Zürich"}
    assert stack.gateway is not None
    stack.gateway.stop()
    stack.start_gateway()
    function_call = {"name": calls["name"], "arguments": calls["arguments"]}
    echo = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": calls["id"], "type": "function", "function": function_call}],
    }
    answer = {"role": "tool", "tool_call_id": calls["id"], "content": "20 °C"}
    with (
        counted(stack, recognised=1),
        openai.OpenAI(base_url=f"{stack.url}/v1", api_key="x", max_retries=0) as second,
    ):
        done = second.chat.completions.create(messages=[*messages, echo, answer], **wanted)
    assert "20 °C" in (done.choices[0].message.content or "")
    assert len(stack.api.bodies()) == 2


def test_leaving_ends_the_turn_that_follows_the_results(stack: Stack, client: Client) -> None:
    messages = calling(*ONE)
    first = ask(client, messages, tools=TOOLS)
    pid = next(row["pid"] for row in stack.workers() if row["id"] == first["worker"])
    slow = off(text="a b c d e f g h", deltas=8, delta_ms=200)
    messages += [said(first), user([result("toolu_one", slow)])]
    with client.stream("chat.stream", {"messages": messages, "tools": TOOLS}) as stream:
        next(iter(stream))
    wait_until(lambda: not alive(pid), what="the end of a process that was told to stop")


def test_deleting_a_conversation_ends_its_process_also_when_it_waits_for_results(
    stack: Stack, client: Client
) -> None:
    answers = {
        "rests": ask(client, [user("hello")], conversation_id="rests"),
        "waits": ask(client, calling(*ONE), tools=TOOLS, conversation_id="waits"),
        "other": ask(client, [user("hello")], conversation_id="rests", tenant="somebody else"),
    }
    calls = len(stack.api.bodies())
    for name in ("rests", "waits"):
        client.call("conversation.delete", {"conversation_id": name})
    gone = {answers[name]["worker"] for name in ("rests", "waits")}
    wait_until(lambda: not gone & {row["id"] for row in stack.workers()}, what="the processes' end")
    assert answers["other"]["worker"] in {row["id"] for row in stack.workers()}
    assert len(stack.api.bodies()) == calls


def test_a_deadline_ends_what_waits_and_late_results_are_typed_in(
    tmp_path: Path, cli: Path, api: Api
) -> None:
    settings = {"CCD_ENGINE__BODY": "replay", "CCD_DEADLINES__PARKED_TOOL_S": "0.5", "CCD_POOL__SPARES": "1"}
    with running_stack(tmp_path, cli, api, **settings) as stack, Client(stack.socket) as client:
        messages = calling(*ONE)
        first = ask(client, messages, tools=TOOLS)
        wait_until(lambda: all(row["id"] != first["worker"] for row in stack.workers()), what="the deadline")
        with counted(stack, rebuilt=1):
            second = ask(client, [*messages, said(first), user([result("toolu_one", "late")])], tools=TOOLS)
        assert second["text"].endswith("late")
        assert why(stack) == {"parked_tool_s": 1}
        assert len(api.bodies()) == 2  # what was ended asked nothing more


def test_there_are_never_more_processes_than_allowed(tmp_path: Path, cli: Path, api: Api) -> None:
    """The conversation used longest ago loses its process, one that waits for results goes last, and none is lost."""
    settings = {"CCD_ENGINE__BODY": "replay", "CCD_POOL__SPARES": "1", "CCD_POOL__MAX_WORKERS": "3"}
    with running_stack(tmp_path, cli, api, **settings) as stack, Client(stack.socket) as client:
        most = 0
        done = threading.Event()

        def watch() -> None:
            nonlocal most
            while not done.is_set():
                most = max(most, len(stack.processes()))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            question = calling(*ONE)
            parked = ask(client, question, tools=TOOLS)
            talks = [[user(f"talk {number}")] for number in range(5)]
            for turn in range(2):
                for talk in talks:
                    talk += [said(ask(client, talk)), user(f"turn {turn}")]
        finally:
            done.set()
            watching.join()
        assert most <= 3
        for talk in talks:
            assert texts(api.bodies()[-1])[0][1].startswith("talk")
            assert len(talk) == 5
        assert why(stack)["evicted"] >= 3
        given = user([result("toolu_one", "20 °C")])
        with counted(stack, recognised=1):
            ask(client, [*question, said(parked), given], tools=TOOLS)
