"""What the clients share: when connecting is tried again, and what its failures say."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from pathlib import Path

import pytest

from ccd_client import AsyncClient, Code, RpcError
from ccd_client._core import CONNECT_PATIENCE_S, ConnectPlan, Exchange, Link, resolved, send_now, unreachable
from ccd_protocol.peer import Peer

ABSENT = [FileNotFoundError(), ConnectionRefusedError()]
PASSING = [BlockingIOError(), EOFError(), ConnectionResetError(), BrokenPipeError()]


@pytest.mark.parametrize("error", ABSENT, ids=repr)
def test_absent_daemon_is_waited_for_only_if_it_was_there(error: Exception) -> None:
    with pytest.raises(RpcError) as caught:
        ConnectPlan("/s", 100.0, 0.0).after(error, 100.0)
    assert caught.value.code is Code.LOST
    plan = ConnectPlan("/s", 100.0, 5.0)
    assert plan.after(error, 104.9) > 0
    with pytest.raises(RpcError):
        plan.after(error, 105.0)


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_busy_daemon_is_always_waited_for(error: Exception) -> None:
    plan = ConnectPlan("/s", 100.0, 0.0)
    assert plan.after(error, 100.0 + CONNECT_PATIENCE_S - 0.01) > 0
    with pytest.raises(RpcError):
        plan.after(error, 100.0 + CONNECT_PATIENCE_S)


def test_other_errors_are_final() -> None:
    with pytest.raises(RpcError, match="too long"):
        ConnectPlan("/s", 100.0, 5.0).after(OSError("AF_UNIX path too long"), 100.0)


def test_errors_say_what_to_do() -> None:
    for error in ABSENT:
        assert "/s" in unreachable("/s", error).message
        assert unreachable("/s", error).message.endswith("is ccd running? start it with: ccd up")
    assert "group" in unreachable("/s", PermissionError()).message


def test_the_socket_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCD_SOCKET", "/from/env")
    assert resolved(None) == "/from/env"
    assert resolved(Path("/given")) == "/given"


def test_send_now_keeps_what_does_not_fit() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        data = bytes(range(256)) * 8192
        unsent = deque([memoryview(b"head"), memoryview(data)])
        got = b""
        while not send_now(left, unsent):
            got += right.recv(65_536)
        left.shutdown(socket.SHUT_WR)
        while more := right.recv(65_536):
            got += more
        assert got == b"head" + data


def test_abandoned_exchange_ignores_what_still_comes() -> None:
    link, daemon = Link("/s"), Peer("accepting", "daemon/1")
    link.receive(b"".join(daemon.outgoing()))
    exchange = Exchange()
    link.start(exchange, "m", {}, None, 100)
    daemon.receive(b"".join(link.peer.outgoing()))
    link.abandon(exchange, "enough")
    link.abandon(exchange, "again")
    daemon.item(1, b"late")
    daemon.end(1, "late")
    link.receive(b"".join(daemon.outgoing()))
    assert not exchange.items and link.peer.open_calls == 0
    with pytest.raises(RpcError) as caught:
        exchange.outcome()
    assert caught.value.code is Code.CANCELLED


def test_closing_while_it_connects_fails_the_waiting_calls(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            client = AsyncClient(tmp_path / "s")
            calls = [asyncio.ensure_future(client.call("m")) for _ in range(2)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await client.close()
            for call in calls:
                with pytest.raises(RpcError, match="closed while it connected"):
                    await call

    asyncio.run(main())
