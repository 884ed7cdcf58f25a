"""Sessions with everything real: REST, WebSocket, gateway, daemon, and the CLI with its own tools."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fakes.offline_api import directive
from fakes.session_socket import Talk, ask, opened, socket_url, using
from fakes.stack import ROOT, Api, Stack, alive, running_stack, wait_until

MODEL = "claude-haiku-4-5"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("agents")
    (folder / "projects").mkdir()
    settings = {
        "CCD_DATA__DIR": str(folder / "data"),
        "CCD_POOL__SPARES": "0",
        "CCD_SESSIONS__ROOTS": json.dumps([str(folder / "projects")]),
        "CCD_GATEWAY__ALLOW_AGENT_WITHOUT_KEY": "true",
    }
    with running_stack(folder, cli, api, gateway=True, **settings) as stack:
        yield stack


@pytest.fixture
def project(stack: Stack, tmp_path: Path) -> Path:
    folder = stack.folder / "projects" / tmp_path.name
    folder.mkdir()
    return folder


@pytest.fixture
def session(stack: Stack, project: Path) -> Iterator[str]:
    session_id = opened(stack.url, model=MODEL, cwd=str(project))
    yield session_id
    ask(stack.url, "DELETE", f"/v1/sessions/{session_id}")
    wait_until(lambda: stack.status()["sessions"]["running"] == 0)


def info(stack: Stack, session_id: str) -> Any:
    return ask(stack.url, "GET", f"/v1/sessions/{session_id}").json


def row(stack: Stack, session_id: str) -> dict[str, Any]:
    return next(row for row in stack.workers() if row["id"] == session_id)


def test_a_turn_with_a_tool_that_is_allowed(stack: Stack, session: str, project: Path) -> None:
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        assert talk.frame()["type"] == "session_init"
        talk.say("user_message", content=using("Bash", command="touch made", description="make"))
        asked = talk.until("permission_request")
        assert asked["request"]["subtype"] == "can_use_tool" and asked["request"]["tool_name"] == "Bash"
        assert asked["request"]["input"]["command"] == "touch made" and not list(project.iterdir())
        assert info(stack, session)["pending_permissions"] == 1
        talk.say("permission_response", request_id=asked["request_id"], behavior="allow")
        result = talk.until("result")
        assert result["subtype"] == "success" and not result["is_error"]
    assert [file.name for file in project.iterdir()] == ["made"]
    kinds = {frame["type"] for frame in talk.frames}
    assert {"session_init", "assistant", "stream_event", "user", "result", "permission_resolved"} <= kinds
    assert not kinds & {"control_request", "control_response", "keep_alive"}
    found = wait_until(lambda: (now := info(stack, session)) and not now["connected_clients"] and now)
    state = found["state"]
    assert state["cli_session_id"] and state["model"] == MODEL and state["cwd"] == str(project)
    assert "Bash" in state["tools"] and state["permission_mode"] == "default" and state["mcp_servers"] == []
    assert state["claude_code_version"].startswith("2.") and state["num_turns"] == 2
    assert state["total_cost_usd"] == pytest.approx(result["total_cost_usd"])
    assert (found["cli_connected"], found["pending_permissions"]) == (True, 0)
    assert set(found) == {
        *("session_id", "state", "connected_clients", "cli_connected", "pending_permissions"),
    }


def test_another_input_and_a_denial(stack: Stack, session: str, project: Path) -> None:
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        talk.say("user_message", content=using("Bash", command="touch first", description="make"))
        asked = talk.until("permission_request")
        other = {"command": "touch second", "description": "make"}
        talk.say("permission_response", request_id=asked["request_id"], behavior="allow", updated_input=other)
        talk.until("result")
        assert [file.name for file in project.iterdir()] == ["second"]
        talk.say("user_message", content=using("Bash", command="touch third", description="make"))
        asked = talk.until("permission_request")
        talk.say("permission_response", request_id=asked["request_id"], behavior="deny", message="not now")
        denied = talk.until("user")
        assert denied["message"]["content"][0]["is_error"] and "not now" in str(denied)
        assert talk.until("result")["permission_denials"]
        assert [file.name for file in project.iterdir()] == ["second"]
        talk.say("permission_response", request_id=asked["request_id"], behavior="allow")
        assert "answered before" in talk.until("error")["error"]


def test_tools_that_are_allowed_beforehand(stack: Stack, project: Path) -> None:
    session = opened(stack.url, model=MODEL, cwd=str(project), allowed_tools=["Bash(touch:*)"])
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        talk.ask(using("Bash", command="touch made", description="make"))
        assert (project / "made").exists()
        assert "permission_request" not in {frame["type"] for frame in talk.frames}
        assert ask(stack.url, "DELETE", f"/v1/sessions/{session}").json == {
            "deleted": True,
            "session_id": session,
        }
        assert talk.closed() == (1000, "the session has ended: closed")
    assert ask(stack.url, "GET", f"/v1/sessions/{session}").status == 404


def test_interrupt_while_the_model_speaks_and_while_it_waits(stack: Stack, session: str) -> None:
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        talk.say("user_message", content=directive(deltas=1000, delta_ms=50))
        talk.until("stream_event")
        talk.say("interrupt")
        assert talk.until("result")["terminal_reason"] == "aborted_streaming"
        talk.say("user_message", content=using("Bash", command="touch x", description="make"))
        asked = talk.until("permission_request")
        talk.say("interrupt")
        assert talk.until("permission_resolved")["request_id"] == asked["request_id"]
        assert talk.until("result")["is_error"]
        assert "Hello" in talk.ask("Hello")["result"]


def test_model_and_permission_mode(stack: Stack, session: str, api: Api, project: Path) -> None:
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        talk.ask("one")
        talk.say("set_model", model="claude-sonnet-4-5")
        talk.ask("two")
        assert [body["model"] for body in api.bodies() if body.get("stream")][-1] == "claude-sonnet-4-5"
        assert info(stack, session)["state"]["model"] == "claude-sonnet-4-5"
        talk.say("set_permission_mode", mode="acceptEdits")
        talk.ask(using("Write", file_path=str(project / "made"), content="x"))
        assert (project / "made").read_text() == "x"
        assert info(stack, session)["state"]["permission_mode"] == "acceptEdits"
        talk.say("set_permission_mode", mode="bypassPermissions")
        assert "sessions.allow_bypass" in talk.until("error")["error"]


def test_two_clients_and_a_third_that_comes_later(stack: Stack, session: str) -> None:
    with (
        connect(socket_url(stack.url, session)) as one,
        connect(socket_url(stack.url, session)) as two,
    ):
        first, second = Talk(one), Talk(two)
        second.frame()
        first.say("user_message", content=using("Bash", command="touch made", description="make"))
        asked = second.until("permission_request")
        with connect(socket_url(stack.url, session)) as three:
            third = Talk(three)
            assert third.until("permission_request") == asked
            assert info(stack, session)["connected_clients"] == 3
            third.say("permission_response", request_id=asked["request_id"], behavior="allow")
            assert first.until("result") == second.until("result") == third.until("result")
    with connect(socket_url(stack.url, session)) as connection:
        again = Talk(connection)
        last = again.until("result")
        assert last == first.frames[-1]
        said = [frame for frame in first.frames if frame["type"] in ("assistant", "result")]
        assert again.frames[1:] == said


def test_messages_while_a_turn_runs_begin_the_next_one(stack: Stack, session: str) -> None:
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        talk.say("user_message", content=directive(deltas=40, delta_ms=25))
        talk.until("stream_event")
        talk.say("user_message", content="and then")
        talk.until("result")
        assert "and then" in talk.until("result")["result"]


def test_a_cli_that_dies(stack: Stack, session: str) -> None:
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        talk.ask("before")
        os.kill(row(stack, session)["pid"], signal.SIGKILL)
        assert "SIGKILL" in talk.until("error")["error"]
        assert talk.closed()[0] == 1011
    assert info(stack, session)["cli_connected"] is False
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        talk.until("result")
        assert "has ended" in talk.until("error")["error"]
        assert talk.closed()[0] == 1011


def test_a_session_lives_on_when_the_gateway_is_restarted(stack: Stack, session: str) -> None:
    assert stack.gateway is not None
    pid = row(stack, session)["pid"]
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        talk.ask("one")
        talk.say("user_message", content=directive(deltas=60, delta_ms=25))
        talk.until("stream_event")
        stack.gateway.process.send_signal(signal.SIGTERM)
        assert talk.closed() == (1012, "the gateway restarts")
        stack.gateway.stop()
    stack.start_gateway()
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        results = [talk.until("result"), talk.until("result")]
        assert results[1]["result"].startswith("w1 w2 ") and results[1]["result"].endswith(" w60")
        assert "three" in talk.ask("three")["result"]
    assert alive(pid) and row(stack, session)["pid"] == pid


def test_who_may_not_come(stack: Stack, session: str) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        with connect(socket_url(stack.url, session), origin="http://evil.example"):  # type: ignore[arg-type]
            pass
    response = refusal.value.response
    assert response.status_code == 403 and "Origin" in json.loads(bytes(response.body or b""))["error"]
    assert response.headers["x-request-id"]
    with pytest.raises(InvalidStatus) as refusal:
        with connect(socket_url(stack.url, session).replace("/session/", "/cli/")):
            pass
    assert "nothing can dial in" in json.loads(bytes(refusal.value.response.body or b""))["error"]
    with connect(socket_url(stack.url, "unknown")) as connection:
        talk = Talk(connection)
        unknown = {"type": "error", "error": "Session not found", "session_id": "unknown"}
        assert talk.frame() == unknown and talk.closed()[0] == 1008


def test_directories(stack: Stack, project: Path) -> None:
    (project / "link").symlink_to("/etc")
    for cwd in ("/etc", "/", f"{project}/link", f"{project}/..", f"{project}/missing", "", "\0"):
        answer = ask(stack.url, "POST", "/v1/sessions", {"cwd": cwd})
        assert answer.status == 400 and answer.json["error"].startswith("cwd: "), (cwd, answer)
    assert ask(stack.url, "GET", "/v1/sessions").json == {"sessions": []}


def test_keys_scopes_and_tenants(tmp_path: Path, cli: Path, api: Api) -> None:
    settings = {"CCD_DATA__DIR": str(tmp_path / "data"), "CCD_POOL__SPARES": "0"}
    with running_stack(tmp_path, cli, api, gateway=True, **settings) as stack:
        without = ask(stack.url, "POST", "/v1/sessions", {})
        assert without.status == 403 and "allow_agent_without_key" in without.json["error"]

        def made(name: str, *options: str) -> dict[str, str]:
            ended = stack.ccd("ctl", "keys", "create", name, *options)
            assert ended.returncode == 0, ended.stderr
            return {"Authorization": f"Bearer {ended.stdout.strip()}"}

        mine, others = made("mine", "--scope", "agent"), made("others", "--scope", "agent")
        chat = made("chat")
        poor = made("poor", "--scope", "agent", "--tenant", "mine", "--usd-per-day", "0.000001")
        wait_until(lambda: ask(stack.url, "GET", "/v1/sessions").status == 401, what="the keys to be seen")
        statuses = [ask(stack.url, "GET", "/v1/sessions", None, key).status for key in (mine, others, chat)]
        assert statuses == [200, 200, 403]
        session = opened(stack.url, mine, model=MODEL)
        assert len(ask(stack.url, "GET", "/v1/sessions", None, mine).json["sessions"]) == 1
        assert ask(stack.url, "GET", "/v1/sessions", None, others).json == {"sessions": []}
        for method in ("GET", "DELETE"):
            foreign = ask(stack.url, method, f"/v1/sessions/{session}", None, others)
            assert foreign.json == {"error": f"Session not found: {session}"} and foreign.status == 404
        with connect(socket_url(stack.url, session), additional_headers=others) as connection:
            assert Talk(connection).frame()["error"] == "Session not found"
        for headers, status in (({}, 401), (chat, 403)):
            with pytest.raises(InvalidStatus) as refusal:
                with connect(socket_url(stack.url, session), additional_headers=headers):
                    pass
            assert refusal.value.response.status_code == status
        offered = ["ccd.v1", f"ccd.key.{mine['Authorization'].removeprefix('Bearer ')}"]
        with connect(socket_url(stack.url, session), subprotocols=offered) as connection:  # type: ignore[arg-type]
            assert connection.subprotocol == "ccd.v1"
            talk = Talk(connection)
            assert talk.frame()["type"] == "session_init"
            cost = talk.ask("hello")["total_cost_usd"]
            left = talk.connection
            talk.say("user_message", content=directive(deltas=20, delta_ms=25))
            talk.until("stream_event")
            left.close()  # the turn goes on, and is booked all the same

        def booked() -> dict[str, Any]:
            rows = json.loads(stack.ccd("ctl", "usage", "--json").stdout)
            return {row["key"]: row for row in rows}

        bill = wait_until(lambda: (rows := booked()) and rows.get("mine", {}).get("requests") == 2 and rows)
        assert bill["mine"]["cost_usd"] > cost > 0 and set(bill) == {"mine"}
        with connect(socket_url(stack.url, session), additional_headers=poor) as connection:
            talk = Talk(connection)
            talk.until("result")
            talk.until("result")
            talk.ask("once")
            talk.say("user_message", content="twice")
            assert "budget" in talk.until("error")["error"]


def test_memory_and_processes_of_a_session_end_with_it(stack: Stack, session: str, project: Path) -> None:
    with connect(socket_url(stack.url, session)) as connection:
        talk = Talk(connection)
        command = "setsid sh -c 'sleep 1000' > /dev/null 2>&1 & echo $! > pid"
        talk.say("user_message", content=using("Bash", command=command, description="leave one"))
        asked = talk.until("permission_request")
        talk.say("permission_response", request_id=asked["request_id"], behavior="allow")
        talk.until("result")
    pid = int((project / "pid").read_text())
    cli_pid = row(stack, session)["pid"]
    assert alive(cli_pid)
    ask(stack.url, "DELETE", f"/v1/sessions/{session}")
    wait_until(lambda: not alive(cli_pid) and not alive(pid), what="the end of its whole tree")


def test_the_example_in_the_documentation(stack: Stack, api: Api) -> None:
    text = (ROOT / "docs" / "sessions.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    program = program.replace("http://127.0.0.1:8080", stack.url).replace('"haiku"', f'"{MODEL}"')
    program = program.replace("Bearer ccd_...", "Bearer not-needed")
    calls = [{"name": "Write", "input": {"file_path": "hello.txt", "content": "Hello"}}]
    made = {"thinking": "hm", "tool_calls": calls}
    api.script({"reply": made, "match": {"contains": "Make a file"}}, {"reply": {"text": "Made."}})
    ended = subprocess.run(
        [sys.executable, "-c", program], env=stack.environ(), capture_output=True, text=True, timeout=90
    )
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout.splitlines()
    assert said[0].startswith("allowed: Write") and said[1] == "Made." and "'deleted': True" in said[2]
