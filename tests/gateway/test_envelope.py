"""Clients that go away, and the admission limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ccd_gateway.disconnect import UntilDisconnect
from ccd_gateway.envelope import request_id
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
    read_until(connection, b": keep-alive\n\n")
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
    assert (request_id(given) == given) is kept
    assert len(request_id(None)) == 36


# --- on the ASGI interface, which shows what no server would do ---

App = Callable[[Any, Any, Any], Awaitable[None]]


class Client:
    """Gives `receive` what a test puts in."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []
        for message in messages:
            self.queue.put_nowait(message)

    async def run(self, app: App) -> None:
        with UntilDisconnect(self.queue.get) as until:
            await app({"type": "http"}, until.after(self.queue.get), self._send)  # type: ignore[arg-type]

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


BODY = {"type": "http.request", "body": b"x", "more_body": False}
GONE = {"type": "http.disconnect"}


def test_handler_ends_by_itself() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == BODY
        await send("answer")

    async def main() -> None:
        client = Client(BODY)
        await client.run(app)
        assert client.sent == ["answer"]
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_disconnect_cancels_the_handler() -> None:
    ended = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    asyncio.run(Client(BODY, GONE).run(app))
    assert ended == ["cancelled"]


def test_a_handler_that_asks_again_learns_of_the_disconnect() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert await receive() == GONE

    asyncio.run(Client(BODY, GONE).run(app))


def test_body_in_parts_is_passed_on() -> None:
    got = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            got.append(message["body"])
            if not message["more_body"]:
                return

    asyncio.run(Client({**BODY, "more_body": True}, BODY).run(app))
    assert got == [b"x", b"x"]


def test_a_fault_of_the_handler_is_raised() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(Client().run(app))


def test_being_cancelled_from_outside_cancels_the_handler() -> None:
    ended = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def main() -> None:
        task = asyncio.ensure_future(Client().run(app))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert ended == ["cancelled"]

    asyncio.run(main())
