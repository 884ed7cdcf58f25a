"""`/ws/session/{id}` of a real gateway in front of a scripted daemon: what passes, in which order, and how it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ccd_gateway.access.keyfile import changing
from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import SESSION, Call, Daemon, Gate
from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import Gateway
from fakes.session_socket import Talk

INIT = {"type": "session_init", "session_id": "s1", "state": SESSION["state"]}


@pytest.fixture(scope="module")
def agents(_daemon: Daemon) -> Iterator[Gateway]:
    with Gateway(_daemon.path, allow_agent_without_key="true", max_streams=2, reconnect_wait_s=0) as running:
        yield running
    assert running.log == running.greeting


def where(gateway: Gateway, session_id: str = "s1") -> str:
    return f"ws://127.0.0.1:{gateway.port}/ws/session/{session_id}"


def line(**fields: Any) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def following(daemon: Daemon, *payloads: bytes, reason: str = "", error: RpcError | None = None) -> Gate:
    """Attached clients are sent these payloads; the gate opens the end."""
    gate = Gate()

    async def attach(call: Call) -> Any:
        await call.send(line(**INIT))
        for payload in payloads:
            await call.send(payload)
        if not reason and error is None:
            await call.cancelled.wait()
            raise RpcError(Code.CANCELLED)
        await gate.passed()
        if error is not None:
            raise error
        return {"reason": reason}

    daemon.scripts["session.attach"] = attach
    return gate


def test_lines_pass_whole_and_in_order(agents: Gateway, daemon: Daemon) -> None:
    strange = {"type": "assistant", "text": "a\u2028b\x85c\rd\n€😀" * 1000}
    whole = line(**strange)
    following(daemon, whole[:100], whole[100:101], whole[101:] + line(type="result") + line(type="x")[:5])
    with connect(where(agents)) as connection:
        talk = Talk(connection)
        assert [talk.frame() for _ in range(3)] == [INIT, strange, {"type": "result"}]
    assert daemon.cancellations.acquire(timeout=20) and daemon.cancelled == ["session.attach"]
    assert daemon.calls == [("session.attach", {"session_id": "s1", "tenant": "local"})]


def test_what_the_client_says_is_passed_on_in_order(agents: Gateway, daemon: Daemon) -> None:
    following(daemon)
    one = {"session_id": "s1", "tenant": "local"}
    with connect(where(agents)) as connection:
        talk = Talk(connection)
        talk.frame()
        separated = json.dumps({"type": "user_message", "content": "a\u2028b"}, ensure_ascii=False)
        connection.send(f'{separated}\n{{"type":"interrupt"}}\n\n{{"type":"keep_alive"}}\n')
        talk.say("set_model", model="opus-4")
        talk.say("set_permission_mode", mode="plan")
        talk.say("permission_response", request_id="r", behavior="allow")
        for _ in range(6):
            assert daemon.arrivals.acquire(timeout=20)
    answer = {"request_id": "r", "behavior": "allow", "updated_input": None, "message": None}
    assert daemon.calls[1:] == [
        ("session.send", {"content": "a\u2028b", **one}),
        ("session.interrupt", one),
        ("session.set_model", {"model": "opus", **one}),
        ("session.set_permission_mode", {"mode": "plan", **one}),
        ("session.answer", {**answer, **one}),
    ]


def test_a_bad_message_is_answered_and_the_next_one_obeyed(agents: Gateway, daemon: Daemon) -> None:
    following(daemon)

    async def full(call: Call) -> Any:
        raise RpcError(Code.BUSY, "too much waits already")

    daemon.scripts["session.send"] = full
    with connect(where(agents)) as connection:
        talk = Talk(connection)
        talk.frame()
        connection.send("nonsense")
        connection.send(b"binary")
        connection.send('{"type":"unknown"}')
        talk.say("user_message", content="hi")
        texts = [talk.until("error", session_id="s1")["error"] for _ in range(4)]
        assert "line of JSON" in texts[0] and "text frames" in texts[1] and "'unknown'" in texts[2]
        assert texts[3] == "too much waits already"
        talk.say("interrupt")
        assert [daemon.arrivals.acquire(timeout=20) for _ in range(3)] == [True] * 3
    assert daemon.calls[-1][0] == "session.interrupt"


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (RpcError(Code.WORKER_CRASHED, "it died"), "it died", 1011),
        (RpcError(Code.WORKER_OOM, "too large"), "too large", 1011),
        (RpcError(Code.BUSY, "too slow"), "too slow", 1013),
        (RpcError(Code.DRAINING, "stopping"), "stopping", 1012),
        (RpcError(Code.NOT_FOUND, "no such"), "Session not found", 1008),
        (RpcError(Code.WORKER_CRASHED, "a" + "€" * 300), "a" + "€" * 300, 1011),
    ],
)
def test_failures(agents: Gateway, daemon: Daemon, error: RpcError, text: str, code: int) -> None:
    following(daemon, error=error).open()
    with connect(where(agents)) as connection:
        talk = Talk(connection)
        talk.frame()
        assert talk.frame() == {"type": "error", "error": text, "session_id": "s1"}
        assert talk.closed()[0] == code


@pytest.mark.parametrize(
    ("reason", "code"), [("closed", 1000), ("idle", 1000), ("ccd is shutting down", 1012)]
)
def test_the_end_of_a_session(agents: Gateway, daemon: Daemon, reason: str, code: int) -> None:
    gate = following(daemon, line(type="result"), reason=reason)
    with connect(where(agents)) as connection:
        talk = Talk(connection)
        talk.until("result")
        gate.open()
        assert talk.closed() == (code, f"the session has ended: {reason}")


def test_the_loss_of_the_daemon(agents: Gateway, daemon: Daemon) -> None:
    following(daemon)
    with connect(where(agents)) as connection:
        talk = Talk(connection)
        talk.frame()
        daemon.vanish()
        try:
            assert "the connection to the daemon was lost" in talk.until("error")["error"]
            assert talk.closed()[0] == 1012
        finally:
            daemon.listen()


@pytest.mark.parametrize("who_speaks", ["client", "session"])
def test_a_key_that_is_revoked_ends_its_connections(daemon: Daemon, tmp_path: Path, who_speaks: str) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, scopes=("agent", "chat"))
    more = Gate()

    async def attach(call: Call) -> Any:
        await call.send(line(**INIT))
        await more.passed()
        await call.send(line(type="assistant"))
        await call.cancelled.wait()
        raise RpcError(Code.CANCELLED)

    daemon.scripts["session.attach"] = attach
    gateway = Gateway(daemon.path, keys_file=keys, usage_file=tmp_path / "usage.sqlite3")
    with gateway, connect(where(gateway), additional_headers=bearer(token)) as connection:
        talk = Talk(connection)
        assert talk.frame()["type"] == "session_init"
        with changing(keys) as found:
            found.clear()
        while gateway.request("GET", "/v1/models", headers=bearer(token)).status != 401:
            time.sleep(0.05)
        if who_speaks == "client":
            talk.say("user_message", content="hi")
        else:
            more.open()
        assert talk.closed() == (1008, "the API key is no longer valid")
        assert [frame["type"] for frame in talk.frames] == ["session_init", "error"]
    assert "session.send" not in [method for method, _ in daemon.calls]


def test_no_more_than_there_is_room_for(agents: Gateway, daemon: Daemon) -> None:
    following(daemon)
    with connect(where(agents)) as one, connect(where(agents)) as two:
        for connection in (one, two):
            Talk(connection).frame()
        with pytest.raises(InvalidStatus) as refusal:
            with connect(where(agents)):
                pass
        response = refusal.value.response
        assert response.status_code == 503 and response.headers["retry-after"]


def test_names_are_decoded_once(agents: Gateway, daemon: Daemon) -> None:
    following(daemon)
    for sent, name in (("a%20b", "a b"), ("a%2520b", "a%20b"), ("%E2%82%AC", "€")):
        with connect(where(agents, sent)) as connection:
            Talk(connection).frame()
        assert daemon.calls.pop()[1]["session_id"] == name


def test_a_client_that_breaks_the_rules_is_let_go(agents: Gateway, daemon: Daemon) -> None:
    following(daemon)
    with connect(where(agents), max_size=None) as connection:
        Talk(connection).frame()
        with pytest.raises(ConnectionClosed) as end:
            connection.send("x" * (5 << 20))
            connection.recv(20)
            connection.recv(20)
        assert end.value.rcvd is not None and end.value.rcvd.code == 1009
