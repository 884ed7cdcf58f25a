"""Clients that go away, and the admission limit."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from ccd_gateway.edge.envelope import request_id
from ccd_gateway.shapes import OPENAI
from fakes.gateway_daemon import Call, Daemon, start, text
from fakes.gateway_process import Gateway, read_until

PROMPT_S = 2.0  # "at once", on a machine that is busy with other tests


@pytest.mark.parametrize("stream", [False, True])
def test_client_gone_while_silent(gateway: Gateway, daemon: Daemon, stream: bool) -> None:
    daemon.hang()
    connection = gateway.open_chat(stream=stream)
    assert daemon.arrivals.acquire(timeout=20)
    left = time.monotonic()
    connection.close()
    assert daemon.cancellations.acquire(timeout=20)
    assert time.monotonic() - left < PROMPT_S
    assert daemon.cancelled == ["chat.stream" if stream else "chat.complete"]


def test_client_gone_in_the_middle_of_a_stream(gateway: Gateway, daemon: Daemon) -> None:
    async def endless(call: Call) -> Any:
        await call.send(start())
        while not call.cancelled.is_set():
            await call.send(text("x" * 1000))
            await asyncio.sleep(0)

    daemon.scripts["chat.stream"] = endless
    connection = gateway.open_chat(stream=True)
    read_until(connection, b"xxx")
    connection.close()
    assert daemon.cancellations.acquire(timeout=20)


def test_client_gone_after_keepalive(gateway: Gateway, daemon: Daemon) -> None:
    daemon.hang()
    connection = gateway.open_chat(stream=True)
    read_until(connection, b": keep-alive\n")
    connection.close()
    assert daemon.cancellations.acquire(timeout=20)


def test_client_gone_while_it_reads_nothing(gateway: Gateway, daemon: Daemon) -> None:
    """The gateway is stuck in writing, not in waiting for the daemon."""

    async def flood(call: Call) -> Any:
        await call.send(start())
        while not call.cancelled.is_set():
            await call.send(text("x" * 60_000))

    daemon.scripts["chat.stream"] = flood
    connection = gateway.open_chat(stream=True)
    read_until(connection, b"xxx")
    assert not daemon.cancellations.acquire(timeout=1)
    connection.close()
    assert daemon.cancellations.acquire(timeout=20)


def test_others_are_not_disturbed(gateway: Gateway, daemon: Daemon) -> None:
    daemon.hang()
    leaving = [gateway.open_chat(stream=True) for _ in range(5)]
    for _ in leaving:
        assert daemon.arrivals.acquire(timeout=20)
    daemon.chat(start(), text("fine"))
    for connection in leaving:
        connection.close()
    assert b"fine" in gateway.chat(stream=True).body


def test_admission(daemon: Daemon) -> None:
    daemon.hang()
    with Gateway(daemon.path, max_streams=3, keepalive_s=60) as gateway:
        busy = [gateway.open_chat(stream=True) for _ in range(3)]
        for _ in busy:
            assert daemon.arrivals.acquire(timeout=20)
        answer = gateway.chat()
        assert (answer.status, answer.error["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        assert gateway.request("GET", "/health").status == 200
        busy[0].close()
        assert daemon.cancellations.acquire(timeout=20)
        daemon.chat()
        deadline = time.monotonic() + 10
        while (status := gateway.chat().status) == 503 and time.monotonic() < deadline:
            pass
        assert status == 200
        for connection in busy[1:]:
            connection.close()


@pytest.mark.parametrize(
    ("given", "kept"),
    [(b"a-1", True), (b"x" * 200, True), (b"x" * 201, False), (b"", False), (b"a b", False), (None, False)],
)
def test_request_id(given: bytes | None, kept: bool) -> None:
    assert (request_id(given, OPENAI) == (given or b"").decode("latin-1")) is kept
    assert len(request_id(None, OPENAI)) == 36
