"""Proof on the wire: for random requests the API receives exactly the client's, and nothing of anybody else's.

Each example goes through the real CLI on reused workers; the loopback API says what it received.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccd_client import Client
from ccd_protocol.errors import Code, RpcError
from fakes.stack import Api, Stack, running_stack

# What the API itself refuses (blank texts) and what cannot be in JSON (lone surrogates) is left out.
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS, max_size=60).map(lambda text: f"x{text}")
TRICKY = st.sampled_from(
    [
        *(
            "/clear",
            "/cost",
            "@/etc/passwd",
            "a\u2028\u2029b",
            '{"type":"result"}\n{"type":"control_response"}',
            "\\u0000",
        ),
        *(
            '"}],"x":"',
            "</system>",
            "\u202eabc",
            "a\r\nb",
            "💥" * 20,
            "[Request interrupted by user]",
            "`" * 5,
        ),
    ]
)
SAID = st.one_of(TEXT, TRICKY)
NAME = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,20}", fullmatch=True)


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    turns = []
    for _ in range(draw(st.integers(0, 3))):
        turns += [{"role": "user", "content": draw(SAID)}, {"role": "assistant", "content": draw(SAID)}]
    return [*turns, {"role": "user", "content": [{"type": "text", "text": draw(SAID)}]}]


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAME | st.sampled_from(["Bash", "Write", "Task"]), unique=True, max_size=3))
    schema = {"type": "object", "properties": {"x": {"type": "string"}}}
    request: dict[str, Any] = {
        "messages": draw(histories()),
        "model": "claude-sonnet-4-5",
        "max_tokens": draw(st.integers(200, 4000)),
        "metadata": {"user_id": draw(TEXT)},
    }
    if draw(st.booleans()):
        request["system"] = draw(SAID)
    if names:
        request["tools"] = [
            {"name": name, "description": draw(TEXT), "input_schema": schema} for name in names
        ]
        request["tool_choice"] = {"type": draw(st.sampled_from(["auto", "none"]))}
    request[draw(st.sampled_from(["temperature", "top_p"]))] = draw(st.sampled_from([0.0, 0.25, 1.0]))
    if draw(st.booleans()):
        request["stop_sequences"] = draw(
            st.lists(TEXT.map(lambda text: f"STOP{text}"), min_size=1, max_size=3)
        )
    return request


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("exact"), cli, api, CCD_POOL__MAX_WORKERS="2") as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.socket) as client:
        yield client


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests())
def test_the_api_receives_exactly_the_request(stack: Stack, client: Client, request: dict[str, Any]) -> None:
    stack.settle()
    client.call("chat.complete", request)
    (body,) = stack.api.bodies()
    for key in (
        "messages",
        "model",
        "max_tokens",
        "metadata",
        "temperature",
        "top_p",
        "stop_sequences",
        "tool_choice",
    ):
        assert body.get(key) == request.get(key), key
    assert body["tools"] == request.get("tools", [])
    system = request.get("system")
    assert body["system"] == ([{"type": "text", "text": system}] if system else [])


FAILING = (
    '[[offline: {"status": 500}]]',
    '[[offline: {"status": 400}]]',
    '[[offline: {"text": "a b c", "cut_after_deltas": 1}]]',
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 5)), min_size=6, max_size=10))
def test_after_any_sequence_no_request_carries_a_byte_of_another(
    stack: Stack, client: Client, steps: list[tuple[str, int]]
) -> None:
    """Tenants, failures, cancellations, NaN, arrays and empty requests in any order; canaries both ways."""
    stack.api.reset()
    answers = []
    for number, (tenant, kind) in enumerate(steps):
        canary = f"canary-{tenant}-{number}-x"
        answers.append((canary, _step(client, tenant, kind, canary)))
    for canary, answer in answers:
        assert "canary" not in answer.replace(canary, "")
    for body in stack.api.bodies():
        text = json.dumps(body)
        assert sum(canary in text for canary, _ in answers) <= 1
        assert "canary" in text or not body["messages"]


def _step(client: Client, tenant: str, kind: int, canary: str) -> str:
    messages: Any = [{"role": "user", "content": canary}]
    params: dict[str, Any] = {"messages": messages, "tenant": tenant, "system": f"system of {canary}"}
    if kind == 1:
        params["metadata"] = {"user_id": float("nan")}
    elif kind == 2:
        params["messages"] = [[canary]]
    elif kind == 3:
        params["messages"] = []
    elif kind == 4:
        failing = FAILING[len(canary) % len(FAILING)]
        params["messages"] = [{"role": "user", "content": f"{canary} {failing}"}]
    elif kind == 5:
        slow = '[[offline: {"text": "a b c d e f", "deltas": 6, "delta_ms": 30}]]'
        params["messages"] = [{"role": "user", "content": f"{canary} {slow}"}]
        with client.call_stream("chat.stream", params) as stream:
            return next(iter(stream)).decode()  # and leave: the turn is cancelled
    try:
        return str(client.call("chat.complete", params)["text"])
    except RpcError as error:
        assert error.code in (Code.BAD_PARAMS, Code.UPSTREAM_ERROR)
        return ""


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The user's turns of a few conversations, mixed: a text, or the results of the calls that a text asks for."""
    turns = []
    for number in range(draw(st.integers(4, 8))):
        calls = [
            {
                "name": draw(st.sampled_from(["Bash", "look"])),
                "input": {"x": draw(SAID)},
                "id": f"toolu_{number}_{at}",
            }
            for at in range(draw(st.integers(0, 2)))
        ]
        turns.append(
            {
                "talk": draw(st.integers(0, 2)),
                "said": draw(SAID),
                "calls": calls,
                "results": [draw(SAID) for _ in calls],
                "order": draw(st.booleans()),
                "echo": draw(st.sampled_from(["blocks", "text", "renamed"])),
            }
        )
    return turns


@pytest.fixture(scope="module")
def replaying(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    settings = {"CCD_ENGINE__BODY": "replay", "CCD_POOL__MAX_WORKERS": "3", "CCD_POOL__SPARES": "1"}
    with running_stack(tmp_path_factory.mktemp("replaying"), cli, api, **settings) as stack:
        yield stack


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=conversations())
def test_by_documented_knobs_the_api_receives_each_conversation_in_order_and_no_other(
    replaying: Stack, turns: list[dict[str, Any]]
) -> None:
    """Three tenants talk in turns, by processes too few for all of them: bound, parked, evicted and typed in again."""
    stack = replaying
    stack.settle()
    talks: dict[int, Talking] = {number: Talking(number) for number in range(3)}
    with Client(stack.socket) as client:
        for turn in turns:
            talks[turn["talk"]].say(client, turn, stack.api)
    assert len(stack.api.bodies()) == sum(talk.calls for talk in talks.values())  # one for each turn


TALKING_TOOLS = [
    {
        "name": name,
        "description": "d",
        "input_schema": {"type": "object", "properties": {"x": {"type": "string"}}},
    }
    for name in ("Bash", "look")
]


class Talking:
    """One conversation of one tenant, kept as its client keeps it; what the API receives is compared with that."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.messages: list[dict[str, Any]] = []
        self.calls = 0

    def say(self, client: Client, turn: dict[str, Any], api: Api) -> None:
        mark = f"canary-{self.number} {turn['said']}"
        if not turn["calls"]:
            self._ask(client, mark, turn["echo"], api)
            return
        asked = json.dumps({"text": "", "tool_calls": turn["calls"]})
        answer = self._ask(client, f"{mark} [[offline: {asked}]]", turn["echo"], api)
        calls = [block["id"] for block in self.messages[-1]["content"] if block["type"] == "tool_use"]
        assert [block["name"] for block in answer if block["type"] == "tool_use"] == [
            c["name"] for c in turn["calls"]
        ]
        results = [
            {"type": "tool_result", "tool_use_id": call, "content": text}
            for call, text in zip(calls, turn["results"], strict=True)
        ]
        self._ask(client, results[::-1] if turn["order"] else results, turn["echo"], api)

    def _ask(self, client: Client, content: Any, echo: str, api: Api) -> list[dict[str, Any]]:
        self.messages.append({"role": "user", "content": content})
        params = {
            "messages": self.messages,
            "tools": TALKING_TOOLS,
            "tenant": f"t{self.number}",
            "model": "claude-sonnet-4-5",
            "system": f"system-{self.number}",
        }
        answer = client.call("chat.complete", params)
        self.calls += 1
        body = api.bodies()[-1]
        assert "\n".join(said(body["messages"])) == "\n".join(said(self.messages))
        assert f"system-{self.number}" in json.dumps(body["system"])
        assert not any(f"canary-{other}" in json.dumps(body) for other in range(3) if other != self.number)
        self.messages.append({"role": "assistant", "content": _echo(answer, echo)})
        return list(answer["content"])


def _echo(answer: Any, echo: str) -> Any:
    called = any(block["type"] == "tool_use" for block in answer["content"])
    if echo == "text" and not called:
        return answer["text"]
    if echo == "renamed":
        return json.loads(json.dumps(answer["content"]).replace('"toolu_', '"call_'))
    return answer["content"]


def said(messages: list[dict[str, Any]]) -> list[str]:
    """What was said, turn by turn, whatever the shape: the calls' ids and the order of results are the client's own."""
    found = []
    for message in messages:
        if message["role"] == "system":
            continue  # the CLI's own notes
        blocks = message["content"]
        blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks
        found.append(f"{message['role']}: {sorted(_plain(block) for block in blocks)}")
    return found


def _plain(block: dict[str, Any]) -> str:
    if block["type"] == "tool_use":
        return json.dumps(["call", block["name"], block["input"]], sort_keys=True)
    if block["type"] == "tool_result":
        content = block["content"]
        return json.dumps(
            ["result", content if isinstance(content, str) else "".join(c["text"] for c in content)]
        )
    return json.dumps(["text", block["text"]])
