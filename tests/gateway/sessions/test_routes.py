"""`/v1/sessions` of a real gateway in front of a scripted daemon: what is asked of it, and what becomes of failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import SESSION, Daemon
from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import Gateway

MODELS = '{"gpt-*": "sonnet"}'


@pytest.fixture(scope="module")
def agents(_daemon: Daemon) -> Iterator[Gateway]:
    with Gateway(
        _daemon.path, allow_agent_without_key="true", model_map=MODELS, reconnect_wait_s=0
    ) as running:
        yield running
    assert running.log == running.greeting


def failing(daemon: Daemon, method: str, code: Code, message: str = "why", **data: Any) -> None:
    async def fail(call: object) -> None:
        raise RpcError(code, message, data)

    daemon.scripts[method] = fail


def test_open(agents: Gateway, daemon: Daemon) -> None:
    wanted = {"model": "gpt-5", "cwd": "/srv/a", "permission_mode": "plan", "allowed_tools": ["Read"]}
    answer = agents.request("POST", "/v1/sessions", {**wanted, "id": 1, "timestamp": 2})
    assert (answer.status, answer.json) == (201, {"session_id": "s1", "ws_url": "/ws/session/s1"})
    assert "x-ccd-ignored" not in answer.headers and answer.headers["x-request-id"]
    assert daemon.calls == [("session.open", {**wanted, "model": "sonnet", "tenant": "local"})]


@pytest.mark.parametrize("key", ["further", "tenant", "permissionMode", "allowedTools", "session_id", ""])
def test_a_key_that_is_not_known_opens_nothing(agents: Gateway, daemon: Daemon, key: str) -> None:
    answer = agents.request("POST", "/v1/sessions", {"model": "haiku", key: "plan"})
    assert answer.status == 400 and "nothing was done" in answer.json["error"]
    assert daemon.calls == []


@pytest.mark.parametrize("body", [b"", b"{}", b'{"model":null,"cwd":null}'])
def test_nothing_need_be_wanted(agents: Gateway, daemon: Daemon, body: bytes) -> None:
    assert agents.request("POST", "/v1/sessions", body).status == 201
    nothing = dict.fromkeys(("model", "cwd", "permission_mode", "allowed_tools"))
    assert daemon.calls == [("session.open", {**nothing, "tenant": "local"})]


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b"null", b'{"model":5}', b'{"cwd":[]}', b'{"allowed_tools":"x"}', b'{"allowed_tools":[5]}'],
)
def test_what_cannot_be_wanted(agents: Gateway, daemon: Daemon, body: bytes) -> None:
    answer = agents.request("POST", "/v1/sessions", body)
    assert answer.status == 400 and isinstance(answer.json["error"], str) and set(answer.json) == {"error"}
    assert daemon.calls == []


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        (Code.WORKER_SPAWN, 500, "Failed to launch CLI: why"),
        (Code.BAD_PARAMS, 400, "why"),
        (Code.BUSY, 429, "why"),
        (Code.DRAINING, 503, "why"),
        (Code.FORBIDDEN, 403, "why"),
        (Code.INTERNAL, 500, "why"),
    ],
)
def test_failures_have_a_text_and_no_more(
    agents: Gateway, daemon: Daemon, code: Code, status: int, text: str
) -> None:
    failing(daemon, "session.open", code)
    answer = agents.request("POST", "/v1/sessions", {})
    assert (answer.status, answer.json) == (status, {"error": text})
    assert ("retry-after" in answer.headers) is (code in (Code.BUSY, Code.DRAINING))


def test_list_get_and_end(agents: Gateway, daemon: Daemon) -> None:
    assert agents.request("GET", "/v1/sessions").json == {"sessions": [SESSION]}
    assert agents.request("GET", "/v1/sessions/s1").json == SESSION
    assert agents.request("DELETE", "/v1/sessions/s1").json == {"deleted": True, "session_id": "s1"}
    one = {"tenant": "local", "session_id": "s1"}
    assert daemon.calls == [
        ("session.list", {"tenant": "local"}),
        ("session.get", one),
        ("session.close", one),
    ]


def test_a_conversation_is_ended_where_there_is_no_such_session(agents: Gateway, daemon: Daemon) -> None:
    failing(daemon, "session.close", Code.NOT_FOUND)
    assert agents.request("DELETE", "/v1/sessions/mine").json == {"deleted": True, "session_id": "mine"}
    assert daemon.calls[-1] == ("conversation.delete", {"tenant": "local", "conversation_id": "mine"})
    failing(daemon, "conversation.delete", Code.NOT_FOUND)
    failing(daemon, "session.get", Code.NOT_FOUND)
    for method in ("GET", "DELETE"):
        answer = agents.request(method, "/v1/sessions/mine")
        assert (answer.status, answer.json) == (404, {"error": "Session not found: mine"})


def test_the_frameworks_own_refusals_have_that_form_too(agents: Gateway, daemon: Daemon) -> None:
    answers = {
        ("PATCH", "/v1/sessions"): 405,
        ("POST", "/v1/sessions/x"): 405,
        ("GET", "/ws/session/x"): 426,
        ("GET", "/ws/cli/x"): 404,
        ("GET", "/ws/other"): 404,
    }
    for (method, path), status in answers.items():
        answer = agents.request(method, path)
        assert answer.status == status and list(answer.json) == ["error"], (method, path, answer)
        assert isinstance(answer.json["error"], str)


def test_without_a_key_and_without_the_setting(gateway: Gateway, daemon: Daemon) -> None:
    for method, path in (("POST", "/v1/sessions"), ("GET", "/v1/sessions"), ("GET", "/v1/sessions/s1")):
        answer = gateway.request(method, path, {} if method == "POST" else None)
        assert answer.status == 403 and "allow_agent_without_key" in answer.json["error"]
    assert daemon.calls == []
    assert gateway.request("DELETE", "/v1/sessions/mine").status == 200
    assert [method for method, _ in daemon.calls] == ["conversation.delete"]


def test_scopes_and_models_of_keys(daemon: Daemon, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    chat = bearer(add_key(keys, "chat"))
    agent = bearer(add_key(keys, "agent", scopes=("agent",), models=("sonnet",)))
    settings = {"keys_file": keys, "usage_file": tmp_path / "usage.sqlite3"}
    with Gateway(daemon.path, allow_agent_without_key="true", **settings) as gateway:
        assert gateway.request("GET", "/v1/sessions").status == 401
        assert gateway.request("GET", "/v1/sessions", None, chat).status == 403
        assert gateway.request("DELETE", "/v1/sessions/mine", None, chat).status == 200
        assert daemon.calls.pop() == ("conversation.delete", {"tenant": "chat", "conversation_id": "mine"})
        assert gateway.request("POST", "/v1/sessions", {"model": "sonnet"}, agent).status == 201
        assert daemon.calls.pop()[1]["tenant"] == "agent"
        for wanted in ({}, {"model": "opus"}):
            refused = gateway.request("POST", "/v1/sessions", wanted, agent)
            assert refused.status == 404 and "may not use it" in refused.json["error"]
        failing(daemon, "session.close", Code.NOT_FOUND)
        daemon.calls.clear()
        assert gateway.request("DELETE", "/v1/sessions/mine", None, agent).status == 404
        assert [method for method, _ in daemon.calls] == ["session.close"]
    assert gateway.log == gateway.greeting
