"""The cache of answers over the real stack: two gateway processes, the real CLI, several tenants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import Answer
from fakes.stack import Api, Stack, running_stack

MODEL = "claude-sonnet-4-5"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("cache")
    settings = {
        "CCD_DATA__DIR": str(folder / "data"),
        "CLAUDE_CODE__CACHE__ENABLED": "true",
        "CLAUDE_CODE__CACHE__MAX_ENTRIES": "50",
        "CCD_GATEWAY__REQUIRE_KEYS": "false",
    }
    with running_stack(folder, cli, api, gateway=True, **settings) as stack:
        yield stack


def ask(
    stack: Stack, path: str, body: Any, headers: dict[str, str] | None = None, method: str = "POST"
) -> Answer:
    """On a connection of its own, so that any of the gateway's processes may take it."""
    connection = HTTPConnection(stack.url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


def chat(stack: Stack, text: str, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}
    return ask(stack, "/v1/chat/completions", body, headers)


def stats(stack: Stack) -> dict[str, Any]:
    return dict(ask(stack, "/stats", None, method="GET").json["cache"])


def calls_about(api: Api, text: str) -> int:
    return sum(text in json.dumps(body["messages"]) for body in api.bodies())


def test_the_same_question_is_paid_for_once_whichever_process_is_asked(stack: Stack, api: Api) -> None:
    before = stats(stack)
    answers = [chat(stack, "asked once") for _ in range(12)]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS"] + ["HIT"] * 11
    assert calls_about(api, "asked once") == 1
    assert len({answer.json["choices"][0]["message"]["content"] for answer in answers}) == 1
    assert len({answer.json["id"] for answer in answers}) == 12
    assert len({answer.headers["x-request-id"] for answer in answers}) == 12
    after = [stats(stack) for _ in range(4)]  # the same from every process
    assert all(found == after[0] for found in after)
    assert after[0]["enabled"] is True
    assert after[0]["total_hits"] - before["total_hits"] == 11
    assert after[0]["total_entries"] - before["total_entries"] == 1
    assert stack.status()["cache"]["total_hits"] == after[0]["total_hits"]
    assert "total_hits" in stack.ccd("ctl", "status").stdout


def test_each_answer_belongs_to_a_conversation_of_its_own(stack: Stack, api: Api) -> None:
    """With the older project's settings every chat begins a conversation, from the cache too."""
    first, second = chat(stack, "in talk").json, chat(stack, "in talk")
    assert second.headers["x-cache"] == "HIT"
    name = second.json["conversation_id"]
    assert name != first["conversation_id"] and name == second.headers["x-conversation-id"]
    assert ask(stack, f"/v1/conversations/{name}", None, method="GET").json["message_count"] == 2
    going_on = chat(stack, "and on", conversation_id=name)
    assert going_on.headers["x-cache"] == "MISS"
    said = json.dumps(api.bodies()[-1]["messages"])
    assert "in talk" in said and first["choices"][0]["message"]["content"][:20] in said


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.3},
        {"max_tokens": 77},
        {"seed": 3},
        {"user": "u"},
        {"x_unknown": 1},
        {"model": "claude-haiku-4-5"},
        {"response_format": {"type": "text"}},
        {"n": 2},
    ],
)
def test_another_parameter_is_another_question(stack: Stack, more: dict[str, Any]) -> None:
    text = f"varied {sorted(more)}"
    assert chat(stack, text).headers["x-cache"] == "MISS"
    answer = chat(stack, text, **more)
    assert (answer.status, answer.headers["x-cache"]) == (200, "MISS")
    again = chat(stack, text, **more)
    assert again.headers["x-cache"] == "HIT"
    assert len(again.json["choices"]) == more.get("n", 1)


def test_tenants_do_not_share(stack: Stack, api: Api) -> None:
    keys = Path(stack.settings["CCD_DATA__DIR"]) / "keys.json"
    tokens = [add_key(keys, name=name, tenant=name) for name in ("cache-a", "cache-b")]
    callers = [None, *(bearer(token) for token in tokens)]
    for word in ("MISS", "HIT"):
        assert [chat(stack, "of tenants", caller).headers["x-cache"] for caller in callers] == [word] * 3
    assert calls_about(api, "of tenants") == 3


def test_failures_tools_and_streams_are_not_kept(stack: Stack, api: Api) -> None:
    failing = '[[offline: {"status": 500}]] kept?'
    assert [chat(stack, failing).status for _ in range(2)] == [500, 500]
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    assert [chat(stack, "with tools", tools=[tool]).headers["x-cache"] for _ in range(2)] == ["BYPASS"] * 2
    for _ in range(2):
        assert "x-cache" not in chat(stack, "streamed", stream=True).headers
    assert calls_about(api, "streamed") == 2


def test_a_client_may_do_without(stack: Stack, api: Api) -> None:
    for control, expected in (
        ({}, "MISS"),
        ({"Cache-Control": "no-cache"}, "BYPASS"),
        ({"Cache-Control": "no-store"}, "BYPASS"),
        ({}, "HIT"),
    ):
        assert chat(stack, "fresh please", control).headers["x-cache"] == expected
    assert calls_about(api, "fresh please") == 3


def test_many_who_ask_at_once_ask_once(stack: Stack, api: Api) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: chat(stack, "all at once"), range(8)))
    assert calls_about(api, "all at once") == 1
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["HIT"] * 7 + ["MISS"]


def test_the_other_surfaces(stack: Stack, api: Api) -> None:
    response = {"model": MODEL, "input": "response please"}
    first, second = (ask(stack, "/v1/responses", response) for _ in range(2))
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert first.json["id"] != second.json["id"]
    assert first.json["output"][0]["id"] != second.json["output"][0]["id"]
    stored = ask(stack, f"/v1/responses/{second.json['id']}", None, method="GET")
    assert stored.json["output"] == second.json["output"]
    task = {"prompt": "task please", "options": {"model": MODEL}}
    one, other = (ask(stack, "/api/claude-code", task) for _ in range(2))
    assert (one.headers["x-cache"], other.headers["x-cache"]) == ("MISS", "HIT")
    assert one.json["result"]["output"] == other.json["result"]["output"]
    assert calls_about(api, "response please") == calls_about(api, "task please") == 1
