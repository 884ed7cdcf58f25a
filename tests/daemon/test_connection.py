"""One client of the daemon: what it is answered, over a real socket pair."""

from __future__ import annotations

import asyncio
import socket

import pytest

from ccd_daemon.config import Server as Settings
from ccd_daemon.connection import Call, Connection, Handler
from ccd_daemon.server import Server
from ccd_protocol.errors import Code
from ccd_protocol.peer import Failed, GoingAway, Peer

_READ_BYTES = 65536


async def _never(call: Call) -> None:
    await asyncio.get_running_loop().create_future()


async def _answers(sock: socket.socket, peer: Peer, count: int) -> list[Failed]:
    """Read until so many calls have failed."""
    loop, failed = asyncio.get_running_loop(), list[Failed]()
    while len(failed) < count:
        data = await loop.sock_recv(sock, _READ_BYTES)
        assert data, "closed"
        failed += [event for event in peer.receive(data) if isinstance(event, Failed)]
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

    asyncio.run(main())
