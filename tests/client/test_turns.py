"""Threads of one blocking client: who reads, and how the others and an interrupt get through to a reader."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_client import Client, Code, RpcError
from fakes.peer_server import PeerServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PeerServer]:
    with PeerServer(tmp_path / "s") as server:
        yield server


@pytest.fixture
def client(server: PeerServer) -> Iterator[Client]:
    with Client(server.path) as client:
        client.ping()
        yield client


class Work:
    """A thread, and what it failed with."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.error: RpcError | None = None
        self._thread = threading.Thread(target=self._main, args=(function, *args))
        self._thread.start()

    def _main(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            function(*args)
        except RpcError as error:
            self.error = error

    def code(self) -> Code | int | None:
        """The failure's code, once the thread has ended."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        return None if self.error is None else self.error.code


def until(condition: Callable[[], bool]) -> None:
    """Wait for a state of the client, which tells nobody."""
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s
        os.sched_yield()


def reads(client: Client) -> bool:
    connection = client._connection
    return connection is not None and connection._reading


def waits(client: Client) -> bool:
    connection = client._connection
    return connection is not None and connection._waiting > 0


@pytest.mark.parametrize("timeout_s", [None, 3600.0])
def test_a_reader_whose_stream_another_thread_cancels_returns_without_the_daemon(
    client: Client, server: PeerServer, timeout_s: float | None
) -> None:
    for _ in range(3):
        stream = client.call_stream("stubborn", timeout_s=timeout_s)
        reader = Work(list, stream)
        until(lambda: reads(client))
        stream.cancel("enough")
        assert reader.code() is Code.CANCELLED
    server.wait_for(lambda: len(server.cancelled) == 3)
    assert client.call("echo", {"still": 1}) == {"still": 1}
    assert server.connections == 1


def test_a_stream_that_waits_for_another_reader_can_be_cancelled(client: Client, server: PeerServer) -> None:
    reader = Work(client.call, "stubborn")
    until(lambda: reads(client))
    stream = client.call_stream("stubborn")
    waiter = Work(list, stream)
    until(lambda: waits(client))
    stream.cancel()
    assert waiter.code() is Code.CANCELLED
    assert reads(client)
    client.close()
    assert reader.code() is Code.LOST


def test_cancelling_one_stream_leaves_the_reader_of_another_alone(client: Client, server: PeerServer) -> None:
    kept, dropped = client.call_stream("slow_echo", {"delay_s": 0.1}), client.stream("stubborn")
    reader = Work(list, kept)
    until(lambda: reads(client))
    dropped.cancel()
    assert reader.code() is None
    assert kept.result == {"delay_s": 0.1}


def test_the_next_one_reads_when_the_reader_is_done(client: Client, server: PeerServer) -> None:
    first = Work(client.call, "slow_echo", {"delay_s": 0.1})
    until(lambda: reads(client))
    others = [Work(client.call, "slow_echo", {"delay_s": 0.1 + n / 50}) for n in range(8)]
    assert [work.code() for work in (first, *others)] == [None] * 9


def test_unary_calls_need_no_bell(client: Client) -> None:
    client.call("echo", timeout_s=5)
    assert client._connection is not None and client._connection._bell < 0


@pytest.mark.parametrize("kind", ["call", "call with a deadline", "stream"])
def test_an_interrupt_cancels_what_the_thread_waits_for(
    client: Client, server: PeerServer, kind: str
) -> None:
    main = threading.get_ident()
    actions: dict[str, Callable[[], Any]] = {
        "call": lambda: client.call("stubborn"),
        "call with a deadline": lambda: client.call("stubborn", timeout_s=3600),
        "stream": lambda: next(client.call_stream("stubborn")),
    }

    def interrupt() -> None:
        until(lambda: reads(client))
        server.wait_for(lambda: len(server.calls) == 2)
        signal.pthread_kill(main, signal.SIGINT)

    work = Work(interrupt)
    with pytest.raises(KeyboardInterrupt):
        actions[kind]()
    assert work.code() is None
    server.wait_for(lambda: len(server.cancelled) == 1)
    assert client.call("echo", {"still": 1}) == {"still": 1}
    assert server.connections == 1


def test_an_interrupt_while_answers_are_taken_costs_the_connection_and_no_answer(
    client: Client, server: PeerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = client._connection
    assert connection is not None

    def interrupted(data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connection.link, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.call("echo")
    assert connection.closed
    assert client.call("echo", {"n": 1}) == {"n": 1}
    assert server.connections == 2


@pytest.mark.parametrize("timeout_s", [None, 3600.0])
def test_what_an_interrupted_thread_received_is_not_lost(
    client: Client, server: PeerServer, timeout_s: float | None
) -> None:
    """The interrupt came after the bytes had left the socket and before they were acted on."""
    connection = client._connection
    assert connection is not None
    stream = client.call_stream("payloads", {"payloads": [b"one"], "result": 1})
    with client._lock:
        connection._receive()
    assert connection._received
    assert client.call("echo", {"n": 1}, timeout_s=timeout_s) == {"n": 1}
    assert list(stream) == [b"one"]
    assert stream.result == 1
    assert server.connections == 1
