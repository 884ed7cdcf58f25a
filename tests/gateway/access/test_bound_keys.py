"""A key that is for certain models or profiles: every surface, every way of naming one, and what is listed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import SESSION, Call, Daemon, line, start
from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import Answer, Gateway
from fakes.session_socket import Talk

OPUS = {"id": "claude-opus-5-20260115", "alias": "opus", "display_name": "Opus 5"}
SONNET = {"id": "claude-sonnet-5-20260115", "alias": "sonnet", "display_name": "Sonnet 5"}
PROFILE = {"model": None, "fallback_model": None}
FOUND = {
    "models": [OPUS, SONNET],
    "profiles": ["chat", "agent"],
    "default": OPUS["id"],
    "of_profiles": {"chat": PROFILE, "agent": PROFILE},
}
USER = [{"role": "user", "content": "hi"}]
SCOPES = ("chat", "agent", "tasks")


class Keyed:
    def __init__(self, gateway: Gateway, tokens: dict[str, str]) -> None:
        self.gateway = gateway
        self.tokens = tokens

    def ask(self, key: str, path: str, body: Any = None, **headers: str) -> Answer:
        method = "GET" if body is None else "POST"
        return self.gateway.request(method, path, body, {**bearer(self.tokens[key]), **headers})


@pytest.fixture(scope="module")
def _keyed(_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    tokens = {
        "documented": add_key(path, "documented", models=("claude-*",), scopes=SCOPES),
        "sonnet": add_key(path, "sonnet", models=("sonnet",), scopes=SCOPES),
        "agent": add_key(path, "agent", profiles=("agent",), scopes=SCOPES),
        "open": add_key(path, "open", profiles=("*",), tenant="sonnet", scopes=SCOPES),
    }
    usage = path.with_name("usage.sqlite3")
    mapped = json.dumps({"gpt-9": "opus", "gpt-8": "sonnet"})
    with Gateway(_daemon.path, keys_file=path, usage_file=usage, model_map=mapped) as gateway:
        yield Keyed(gateway, tokens)
    assert gateway.log == gateway.greeting


@pytest.fixture
def keyed(_keyed: Keyed, daemon: Daemon) -> Keyed:
    async def listed(call: Call) -> Any:
        return FOUND

    daemon.scripts["model.list"] = listed
    end = line({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}})
    daemon.chat(start(), end)
    return _keyed


#: Each surface's request for an answer of a model.
SURFACES: dict[str, tuple[str, Any]] = {
    "chat": ("/v1/chat/completions", lambda model: {"model": model, "messages": USER}),
    "chat, streamed": (
        "/v1/chat/completions",
        lambda model: {"model": model, "messages": USER, "stream": True},
    ),
    "messages": ("/v1/messages", lambda model: {"model": model, "messages": USER, "max_tokens": 9}),
    "responses": ("/v1/responses", lambda model: {"model": model, "input": "hi"}),
    "flask": ("/api/claude-code", lambda model: {"prompt": "hi", "options": {"model": model}}),
    "sessions": ("/v1/sessions", lambda model: {"model": model}),
}
MEANT_FOR_OTHERS = ("opus", "claude-opus-5-20260115", "gpt-9", "default", "chat/opus", "agent/sonnet")


def served(daemon: Daemon) -> list[str]:
    return [method for method, _ in daemon.calls if method.startswith(("chat.", "session."))]


@pytest.mark.parametrize("surface", SURFACES)
def test_the_documented_key_answers_by_alias_by_name_and_by_other_vendors_name(
    keyed: Keyed, daemon: Daemon, surface: str
) -> None:
    path, body = SURFACES[surface]
    for model in ("sonnet", "claude-sonnet-5-20260115", "gpt-8", "opus", "default"):
        answer = keyed.ask("documented", path, body(model))
        assert answer.status in (200, 201), (model, answer.body)


@pytest.mark.parametrize("surface", SURFACES)
def test_other_models_are_as_if_they_did_not_exist(keyed: Keyed, daemon: Daemon, surface: str) -> None:
    path, body = SURFACES[surface]
    assert keyed.ask("sonnet", path, body("sonnet")).status in (200, 201)
    daemon.calls.clear()
    for model in MEANT_FOR_OTHERS:
        answer = keyed.ask("sonnet", path, body(model))
        if surface == "flask":
            assert not answer.json["success"] and "may not use it" in answer.json["result"]["error"]
        else:
            assert answer.status == 404, (model, answer.body)
    assert not served(daemon)


def test_headers_and_earlier_answers_do_not_lead_elsewhere(keyed: Keyed, daemon: Daemon) -> None:
    _, chat = SURFACES["chat"]
    first = keyed.ask("open", "/v1/responses", {"model": "opus", "input": "hi"}).json["id"]
    daemon.calls.clear()
    path = "/v1/responses"
    follow = {"model": "opus", "input": "more", "previous_response_id": first}
    assert keyed.ask("sonnet", path, {**follow, "model": "sonnet"}).status == 200
    for more in ({}, {"stream": True}):
        assert keyed.ask("sonnet", path, {**follow, **more}).status == 404
    queued = keyed.ask("sonnet", path, {**follow, "background": True, "stream": True})
    assert b'"code":"model_not_found"' in queued.body and b"response.completed" not in queued.body
    agent = {"X-CCD-Profile": "agent"}
    assert keyed.ask("sonnet", "/v1/chat/completions", chat("sonnet"), **agent).status == 404
    messages = SURFACES["messages"][1]("sonnet")
    assert keyed.ask("sonnet", "/v1/messages", messages, **agent).status == 404
    asked = [params for method, params in daemon.calls if method.startswith("chat.")]
    assert [params["model"] for params in asked] == ["sonnet"]


@pytest.mark.parametrize("version", [{}, {"anthropic-version": "2023-06-01"}])
def test_the_list_is_what_the_key_may_use(keyed: Keyed, version: dict[str, str]) -> None:
    def ids(key: str) -> set[str]:
        path = "/v1/models?limit=1000" if version else "/v1/models"
        return {row["id"] for row in keyed.ask(key, path, **version).json["data"]}

    plain = {OPUS["id"], "opus", SONNET["id"], "sonnet", "gpt-8", "gpt-9"}
    assert ids("documented") == plain
    assert ids("sonnet") == {"sonnet", "gpt-8"}
    assert ids("agent") == {f"agent/{name}" for name in plain - {"gpt-8", "gpt-9"}}
    assert ids("open") == plain | ids("agent")
    for key in keyed.tokens:
        for name in sorted(ids("open")):
            one = keyed.ask(key, f"/v1/models/{name}", **version)
            assert (one.status == 200) is (name in ids(key)), (key, name)
            chat = keyed.ask(key, "/v1/chat/completions", {"model": name, "messages": USER})
            assert (chat.status == 200) is (name in ids(key)), (key, name)


# --- sessions: what is said in them ---


COMMANDS = [
    "/model opus",
    "/model",
    "  /model opus",
    "\n/model opus",
    "\t/config model=opus",
    "/config model=opus",
    "/MODEL opus",
    "/agents",
    "/my-own:command",
    "\ufeff/model opus",
    "\u2003/model opus",
]


def said(text: str) -> list[Any]:
    block = {"type": "text", "text": text}
    hello = {"type": "text", "text": "hello"}
    return [text, [block], [hello, block], [block, hello]]


@pytest.fixture
def followed(daemon: Daemon) -> dict[str, Any]:
    """What a session says of itself; changed by a test before or while it is followed."""
    state = {**SESSION["state"], "model": "sonnet"}  # type: ignore[dict-item]

    async def attach(call: Call) -> Any:
        await call.send(json.dumps({"type": "session_init", "state": state}).encode() + b"\n")
        await call.cancelled.wait()
        raise RpcError(Code.CANCELLED)

    daemon.scripts["session.attach"] = attach
    return state


def talking(keyed: Keyed, key: str) -> Any:
    url = f"ws://127.0.0.1:{keyed.gateway.port}/ws/session/s1"
    return connect(url, additional_headers=bearer(keyed.tokens[key]))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_may_choose_a_model_is_not_passed_on(
    keyed: Keyed, daemon: Daemon, followed: dict[str, Any], command: str
) -> None:
    with talking(keyed, "sonnet") as connection:
        talk = Talk(connection)
        talk.frame()
        for content in said(command):
            talk.say("user_message", content=content)
            assert "certain models" in talk.until("error")["error"]
        for content in ("/compact", "/srv/model opus is a path", "what is /model opus?", "hello"):
            daemon.calls.clear()
            talk.say("user_message", content=content)
            while not served(daemon):
                assert daemon.arrivals.acquire(timeout=20)
        talk.say("set_model", model="opus")
        assert "may not use it" in talk.until("error")["error"]
    with talking(keyed, "open") as connection:
        talk = Talk(connection)
        talk.frame()
        daemon.calls.clear()
        talk.say("user_message", content=command)
        while "session.send" not in served(daemon):
            assert daemon.arrivals.acquire(timeout=20)


def test_a_session_of_the_tenant_that_uses_another_model(
    keyed: Keyed, daemon: Daemon, followed: dict[str, Any]
) -> None:
    followed["model"] = OPUS["id"]
    with talking(keyed, "sonnet") as connection:
        talk = Talk(connection)
        talk.frame()
        talk.say("user_message", content="hello")
        assert "may not use it" in talk.until("error")["error"]
        assert "session.send" not in served(daemon)

        async def changed(call: Call) -> Any:
            return {**SESSION, "state": {**followed, "model": "sonnet"}}

        daemon.scripts["session.set_model"] = changed
        talk.say("set_model", model="sonnet")
        talk.say("user_message", content="hello")
        while "session.send" not in served(daemon):
            assert daemon.arrivals.acquire(timeout=20)


def test_a_turn_that_begins_with_another_model_is_ended(keyed: Keyed, daemon: Daemon) -> None:
    state = {**SESSION["state"], "model": "sonnet"}  # type: ignore[dict-item]

    async def attach(call: Call) -> Any:
        for model in ("sonnet", OPUS["id"]):
            frame = {"type": "session_init", "state": {**state, "model": model}}
            await call.send(json.dumps(frame).encode() + b"\n")
            while "session.send" not in served(daemon):
                await asyncio.sleep(0.01)
        await call.cancelled.wait()
        raise RpcError(Code.CANCELLED)

    daemon.scripts["session.attach"] = attach
    with talking(keyed, "sonnet") as connection:
        talk = Talk(connection)
        talk.frame()
        talk.say("user_message", content="hello")
        assert "may not use the model" in talk.until("error")["error"]
        while "session.interrupt" not in served(daemon):
            assert daemon.arrivals.acquire(timeout=20)


# --- tasks: what runs later is bound when it is submitted ---


def task(**step: Any) -> dict[str, Any]:
    return {"kind": "task", "steps": [{"name": "one", **step}]}


def test_steps_of_tasks_name_no_other_model(keyed: Keyed, daemon: Daemon) -> None:
    for model in ("sonnet", *MEANT_FOR_OTHERS):
        may = model == "sonnet"
        chat = keyed.ask("sonnet", "/v1/tasks", task(chat={"model": model, "messages": USER}))
        agent = keyed.ask("sonnet", "/v1/tasks", task(agent={"model": model}, prompt="hi"))
        assert [chat.status, agent.status] == [503 if may else 404] * 2, (model, chat.body, agent.body)
        assert not may or chat.error["code"] == "worker_unavailable"
    assert keyed.ask("sonnet", "/v1/tasks", task(agent={}, prompt="hi")).status == 404


@pytest.mark.parametrize("command", COMMANDS)
def test_an_agent_of_a_task_is_told_no_command_that_may_choose_a_model(keyed: Keyed, command: str) -> None:
    answer = keyed.ask("sonnet", "/v1/tasks", task(agent={"model": "sonnet"}, prompt=command))
    assert answer.status == 403 and "certain models" in answer.error["message"]


@pytest.mark.parametrize("key", ["models", "tenant", "permisson_mode", "updatedInput"])
def test_an_agent_of_a_task_has_nothing_that_a_session_has_not(keyed: Keyed, key: str) -> None:
    answer = keyed.ask("open", "/v1/tasks", task(agent={"model": "sonnet", key: "x"}, prompt="hi"))
    assert answer.status == 400 and "nothing was done" in answer.error["message"]
