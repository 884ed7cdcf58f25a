"""`session.*` against a daemon over the scripted CLI: order, limits, faults, and that nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ccd_client import Client
from ccd_protocol.errors import Code, RpcError
from fakes.attached import Attached, open_session
from fakes.fault_stack import FaultStack, faulty, footprint, running_faults
from fakes.stack import alive, wait_until

NONE_SPARE = {"CCD_POOL__SPARES": "0"}


@pytest.fixture(scope="module")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultStack]:
    folder = tmp_path_factory.mktemp("sessions")
    (folder / "root" / "project").mkdir(parents=True)
    settings = {
        "CCD_SESSIONS__ROOTS": json.dumps([str(folder / "root")]),
        "CCD_SESSIONS__MAX_PER_TENANT": "3",
    }
    with running_faults(folder, CCD_SESSIONS__MAX_COUNT="4", **settings, **NONE_SPARE) as stack:
        yield stack


@pytest.fixture
def stack(_stack: FaultStack) -> Iterator[FaultStack]:
    """Afterwards no session may be left."""
    _stack.faults()
    yield _stack
    with _stack.client() as client:
        for tenant in ("a", "b", None):
            who = {"tenant": tenant} if tenant else {}
            for info in client.call("session.list", who)["sessions"]:
                client.call("session.close", {"session_id": info["session_id"], **who})
    wait_until(lambda: _stack.status()["sessions"]["running"] == 0, what="the end of all sessions")


@pytest.fixture
def client(stack: FaultStack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


def failure(client: Client, method: str, **params: Any) -> RpcError:
    with pytest.raises(RpcError) as error:
        client.call(f"session.{method}", params)
    return error.value


def text(result: dict[str, Any]) -> str:
    return str(result["result"])


# --- a session ---


def test_a_session_and_what_it_says_of_itself(stack: FaultStack, client: Client) -> None:
    project = str(stack.folder / "root" / "project")
    info = client.call("session.open", {"model": "sonnet", "cwd": "project", "permission_mode": "plan"})
    session_id = info["session_id"]
    assert info["state"]["session_id"] == session_id and info["cli_connected"] is True
    assert (info["state"]["model"], info["state"]["cwd"]) == ("sonnet", project)
    assert (info["connected_clients"], info["pending_permissions"]) == (0, 0)
    with contextlib.closing(Attached(client, session_id)) as session:
        assert session.frame()["type"] == "session_init"
        assert text(session.ask("one")) == "fake: one"
        begun = next(frame for frame in session.frames[1:] if frame["type"] == "session_init")
        assert begun["state"]["cwd"] == project and begun["state"]["permission_mode"] == "plan"
        assert begun["state"]["cli_session_id"]
        kinds = [(frame["type"], frame.get("subtype")) for frame in session.frames]
        assert ("system", "init") not in kinds and not {"control_response", "control_request"} & dict(
            kinds
        ).keys()
        assert text(session.ask("two")) == "fake: two"
    found = client.call("session.get", {"session_id": session_id})
    assert found["state"]["num_turns"] == 1 and found["state"]["total_cost_usd"] > 0
    assert client.call("session.list", {})["sessions"] == [found]
    row = next(row for row in client.workers()["workers"] if row["id"] == session_id)
    assert (row["mode"], row["turns"], row["state"]) == ("session", 2, "held") and alive(row["pid"])
    assert client.call("session.close", {"session_id": session_id}) == {}
    wait_until(lambda: not alive(row["pid"]))
    assert failure(client, "get", session_id=session_id).code is Code.NOT_FOUND


def test_without_cwd_it_has_an_empty_directory_that_goes_with_it(client: Client) -> None:
    session = open_session(client)
    session.ask("where are you?")
    place = Path(client.call("session.get", {"session_id": session.session_id})["state"]["cwd"])
    assert place.is_dir() and not list(place.iterdir()) and place.stat().st_mode & 0o077 == 0o055 & ~0o022
    assert place.parent.stat().st_mode & 0o077 == 0
    session.call("close")
    assert session.ended() == "closed"
    wait_until(lambda: not place.parent.exists())


def test_its_environment_and_arguments_are_enumerated(stack: FaultStack, client: Client) -> None:
    session = open_session(client, model="sonnet", allowed_tools=["Read"], cwd="project")
    row = next(row for row in client.workers()["workers"] if row["id"] == session.session_id)
    entries = Path(f"/proc/{row['pid']}/environ").read_text().split("\0")
    environ = dict(entry.split("=", 1) for entry in entries if entry)
    assert set(environ) <= {
        *("TMPDIR", "CLAUDE_CODE_TMPDIR"),
        *("PATH", "HOME", "LANG", "LC_CTYPE", "PWD", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
        *("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER", "DISABLE_TELEMETRY"),
        *(
            "DISABLE_ERROR_REPORTING",
            "CLAUDE_CODE_MAX_RETRIES",
            "CLAUDE_CONFIG_DIR",
            "CCD_OWNER",
            "CCD_WORKER",
        ),
    }
    assert environ["HOME"] == str(stack.folder / "home")
    assert os.readlink(f"/proc/{row['pid']}/cwd") == str(stack.folder / "root" / "project")
    line = Path(f"/proc/{row['pid']}/cmdline").read_text()
    assert "sonnet" not in line and "dangerously" not in line and "--permission-prompt-tool\0stdio" in line
    session.close()


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"cwd": "/etc"}, "cwd"),
        ({"cwd": "../x"}, "cwd"),
        ({"cwd": "missing"}, "cwd"),
        ({"cwd": 5}, "cwd"),
        ({"permission_mode": "everything"}, "permission_mode"),
        ({"permission_mode": "bypassPermissions"}, "permission_mode"),
        ({"model": "x" * 513}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"allowed_tools": ["x"] * 201}, "allowed_tools"),
        ({"allowed_tools": [""]}, "allowed_tools"),
        ({"allowed_tools": "Read"}, "allowed_tools"),
    ],
)
def test_what_cannot_be_wanted_starts_nothing(
    stack: FaultStack, client: Client, params: dict[str, Any], param: str
) -> None:
    before = len(stack.started())
    error = failure(client, "open", **params)
    assert error.code is Code.BAD_PARAMS and error.data["param"] == param
    assert client.call("session.list", {})["sessions"] == []
    assert len(stack.started()) == before


def test_a_tenant_sees_only_its_own(client: Client) -> None:
    mine = client.call("session.open", {"tenant": "a"})["session_id"]
    known = {"session_id": mine, "tenant": "b"}
    unknown = {"session_id": "x", "tenant": "a"}
    calls: dict[str, dict[str, Any]] = {
        "get": {},
        "close": {},
        "interrupt": {},
        "send": {"content": "hi"},
        "set_model": {"model": "opus"},
        "set_permission_mode": {"mode": "plan"},
        "answer": {"request_id": "x"},
    }
    for method, params in calls.items():
        errors = [failure(client, method, **which, **params) for which in (known, unknown)]
        assert {error.code for error in errors} == {Code.NOT_FOUND} and errors[0].message == errors[1].message
    for which in (known, unknown):
        with pytest.raises(RpcError) as error:
            next(client.call_stream("session.attach", which))
        assert error.value.code is Code.NOT_FOUND
    assert client.call("session.list", {"tenant": "b"})["sessions"] == []
    assert [info["session_id"] for info in client.call("session.list", {"tenant": "a"})["sessions"]] == [mine]


def test_how_many_there_may_be(client: Client) -> None:
    for tenant in ("a", "a", "a", "b"):
        client.call("session.open", {"tenant": tenant})
    own = failure(client, "open", tenant="a")
    assert own.code is Code.BUSY and "max_per_tenant" in own.message and own.retry_after_ms
    everybody = failure(client, "open", tenant="b")
    assert everybody.code is Code.BUSY and "max_count" in everybody.message
    first = client.call("session.list", {"tenant": "a"})["sessions"][0]["session_id"]
    client.call("session.close", {"tenant": "a", "session_id": first})
    wait_until(lambda: client.status()["sessions"]["running"] == 3)
    client.call("session.open", {"tenant": "a"})


# --- what clients do ---


def test_several_clients_and_one_that_comes_later(stack: FaultStack, client: Client) -> None:
    first = open_session(client)
    with stack.client() as other:
        second = Attached(other, first.session_id)
        second.frame()
        assert first.call("get")["connected_clients"] == 2
        assert text(first.ask("hello")) == text(second.until("result"))
        deltas = [frame for frame in second.frames if frame["type"] == "stream_event"]
        assert deltas == [frame for frame in first.frames if frame["type"] == "stream_event"]
        third = Attached(other, first.session_id)
        third.until("result")
        assert [frame["type"] for frame in third.frames] == ["session_init", "assistant", "result"]
        assert third.frames[0]["state"]["cli_session_id"]
        second.close()
        third.close()
        wait_until(lambda: first.call("get")["connected_clients"] == 1)
    first.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"behavior": "allow"}, {"behavior": "allow", "updatedInput": {"command": "touch it"}}),
        (
            {"behavior": "allow", "updated_input": {"command": "ls"}},
            {"behavior": "allow", "updatedInput": {"command": "ls"}},
        ),
        ({"behavior": "deny", "message": "no"}, {"behavior": "deny", "message": "no"}),
        ({}, {"behavior": "deny", "message": "Permission denied by user"}),
    ],
)
def test_permissions(client: Client, answer: dict[str, Any], said: dict[str, Any]) -> None:
    session = open_session(client)
    session.call("send", content=faulty(ask="Bash"))
    asked = session.until("permission_request")
    assert asked["request"]["tool_name"] == "Bash"
    assert session.call("get")["pending_permissions"] == 1
    late = Attached(client, session.session_id)
    assert late.until("permission_request") == asked
    session.call("answer", request_id=asked["request_id"], **answer)
    assert late.until("permission_resolved")["behavior"] == said["behavior"]
    late.close()
    assert text(session.until("result")).startswith(json.dumps(said))
    assert session.call("get")["pending_permissions"] == 0
    again = failure(client, "answer", session_id=session.session_id, request_id=asked["request_id"])
    assert again.code is Code.NOT_FOUND
    session.close()


def test_a_permission_that_the_cli_takes_back(client: Client) -> None:
    session = open_session(client)
    session.call("send", content=faulty(ask="Bash", withdraw=True))
    asked = session.until("permission_request")
    resolved = session.until("permission_resolved")
    assert (resolved["request_id"], resolved["behavior"]) == (asked["request_id"], "cancelled")
    session.until("result")
    session.close()


def test_interrupt(client: Client) -> None:
    session = open_session(client)
    assert session.call("interrupt") == {"interrupted": False}
    session.call("send", content=faulty(hang_turn=True))
    session.until("stream_event")
    assert session.call("interrupt") == {"interrupted": True}
    assert session.until("result")["terminal_reason"] == "aborted_streaming"
    assert text(session.ask("still there?")) == "fake: still there?"
    session.close()


def test_model_and_permission_mode(client: Client) -> None:
    session = open_session(client)
    assert session.call("set_model", model="claude-haiku-4-5")["state"]["model"] == "claude-haiku-4-5"
    assert (
        session.call("set_permission_mode", mode="acceptEdits")["state"]["permission_mode"] == "acceptEdits"
    )
    session.frames.clear()
    session.ask("hello")
    begun = [frame["state"] for frame in session.frames if frame["type"] == "session_init"][-1]
    assert (begun["model"], begun["permission_mode"]) == ("claude-haiku-4-5", "acceptEdits")
    for mode in ("bypassPermissions", "x", ""):
        error = failure(client, "set_permission_mode", session_id=session.session_id, mode=mode)
        assert error.code is Code.BAD_PARAMS
    session.close()


@pytest.mark.parametrize("content", ["", [], None, 5, [{"type": "tool_result"}], [{}], ["text"]])
def test_what_cannot_be_said(client: Client, content: Any) -> None:
    session_id = client.call("session.open", {})["session_id"]
    assert failure(client, "send", session_id=session_id, content=content).code is Code.BAD_PARAMS


def test_blocks_can_be_said(client: Client) -> None:
    session = open_session(client)
    session.call("send", content=[{"type": "text", "text": "hello"}])
    assert text(session.until("result")) == "fake: hello"
    session.close()


def test_messages_wait_for_a_cli_that_starts_but_not_without_end(stack: FaultStack, client: Client) -> None:
    stack.faults(start_ms=1500)
    with stack.client() as other:
        thread = threading.Thread(target=other.call, args=("session.open", {}))
        thread.start()
        infos = wait_until(lambda: client.call("session.list", {})["sessions"])
        session_id = infos[0]["session_id"]
        assert infos[0]["cli_connected"] is False
        for number in range(64):
            client.call("session.send", {"session_id": session_id, "content": f"message {number}"})
        full = failure(client, "send", session_id=session_id, content="one too many")
        assert full.code is Code.BUSY and full.retry_after_ms
        session = Attached(client, session_id)
        assert text(session.until("result")).startswith("fake: message")
        session.close()
        thread.join()


def test_keep_alive_is_swallowed(client: Client) -> None:
    session = open_session(client)
    session.ask(faulty(keep_alive=True))
    assert "keep_alive" not in {frame["type"] for frame in session.frames}
    session.close()


# --- faults ---


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ({"exit": 1}, Code.WORKER_SPAWN, "unknown option '--nonsense'"),
        ({"exit": 0}, Code.WORKER_SPAWN, "unknown option '--nonsense'"),
        ({"control_error": "initialize"}, Code.BAD_PARAMS, "initialize failed"),
        ({"control_error": "set_permission_mode"}, Code.BAD_PARAMS, "set_permission_mode failed"),
    ],
)
def test_a_cli_that_does_not_start(
    stack: FaultStack, client: Client, fault: dict[str, Any], code: Code, words: str
) -> None:
    stack.faults(**fault)
    error = failure(client, "open")
    assert error.code is code and words in error.message
    assert client.call("session.list", {})["sessions"] == []


def test_one_that_never_answers(tmp_path: Path) -> None:
    with running_faults(tmp_path, CCD_DEADLINES__WARM_TIMEOUT_S="0.5", **NONE_SPARE) as stack:
        stack.faults(mute=True)
        with stack.client() as client:
            assert failure(client, "open").code is Code.WORKER_SPAWN
            stack.faults()
            client.call("session.open", {})


@pytest.mark.parametrize("fault", [{"crash": 3}, {"crash": -9}, {"half_line": True}, {"not_json": True}])
def test_a_cli_that_dies(client: Client, fault: dict[str, Any]) -> None:
    session = open_session(client)
    session.ask("before")
    session.call("send", content=faulty(**fault))
    with pytest.raises(RpcError) as error:
        session.ended()
    assert error.value.code is Code.WORKER_CRASHED
    found = client.call("session.get", {"session_id": session.session_id})
    assert (found["cli_connected"], found["pending_permissions"]) == (False, 0)
    assert failure(client, "send", session_id=session.session_id, content="hi").code is Code.CONFLICT
    later = Attached(client, session.session_id)
    with pytest.raises(RpcError) as error:
        later.ended()
    assert error.value.code is Code.WORKER_CRASHED
    assert [frame["type"] for frame in later.frames][:3] == ["session_init", "assistant", "result"]
    client.call("session.close", {"session_id": session.session_id})


def test_a_cli_that_ignores_the_interrupt_is_killed(tmp_path: Path) -> None:
    with running_faults(tmp_path, CCD_DEADLINES__INTERRUPT_GRACE_S="0.3", **NONE_SPARE) as stack:
        with stack.client() as client:
            session = open_session(client)
            session.call("send", content=faulty(deaf=True))
            session.until("stream_event")
            session.call("interrupt")
            with pytest.raises(RpcError) as error:
                session.ended()
            assert error.value.code is Code.WORKER_STUCK


def test_deadlines_of_turns_permissions_and_idle_sessions(tmp_path: Path) -> None:
    limits = {"CCD_SESSIONS__TURN_S": "1", "CCD_SESSIONS__PERMISSION_S": "2", "CCD_SESSIONS__IDLE_S": "1"}
    with running_faults(tmp_path, **limits, **NONE_SPARE) as stack, stack.client() as client:
        asking = open_session(client)
        asking.call("send", content=faulty(ask="Bash"))  # waits longer than a turn may take
        assert asking.until("permission_resolved")["behavior"] == "deny"
        assert "Nobody answered" in text(asking.until("result"))
        asking.close()
        stuck = open_session(client)
        stuck.call("send", content=faulty(hang_turn=True))
        with pytest.raises(RpcError) as error:
            stuck.ended()
        assert error.value.code is Code.WORKER_STUCK and "sessions.turn_s" in error.value.message
        wait_until(lambda: client.status()["sessions"]["running"] == 0, what="the idle session's end")
        assert client.status()["sessions"]["idle"] == 1
        wait_until(lambda: client.call("session.list", {})["sessions"] == [], what="the dead one's end")


def test_a_session_that_grows_is_killed(tmp_path: Path) -> None:
    caps = {"CCD_POOL__RSS_SOFT_BYTES": str(100 << 20), "CCD_POOL__RSS_HARD_BYTES": str(160 << 20)}
    with running_faults(tmp_path, **caps, **NONE_SPARE) as stack, stack.client() as client:
        session = open_session(client)
        session.call("send", content=faulty(grow_mb_s=400))
        with pytest.raises(RpcError) as error:
            session.ended()
        assert error.value.code is Code.WORKER_OOM


def test_a_client_that_does_not_read_is_cut_off_and_the_others_go_on(tmp_path: Path) -> None:
    small = {"CCD_SESSIONS__BACKLOG_BYTES": str(1 << 20), "CCD_SESSIONS__HISTORY_BYTES": "0"}
    with running_faults(tmp_path, **small, **NONE_SPARE) as stack:
        with stack.client() as client, stack.client() as slow_client:
            session = open_session(client)
            slow = slow_client.call_stream(
                "session.attach", {"session_id": session.session_id}, window_bytes=1000
            )
            next(slow)
            for _ in range(3):  # each is about as much as may wait
                assert text(session.ask(faulty(burst=5000))).count(".") == 5000
            with pytest.raises(RpcError) as error:
                for _ in slow:
                    pass
            assert error.value.code is Code.BUSY and error.value.data["reason"] == "slow"
            assert text(session.ask("go on")) == "fake: go on"


def test_a_cli_that_nobody_reads_is_held_back_until_somebody_does(tmp_path: Path) -> None:
    small = {"CCD_SESSIONS__BACKLOG_BYTES": str(1 << 20), "CCD_SESSIONS__HISTORY_BYTES": "0"}
    with running_faults(tmp_path, **small, **NONE_SPARE) as stack, stack.client() as client:
        session = open_session(client)
        assert text(session.ask(faulty(burst=50_000))).count(".") == 50_000  # ten times what may wait
        deltas = [frame for frame in session.frames if frame["type"] == "stream_event"]
        assert len(deltas) >= 50_000


def test_a_caller_that_leaves_while_the_cli_starts_takes_the_session_along(
    stack: FaultStack, client: Client
) -> None:
    stack.faults(start_ms=60_000)
    with stack.client() as leaving:
        with pytest.raises(RpcError) as error:
            leaving.call("session.open", {}, timeout_s=0.5)
        assert error.value.code is Code.DEADLINE
    assert client.call("session.list", {})["sessions"] == []
    wait_until(lambda: client.status()["sessions"]["running"] == 0)


@pytest.mark.parametrize("busy", [False, True])
def test_sessions_end_with_the_daemon(tmp_path: Path, busy: bool) -> None:
    with running_faults(tmp_path, CCD_DEADLINES__SHUTDOWN_S="0.3", **NONE_SPARE) as stack:
        with stack.client() as client:
            session = open_session(client)
            session.ask(faulty(grandchild=True))
            if busy:
                session.call("send", content=faulty(hang_turn=True))
                session.until("stream_event")
            stack.daemon.process.send_signal(signal.SIGTERM)
            assert session.ended() == "ccd is shutting down"
            assert stack.daemon.stop() == 0


def test_one_that_is_being_opened_when_the_daemon_stops_is_refused_like_one_that_comes_later(
    tmp_path: Path,
) -> None:
    with running_faults(tmp_path, CCD_DEADLINES__SHUTDOWN_S="0.3", **NONE_SPARE) as stack:
        stack.faults(start_ms=60_000)
        with stack.client() as client, stack.client() as asking, ThreadPoolExecutor(1) as threads:
            opening = threads.submit(failure, asking, "open")
            wait_until(lambda: client.status()["sessions"]["running"] == 1)
            stack.daemon.process.send_signal(signal.SIGTERM)
            error = opening.result(60)
            assert (error.code, error.message) == (Code.DRAINING, "ccd is shutting down")
            assert error.retry_after_ms == 2000
        assert stack.daemon.stop() == 0


def test_a_killed_daemon_leaves_nothing(tmp_path: Path) -> None:
    with running_faults(tmp_path, **NONE_SPARE) as stack:
        stack.faults(grandchild=True)
        with stack.client() as client:
            session = open_session(client)
            session.call("send", content=faulty(hang_turn=True))
            session.until("stream_event")
            pid = next(row["pid"] for row in client.workers()["workers"] if row["id"] == session.session_id)
            stack.daemon.kill()
            with pytest.raises(RpcError) as error:
                session.ended()
            assert error.value.code is Code.LOST
        wait_until(lambda: not alive(pid), what="the CLI's end with its daemon")
        stack.faults()
        stack.start()  # sweeps what is left: the grandchild
        wait_until(lambda: not stack.processes())
        with stack.client() as client:
            assert client.call("session.list", {})["sessions"] == []


def test_a_stray_of_a_session_ends_with_it(stack: FaultStack, client: Client) -> None:
    stack.faults(grandchild=True)
    session_id = client.call("session.open", {})["session_id"]
    stack.faults()
    pids = wait_until(lambda: [pid for pid in stack.processes() if pid], what="a grandchild")
    assert len(pids) >= 2
    client.call("session.close", {"session_id": session_id})
    wait_until(lambda: not stack.processes(), what="the end of the whole tree")


def test_many_sessions_leave_nothing_in_the_daemon(stack: FaultStack, client: Client) -> None:
    def one(**fault: Any) -> None:
        session = open_session(client, cwd="project")
        session.call("send", content=faulty(**fault))
        with contextlib.suppress(RpcError):
            session.until("result")
        session.call("close")
        wait_until(lambda: client.status()["sessions"]["running"] == 0)

    one()
    before = footprint(stack.daemon.pid)
    for fault in ({}, {"crash": 3}, {"ask": "Bash", "withdraw": True}, {"half_line": True}, {}):
        one(**fault)
    for _ in range(3):
        failure(client, "open", cwd="missing")
    after = wait_until(lambda: (now := footprint(stack.daemon.pid))["fds"] <= before["fds"] and now)
    assert after["children"] == before["children"]


def test_bypass_where_it_is_allowed(tmp_path: Path) -> None:
    allowed = {"CCD_SESSIONS__ALLOW_BYPASS": "true", "CCD_SESSIONS__ENV": '{"IS_SANDBOX": "1"}'}
    with running_faults(tmp_path, **allowed, **NONE_SPARE) as stack, stack.client() as client:
        session = open_session(client, permission_mode="bypassPermissions")
        row = next(row for row in client.workers()["workers"] if row["id"] == session.session_id)
        line = Path(f"/proc/{row['pid']}/cmdline").read_text()
        assert "--allow-dangerously-skip-permissions" in line
        assert session.call("get")["state"]["permission_mode"] == "bypassPermissions"


def test_processes_that_share_a_configuration_start_one_after_the_other(tmp_path: Path) -> None:
    login = {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "x", "CCD_POOL__SPARES": "2"}
    with running_faults(tmp_path, **login) as stack, stack.client() as client, stack.client() as other:
        stack.quiet()
        assert client.status()["login"]["kind"] == "oauth"
        stack.faults(start_ms=700)
        stack.ask("uses up a process, which is replaced")
        sessions = [threading.Thread(target=other.call, args=("session.open", {})) for _ in range(2)]
        for thread in sessions:
            thread.start()
        seen = set()
        while any(thread.is_alive() for thread in sessions):
            rows = [row for row in client.workers()["workers"] if row["state"] in ("spawning", "warming")]
            with_process = [row for row in rows if row["pid"] is not None]
            assert len(with_process) <= 1, rows
            seen |= {row["profile"] for row in with_process}
        assert seen == {"chat", "session"}
        assert len(client.call("session.list", {})["sessions"]) == 2
        wait_until(lambda: client.status()["pool"]["spares"]["chat"] == 2)
