"""Clients of the two older projects against the real stack, with those projects' settings."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from fakes.gateway_process import Answer, events
from fakes.stack import Api, Stack, free_port, running_stack, start

MODEL = "claude-sonnet-4-5"


@contextlib.contextmanager
def compatible(folder: Path, cli: Path, api: Api, **settings: str) -> Iterator[tuple[Stack, str]]:
    """Daemon and gateway with an older project's settings, and the URL that those lead to."""
    with running_stack(folder, cli, api, CCD_DATA__DIR=str(folder / "data"), **settings) as stack:
        gateway = start(["-m", "ccd_cli", "gateway"], stack.environ(), folder / "gateway.log")
        stack.gateway = gateway
        yield stack, gateway.ready_line.rpartition(" ")[2]


def ask(url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    from http.client import HTTPConnection

    connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def rust(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[tuple[Stack, str, int]]:
    port = free_port()
    settings = {
        "CLAUDE_CODE__SERVER__PORT": str(port),
        "CLAUDE_CODE__CLAUDE__MAX_CONCURRENT_SESSIONS": "3",
        "CLAUDE_CODE__PROCESS_POOL__SIZE": "1",
        "CLAUDE_CODE__CONVERSATION__MAX_HISTORY_MESSAGES": "4",
        "CLAUDE_CODE__FILE_ACCESS__ADDITIONAL_DIRS": '["/srv/a"]',
        "CLAUDE_CODE__NO__SUCH_KEY": "1",
    }
    with compatible(tmp_path_factory.mktemp("rust"), cli, api, **settings) as (stack, url):
        yield stack, url, port


def said(body: dict[str, Any]) -> list[str]:
    """The texts of the messages that reached the API."""
    contents = (message["content"] for message in body["messages"])
    return [text if isinstance(text, str) else "".join(b.get("text", "") for b in text) for text in contents]


def test_its_settings_are_in_force_and_in_the_log(rust: tuple[Stack, str, int]) -> None:
    stack, url, port = rust
    assert url == f"http://127.0.0.1:{port}"
    assert stack.status()["settings"]["max_workers"] == 3
    log = stack.daemon.log_text()
    assert "CLAUDE_CODE__CLAUDE__MAX_CONCURRENT_SESSIONS: pool.max_workers = 3" in log
    assert "CLAUDE_CODE__FILE_ACCESS__ADDITIONAL_DIRS: kept for agent profiles, NO EFFECT YET" in log
    assert "CLAUDE_CODE__NO__SUCH_KEY: unknown, ignored" in log
    assert stack.gateway is not None
    assert f"CLAUDE_CODE__SERVER__PORT: gateway.bind = 127.0.0.1:{port}" in stack.gateway.log_text()


def test_openai_client_with_conversations(rust: tuple[Stack, str, int], api: Api) -> None:
    _, url, _ = rust
    with OpenAI(base_url=f"{url}/v1", api_key="not-needed") as client:

        def chat(text: str, **more: Any) -> Any:
            messages: Any = [{"role": "user", "content": text}]
            return client.chat.completions.create(model=MODEL, messages=messages, **more)

        first = chat("first words")
        name = first.conversation_id
        second = chat("second words", extra_body={"conversation_id": name})
        counted = ask(url, "GET", f"/v1/conversations/{name}").json["metadata"]["total_tokens"]
        assert counted == first.usage.total_tokens + second.usage.total_tokens
        assert second.conversation_id == name
        texts = said(api.bodies()[-1])
        assert [texts[0], texts[-1]] == ["first words", "second words"] and len(texts) == 3
        assert first.usage.prompt_tokens > 0

        assert ask(url, "GET", f"/v1/conversations/{name}").json["metadata"]["model"] == MODEL

        # Streamed turns are kept, and names of the client's own are created at first use.
        own = {"conversation_id": "my-session-123"}
        chunks = list(chat("streamed words", stream=True, extra_body=own))
        assert chunks[0].conversation_id == chunks[-1].conversation_id == "my-session-123"
        chat("and on", extra_body=own)
        assert said(api.bodies()[-1])[0] == "streamed words"


def test_conversation_routes(rust: tuple[Stack, str, int]) -> None:
    _, url, _ = rust
    made = ask(url, "POST", "/v1/conversations", {"model": "sonnet"})
    assert made.status == 200
    name = made.json["id"]
    assert ask(url, "GET", f"/v1/conversations/{name}").json == made.json
    body = {"model": MODEL, "conversation_id": name, "messages": [{"role": "user", "content": "hi"}]}
    assert ask(url, "POST", "/v1/chat/completions", body).status == 200
    found = ask(url, "GET", f"/v1/conversations/{name}").json
    assert (found["message_count"], found["metadata"]["turn_count"], found["metadata"]["model"]) == (
        2,
        2,
        "sonnet",
    )
    assert found["updated_at"] > made.json["updated_at"]
    assert name in [one["id"] for one in ask(url, "GET", "/v1/conversations").json["conversations"]]
    assert ask(url, "DELETE", f"/v1/conversations/{name}").status == 200
    assert ask(url, "GET", f"/v1/conversations/{name}").status == 404


def test_history_is_as_long_as_the_setting_says(rust: tuple[Stack, str, int], api: Api) -> None:
    _, url, _ = rust
    for number in range(4):
        content = [{"role": "user", "content": f"turn {number}"}]
        body = {"model": MODEL, "conversation_id": "long", "messages": content}
        assert ask(url, "POST", "/v1/chat/completions", body).status == 200
    assert said(api.bodies()[-1])[0] == "turn 1"
    assert ask(url, "GET", "/v1/conversations/long").json["message_count"] == 4


def test_a_stream_ends_as_every_client_wants(rust: tuple[Stack, str, int]) -> None:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    answer = ask(rust[1], "POST", "/v1/chat/completions", body, {"X-Request-ID": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    *chunks, done = events(answer.body)
    assert done == "[DONE]"
    assert answer.headers["x-conversation-id"] == chunks[0]["conversation_id"]


@pytest.mark.parametrize(("upstream", "status"), [(401, 401), (429, 429), (500, 500)])
def test_a_failure_of_the_cli_is_a_failure(rust: tuple[Stack, str, int], upstream: int, status: int) -> None:
    text = f'[[offline: {{"status": {upstream}}}]]'
    body = {"model": MODEL, "conversation_id": "failing", "messages": [{"role": "user", "content": text}]}
    answer = ask(rust[1], "POST", "/v1/chat/completions", body)
    assert answer.status == status and answer.error["message"]
    assert ask(rust[1], "GET", "/v1/conversations/failing").status == 404  # nothing of it was kept


def test_all_addresses_need_keys(rust: tuple[Stack, str, int], tmp_path: Path) -> None:
    stack = rust[0]
    environ = {**stack.environ(), "CLAUDE_CODE__SERVER__HOST": "0.0.0.0", "CLAUDE_CODE__SERVER__PORT": "0"}
    with pytest.raises(AssertionError, match=r"(?s)exit 2.*insecure-no-auth"):
        start(["-m", "ccd_cli", "gateway"], environ, tmp_path / "refused.log", timeout_s=30)


def test_settings_files_in_the_working_directory(
    tmp_path: Path, cli: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "fast.toml").write_text(f"[server]\nport = {port}\n[process_pool]\nsize = 1\n")
    (tmp_path / ".env").write_text("CLAUDE_CODE__CLAUDE__MAX_CONCURRENT_SESSIONS=2\n")
    monkeypatch.chdir(tmp_path)
    with compatible(tmp_path, cli, api, RUN_MODE="fast") as (stack, url):
        assert url.endswith(f":{port}")
        assert stack.status()["settings"]["max_workers"] == 2


def test_the_flask_project(tmp_path: Path, cli: Path, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "CCD_COMPAT": "flask",
        "API_PORT": str(free_port()),
        "CLAUDE_API_KEY": "sk-flask-key",
        "CCD_GATEWAY__ALLOWED_ROOTS": json.dumps([str(tmp_path / "files")]),
    }
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "notes.txt").write_text("the notes")
    # No login but the one that the older project's variable names.
    whole = Stack.environ
    monkeypatch.setattr(
        Stack, "environ", lambda self: {k: v for k, v in whole(self).items() if k != "ANTHROPIC_API_KEY"}
    )
    with compatible(tmp_path, cli, api, **settings) as (stack, url):
        assert url.endswith(settings["API_PORT"])
        options = {"model": MODEL, "context_file": "notes.txt", "output_file": "out.txt", "temperature": 0.3}
        answer = ask(url, "POST", "/api/claude-code", {"prompt": "what?", "options": options})
        body = answer.json
        assert (answer.status, body["success"]) == (200, True), body
        sent = api.requests()[-1]
        assert "x-api-key" in sent["headers"]  # its value is not recorded; there is no other login
        assert "the notes" in said(sent["body"])[-1] and "what?" in said(sent["body"])[-1]
        assert sent["body"]["temperature"] == 0.3
        assert (tmp_path / "files" / "out.txt").read_text() == body["result"]["output"]
        assert stack.gateway is not None
        assert "sk-flask-key" not in stack.gateway.log_text() + stack.daemon.log_text()
        health = ask(url, "GET", "/health", headers={"Accept": "application/json"}).json
        assert (health["status"], health["claude_code_available"]) == ("healthy", True)
        assert ask(url, "GET", "/version").json["claude_code_version"] in health["version"]
        failed = ask(url, "POST", "/api/claude-code", {"prompt": '[[offline: {"status": 401}]]'})
        assert (failed.status, failed.json["success"], failed.json["result"]["status"]) == (
            200,
            False,
            "error",
        )
