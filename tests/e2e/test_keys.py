"""Keys with everything real: the command, two gateway workers, the daemon, the CLI."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from fakes.gateway_keys import bearer
from fakes.session_socket import Talk, opened, socket_url, using
from fakes.session_socket import ask as socket_ask
from fakes.stack import Api, Stack, running_stack, wait_until


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("keyed")
    with running_stack(folder, cli, api, gateway=True, CCD_DATA__DIR=str(folder / "data")) as running:
        yield running


def ask(stack: Stack, token: str | None, **fields: Any) -> tuple[int, Any]:
    body = {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "hello"}], **fields}
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"{stack.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def made(stack: Stack, *arguments: str) -> str:
    ended = stack.ccd("ctl", "keys", "create", *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_from_the_first_key_to_the_bill(stack: Stack) -> None:
    assert ask(stack, None)[0] == 200
    first, second = made(stack, "first", "--usd-per-day", "5"), made(stack, "second", "--tenant", "team")
    assert [ask(stack, token)[0] for token in (first, second)] == [200, 200]
    status, text = ask(stack, first, stream=True, stream_options={"include_usage": True})
    assert status == 200 and text.rstrip().endswith("data: [DONE]")
    assert "first" in {row["tenant"] for row in stack.workers()}

    rows = json.loads(stack.ccd("ctl", "usage", "--json").stdout)
    assert {(row["key"], row["tenant"]) for row in rows} == {("first", "first"), ("second", "team")}
    assert sum(row["requests"] for row in rows if row["key"] == "first") == 2, rows
    for row in rows:
        assert (
            row["model"].startswith("claude-haiku-4-5") and row["output_tokens"] > 0 and row["cost_usd"] > 0
        )

    assert stack.ccd("ctl", "keys", "revoke", "second").returncode == 0
    wait_until(lambda: ask(stack, second)[0] == 401, what="the revocation to be seen")
    assert ask(stack, first)[0] == 200


def test_a_budget_that_is_used_up(stack: Stack) -> None:
    token = made(stack, "poor", "--usd-per-day", "0.000001")
    assert [ask(stack, token)[0] for _ in range(5)] == [200, 429, 429, 429, 429]
    assert json.loads(ask(stack, token)[1])["error"]["code"] == "insufficient_quota"


def test_a_gateway_for_other_machines_does_not_start_without_a_key(stack: Stack, tmp_path: Path) -> None:
    stack.settings["CCD_GATEWAY__KEYS_FILE"] = str(tmp_path / "none.json")
    try:
        refused = stack.ccd("gateway", "--bind", "0.0.0.0:0")
        assert refused.returncode == 2 and "ccd ctl keys create" in refused.stderr
    finally:
        del stack.settings["CCD_GATEWAY__KEYS_FILE"]


def test_the_documented_key_is_asked_for_by_the_names_that_clients_use(stack: Stack) -> None:
    token = made(stack, "documented", "--model", "claude-*")
    assert [ask(stack, token, model=name)[0] for name in ("haiku", "claude-haiku-4-5", "default")] == [
        200
    ] * 3
    narrow = made(stack, "narrow", "--model", "haiku")
    assert [ask(stack, narrow, model=name)[0] for name in ("haiku", "opus", "default", "chat/opus")] == [
        *(200, 404, 404, 404)
    ]


def test_a_session_does_not_lead_to_another_model(stack: Stack) -> None:
    key = bearer(made(stack, "agent", "--model", "claude-haiku-*", "--scope", "agent"))
    before = stack.api.newest()
    session = opened(stack.url, key, model="haiku")
    try:
        with connect(socket_url(stack.url, session), additional_headers=key) as connection:
            talk = Talk(connection)
            for command in ("/model opus", "/config model=opus"):
                talk.say("user_message", content=command)
                assert "certain models" in talk.until("error")["error"]
            assert not talk.ask("hello")["is_error"]
            given = {"description": "x", "prompt": "say hi", "subagent_type": "general-purpose"}
            talk.ask(using("Agent", **given, model="opus"))  # asked for by the model, or by who prompts it
            talk.until("result")  # of the turn that the subagent's end begins
        asked = {entry["body"]["model"] for entry in stack.api.requests(before)}
        assert len(asked) == 1 and all(model.startswith("claude-haiku-") for model in asked)
    finally:
        ended = socket_ask(stack.url, "DELETE", f"/v1/sessions/{session}", headers=key)
    assert ended.status == 200
