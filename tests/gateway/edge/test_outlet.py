"""The way out of an answer, on the ASGI interface: a server's `send` that may make its caller wait."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from ccd_gateway.edge.outlet import Body, Outlet
from fakes.gateway_daemon import RESULT, Call, Daemon, start, text
from fakes.gateway_process import USER, Gateway

HEAD = {"type": "http.response.start", "status": 200, "headers": []}


class Server:
    """Takes messages; while `full` is set, `send` takes its message and then waits."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.full = False
        self.drained: asyncio.Future[None] | None = None

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.bodies.append(message.get("body", b"") if message.get("more_body") else b"END")
        if self.full:
            self.drained = asyncio.get_running_loop().create_future()
            await self.drained

    def drain(self) -> None:
        self.full = False
        assert self.drained is not None
        self.drained.set_result(None)


class Wrapped:
    """A `send` that is no coroutine function, as a layer around the application may have."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __call__(self, message: Any) -> Awaitable[None]:
        return asyncio.ensure_future(self._server.send(message))


async def _pieces(source: asyncio.Queue[bytes | None]) -> AsyncGenerator[bytes, None]:
    while (piece := await source.get()) is not None:
        yield piece


def streaming(test: Callable[[Server, Outlet, asyncio.Queue[bytes | None]], Awaitable[None]]) -> list[bytes]:
    """Run a test beside an outlet that streams what the test puts into a queue; what the server got."""
    server = Server()
    closed: list[bool] = []

    async def main() -> None:
        source: asyncio.Queue[bytes | None] = asyncio.Queue()
        outlet = Outlet(server.send)
        outlet.body = Body(_pieces(source), lambda: closed.append(True))
        await outlet.send({"type": "http.response.body"})  # the framework's end
        streamed = asyncio.ensure_future(outlet.stream())
        await test(server, outlet, source)
        source.put_nowait(None)
        await asyncio.wait_for(streamed, 10)
        await outlet.close()

    asyncio.run(main())
    assert closed == [True]
    return server.bodies


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_pieces_are_sent_and_the_frameworks_end_is_not() -> None:
    async def test(server: Server, outlet: Outlet, source: asyncio.Queue[bytes | None]) -> None:
        source.put_nowait(b"a")
        source.put_nowait(b"b")

    assert streaming(test) == [b"a", b"b", b"END"]


def test_without_a_body_everything_passes() -> None:
    server = Server()
    outlet = Outlet(server.send)

    async def main() -> None:
        await outlet.send(HEAD)
        await outlet.send({"type": "http.response.body", "body": b"x"})
        await outlet.close()

    asyncio.run(main())
    assert server.bodies == [b"END"]


def test_a_piece_is_written_at_once() -> None:
    async def test(server: Server, outlet: Outlet, source: asyncio.Queue[bytes | None]) -> None:
        source.put_nowait(b"a")
        await until(lambda: server.bodies == [b"a"])
        outlet.write(b"b")
        assert server.bodies == [b"a", b"b"]
        assert outlet.ready

    assert streaming(test) == [b"a", b"b", b"END"]


def test_while_the_server_waits_nothing_is_written_at_once_and_nothing_overtakes() -> None:
    async def test(server: Server, outlet: Outlet, source: asyncio.Queue[bytes | None]) -> None:
        server.full = True
        outlet.write(b"a")
        assert not outlet.ready
        source.put_nowait(b"b")
        for _ in range(5):
            await asyncio.sleep(0)
        assert server.bodies == [b"a"]
        server.drain()
        await until(lambda: outlet.ready)

    assert streaming(test) == [b"a", b"b", b"END"]


def test_the_end_waits_too() -> None:
    async def test(server: Server, outlet: Outlet, source: asyncio.Queue[bytes | None]) -> None:
        server.full = True
        outlet.write(b"a")
        source.put_nowait(None)
        for _ in range(5):
            await asyncio.sleep(0)
        assert server.bodies == [b"a"]
        server.drain()

    assert streaming(test) == [b"a", b"END"]


def test_any_awaitable_will_do() -> None:
    server = Server()

    async def main() -> None:
        outlet = Outlet(Wrapped(server))
        outlet.body = Body(_pieces(asyncio.Queue()))
        outlet.write(b"a")
        assert not outlet.ready  # a task has to run first
        await until(lambda: server.bodies == [b"a"])
        await outlet.close()

    asyncio.run(main())


def test_closing_ends_what_still_waits() -> None:
    server = Server()
    closed = []

    async def main() -> None:
        outlet = Outlet(server.send)
        outlet.body = Body(_pieces(asyncio.Queue()), lambda: closed.append(True))
        server.full = True
        outlet.write(b"a")
        await outlet.close()
        assert outlet.ready
        await outlet.close()

    asyncio.run(main())
    assert closed == [True]


def test_a_send_that_fails_says_so_to_who_writes() -> None:
    async def broken(message: Any) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        Outlet(broken).write(b"a")


# --- on real connections ---

REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": USER},
    "/v1/messages": {"messages": USER, "max_tokens": 9},
    "/v1/responses": {"input": "hi"},
}


@pytest.mark.parametrize("path", REQUESTS)
def test_nothing_is_lost_or_reordered_when_a_client_reads_in_fits(
    gateway: Gateway, daemon: Daemon, path: str
) -> None:
    """Pieces go the short way while the client keeps up, and the long way when it does not, by turns."""
    count, sent = 300, list[int]()

    async def numbered(call: Call) -> Any:
        await call.send(start())
        for number in range(count):
            await call.send(text(f"<{number}>" + "x" * 50_000))
            sent.append(number)
        return RESULT

    daemon.scripts["chat.stream"] = numbered
    body = json.dumps({"model": "m", "stream": True, **REQUESTS[path]})
    with gateway.connect() as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        got = _read_in_fits(connection, sent, pause_bytes=6 << 20)
    found = re.findall(rb'"(?:content|text|delta)": ?"<(\d+)>x{50000}"', got)
    assert found == [b"%d" % number for number in range(count)]


def _read_in_fits(connection: socket.socket, sent: list[int], pause_bytes: int) -> bytes:
    """All of a chunked answer, reading nothing until all buffers are full whenever so much has been read."""
    got, pause_at = bytearray(), 0
    while not got.endswith(b"\r\n0\r\n\r\n"):
        if len(got) >= pause_at:
            pause_at += pause_bytes
            stalled = -1
            while stalled != len(sent):  # until nothing moves any more
                stalled = len(sent)
                time.sleep(0.3)
        piece = connection.recv(1 << 18)
        assert piece, bytes(got[-300:])
        got += piece
    return bytes(got)
