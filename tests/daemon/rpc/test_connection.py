"""One client of the daemon: what it is answered, over a real socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from ccd_daemon.config import ServerSettings as Settings
from ccd_daemon.rpc.call import Call, Handler
from ccd_daemon.rpc.connection import Connection
from ccd_daemon.rpc.server import Server
from ccd_protocol.errors import Code
from ccd_protocol.peer import CallFailed, Ended, GoingAway, Greeted, Peer

_READ_BYTES = 65536


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it in the loop that the daemon has."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def _never(call: Call) -> None:
    await asyncio.get_running_loop().create_future()


async def _answers(sock: socket.socket, peer: Peer, count: int) -> list[CallFailed]:
    """Read until so many calls have failed."""
    loop, failed = asyncio.get_running_loop(), list[CallFailed]()
    while len(failed) < count:
        data = await loop.sock_recv(sock, _READ_BYTES)
        assert data, "closed"
        failed += [event for event in peer.receive(data) if isinstance(event, CallFailed)]
    return failed


@pytest.mark.parametrize("draining", [False, True])
def test_a_call_that_is_cancelled_before_it_began_is_answered(draining: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = Server(Settings(), {"never": Handler(_never)}, "test")
        theirs, ours = socket.socketpair()
        with theirs, ours:
            theirs.setblocking(False)
            transport, connection = await loop.create_unix_connection(lambda: Connection(server), sock=ours)
            peer = Peer("connecting", "test")
            calls = [peer.call("never", {}, timeout_ms=0, window=0) for _ in range(3)]
            for call in calls:
                peer.cancel(call, "changed my mind")
            await loop.sock_sendall(theirs, b"".join(peer.outgoing()))  # one read of the daemon's
            failed = await _answers(theirs, peer, 3)
            assert [event.id for event in failed] == calls
            assert {event.code for event in failed} == {Code.CANCELLED}
            assert connection.peer.open_calls == 0
            if not draining:
                transport.close()
                assert await loop.sock_recv(theirs, _READ_BYTES) == b""
            else:
                connection.goaway("bye")
                data = await loop.sock_recv(theirs, _READ_BYTES)
                assert [type(event) for event in peer.receive(data)] == [GoingAway]
                assert await loop.sock_recv(theirs, _READ_BYTES) == b""

    run(main())


class Client:
    """One end of a socket pair; at the other is a connection of the server."""

    def __init__(self, server: Server) -> None:
        self.peer = Peer("connecting", "test")
        self.server = server
        self.sock, self._theirs = socket.socketpair()
        self.sock.setblocking(False)
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport

    async def __aenter__(self) -> Client:
        self.transport, self.connection = await self.loop.create_unix_connection(
            lambda: Connection(self.server), sock=self._theirs
        )
        await self.send()
        await self.until(Greeted)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.sock.close()
        while self.connection in self.server.connections:
            await asyncio.sleep(0)

    async def send(self, data: bytes = b"") -> None:
        with contextlib.suppress(BrokenPipeError):  # sent away before it had said everything
            await self.loop.sock_sendall(self.sock, b"".join([*self.peer.outgoing(), data]))

    async def until(self, kind: type) -> Any:
        while data := await self.loop.sock_recv(self.sock, _READ_BYTES):
            for event in self.peer.receive(data):
                if isinstance(event, kind):
                    return event
        raise EOFError


_LARGE = b"x" * (1 << 20)


def test_what_clients_make_the_daemon_keep_is_bounded() -> None:
    """Requests that are being served count, and those that are not complete yet; others are not disturbed."""

    async def main() -> None:
        server = Server(
            Settings(max_kept_bytes=3 << 20),
            {"never": Handler(_never), "echo": Handler(lambda call: {}, at_once=True)},
            "test",
        )
        async with Client(server) as busy, Client(server) as slow, Client(server) as third:
            call = busy.peer.call("never", {"x": _LARGE})
            await busy.send()
            slow.peer.call("echo", {"x": _LARGE * 2})
            frame = b"".join(slow.peer.outgoing())
            await slow.send(frame[: len(_LARGE)])
            third.peer.call("never", {"x": _LARGE * 2})
            await third.send()
            refused = await third.until(GoingAway)
            assert refused.code == Code.BUSY
            busy.peer.cancel(call, "")
            await busy.send()
            assert (await busy.until(CallFailed)).code == Code.CANCELLED
            await slow.send(frame[len(_LARGE) :])
            await slow.until(Ended)
            async with Client(server) as fourth:
                fourth.peer.call("never", {"x": _LARGE * 2})
                await fourth.send()
                fourth.peer.call("echo")
                await fourth.send()
                await fourth.until(Ended)
        assert server.keep(0)
        assert server._kept_bytes == 0

    run(main())


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    """Else its answers would pile up for as long as it asks."""

    async def main() -> None:
        server = Server(Settings(), {"echo": Handler(lambda call: {"x": _LARGE}, at_once=True)}, "test")
        async with Client(server) as client:
            asked = 0
            while client.transport.is_reading():
                client.peer.call("echo")
                await client.send()
                asked += 1
                await asyncio.sleep(0)
            waiting = client.transport.get_write_buffer_size()
            assert 16 << 20 < waiting < 32 << 20
            for _ in range(50):
                client.peer.call("echo")
                await client.send()
                await asyncio.sleep(0)
            assert client.transport.get_write_buffer_size() == waiting
            answered = 0
            while answered < asked + 50:
                data = await client.loop.sock_recv(client.sock, 1 << 20)
                answered += sum(isinstance(event, Ended) for event in client.peer.receive(data))

    run(main())


def test_a_client_that_does_not_read_can_still_cancel() -> None:
    async def flood(call: Call) -> None:
        call.send(_LARGE * 3)
        await _never(call)

    async def main() -> None:
        server = Server(Settings(), {"flood": Handler(flood, streams=True)}, "test")
        async with Client(server) as client:
            number = client.peer.call("flood", window=8 << 20)
            await client.send()
            while not client.connection.choked:
                await asyncio.sleep(0)
            client.peer.cancel(number, "enough")
            await client.send()
            while client.connection.peer.open_calls:
                await asyncio.sleep(0)
            assert (await client.until(CallFailed)).code == Code.CANCELLED

    run(main())
