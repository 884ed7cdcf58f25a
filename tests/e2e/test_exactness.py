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
