"""Restarts of the daemon, seen through the gateway."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import RESULT, Call, Daemon, start, text
from fakes.gateway_process import Answer, Gateway


@pytest.mark.parametrize("stream", [False, True])
def test_daemon_down_is_reported_within_a_second(gateway: Gateway, daemon: Daemon, stream: bool) -> None:
    assert gateway.chat().status == 200
    daemon.vanish()
    try:
        before = time.monotonic()
        answer = gateway.chat(stream=stream)
        assert time.monotonic() - before < 1.2  # a second, and what a busy machine adds
        assert (answer.status, answer.error["type"]) == (503, "service_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert str(daemon.path) in answer.error["message"]
        assert gateway.request("GET", "/v1/models").status == 503
    finally:
        daemon.listen()
    assert gateway.chat(stream=stream).status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_call_lost_before_its_answer_is_sent_once_more(
    gateway: Gateway, daemon: Daemon, stream: bool
) -> None:
    tries = []

    async def lost_once(call: Call) -> Any:
        tries.append(call.method)
        if len(tries) == 1:
            call.drop_connection()
        elif stream:
            await call.send(start() + text("again"))
        return {**RESULT, "content": [], "text": "again"}

    daemon.scripts["chat.stream"] = daemon.scripts["chat.complete"] = lost_once
    answer = gateway.chat(stream=stream)
    assert answer.status == 200 and b"again" in answer.body
    assert len(tries) == 2


def test_call_lost_twice_is_given_up(gateway: Gateway, daemon: Daemon) -> None:
    async def lost(call: Call) -> Any:
        call.drop_connection()

    daemon.scripts["chat.complete"] = lost
    assert gateway.chat().status == 503
    assert [method for method, _ in daemon.calls].count("chat.complete") == 2


def test_draining_daemon_is_waited_for(gateway: Gateway, daemon: Daemon) -> None:
    """It refuses new calls, goes, and comes back: the client sees only its answer."""

    async def draining(call: Call) -> Any:
        raise RpcError(Code.DRAINING, "shutting down")

    daemon.scripts["chat.complete"] = daemon.scripts["daemon.ping"] = draining
    answers: list[Answer] = []
    request = threading.Thread(target=lambda: answers.append(gateway.chat()))
    request.start()
    for _ in range(3):  # the chat, and at least two probes
        assert daemon.arrivals.acquire(timeout=20)
    daemon.vanish()
    daemon.scripts.clear()
    daemon.chat()
    daemon.listen()
    request.join(20)
    assert answers[0].status == 200


def test_goaway_moves_calls_to_a_new_connection(gateway: Gateway, daemon: Daemon) -> None:
    assert gateway.chat().status == 200

    async def leave() -> None:
        for connection in daemon.connections:
            connection.peer.goaway(Code.DRAINING, "restarting")
            connection.flush()

    daemon.run(leave())
    assert gateway.chat().status == 200
    assert gateway.chat(stream=True).status == 200


def test_after_output_nothing_is_sent_again(gateway: Gateway, daemon: Daemon) -> None:
    daemon.fail(Code.LOST, "gone", output_started=True)
    assert gateway.chat().status == 503
    assert len(daemon.calls) == 1


def test_deadline(daemon: Daemon) -> None:
    daemon.hang()
    with Gateway(daemon.path, request_timeout_s=1, keepalive_s=60) as gateway:
        answer = gateway.chat()
        assert (answer.status, answer.error["type"]) == (504, "timeout_error")
        assert gateway.chat(stream=True).status == 504
    assert daemon.cancelled == ["chat.complete", "chat.stream"]


def test_more_calls_than_one_connection_takes(daemon: Daemon) -> None:
    """The daemon takes 256 calls of a connection; beyond that another one is opened."""
    daemon.hang()
    before = len(daemon.connections)
    with Gateway(daemon.path, max_streams=400, keepalive_s=60) as gateway, ExitStack() as clients:
        for _ in range(300):
            clients.enter_context(gateway.open_chat(stream=True))
        for _ in range(300):
            assert daemon.arrivals.acquire(timeout=20)
        assert len(daemon.connections) == before + 2
        clients.close()
        for _ in range(300):
            assert daemon.cancellations.acquire(timeout=20)


def test_not_a_daemon(tmp_path: Path) -> None:
    (tmp_path / "d.sock").write_text("a file")
    with Gateway(tmp_path / "d.sock") as gateway:
        assert gateway.chat().status == 503
