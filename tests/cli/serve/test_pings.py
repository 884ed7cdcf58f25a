"""Pings of the parts of `ccd up`: when patience ends, whose lateness counts, and what is an answer."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ccd_cli.serve.pings import PINGS, Patience, of_daemon, of_gateway, watch
from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import Daemon


def test_three_in_a_row() -> None:
    patience = Patience(30)
    assert patience.interval_s == 10
    assert [patience.missed(10.0) for _ in range(2)] == [False, False]
    patience.answered()
    assert [patience.missed(10.5) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("took_s", [20.0, 25.0, 3600.0])
def test_a_pinger_that_did_not_run_itself_has_missed_nothing(took_s: float) -> None:
    patience = Patience(30)
    assert not any(patience.missed(took_s) for _ in range(10))
    patience.missed(10)
    patience.missed(10)
    assert not patience.missed(took_s)
    assert patience.missed(10)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main()

    asyncio.run(bounded())


def test_watching_ends_with_the_third_miss_and_not_before() -> None:
    said = iter([True, False, False, True, False, False, False])
    asked = []

    async def ping() -> None:
        asked.append(next(said))
        if not asked[-1]:
            raise OSError("gone")

    run(lambda: watch(ping, 0.03))
    assert asked == [True, False, False, True, False, False, False]


def test_a_ping_that_hangs_or_fails_in_any_way_is_missed() -> None:
    failures = iter([asyncio.Event().wait, lambda: 1 / 0, lambda: [].pop()])

    async def ping() -> None:
        result = next(failures)()
        await result  # type: ignore[misc]

    run(lambda: watch(ping, 0.3))
    assert next(failures, None) is None


def test_a_daemon_answers_or_not(tmp_path: Path) -> None:
    with Daemon(tmp_path / "d.sock") as daemon:
        run(of_daemon(tmp_path / "d.sock"))
        daemon.scripts["daemon.ping"] = refusing
        run(of_daemon(tmp_path / "d.sock"))  # whatever it says, it is there
    with pytest.raises(RpcError):
        run(of_daemon(tmp_path / "d.sock"))


async def refusing(call: object) -> None:
    raise RpcError(Code.DRAINING)


@pytest.fixture
def answering() -> Iterator[tuple[int, list[bytes]]]:
    """A server that gives each connection the next of these answers."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answers.pop(0))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], answers
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_gateway_answers_whatever_the_status(answering: tuple[int, list[bytes]], host: str) -> None:
    port, answers = answering
    answers += [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 503 Service Unavailable\r\n\r\n"]
    ping = of_gateway(f"http://{host}:{port}")
    run(ping)
    run(ping)
    for nonsense in (b"", b"SSH-2.0-x\r\n"):
        answers.append(nonsense)
        with pytest.raises((ValueError, asyncio.IncompleteReadError)):
            run(ping)


def test_there_are_three() -> None:
    assert PINGS == 3
