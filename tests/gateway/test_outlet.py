"""The way out of an answer, on the ASGI interface: a server's `send` that may make its caller wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from ccd_gateway.outlet import Body, Outlet

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
