"""The asyncio client and the lives of event loops."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from ccd_client import AsyncClient, Code, RpcError
from ccd_client._core import Exchange
from ccd_protocol.peer import Peer
from fakes.peer_server import PeerServer

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PeerServer]:
    with PeerServer(tmp_path / "s") as server:
        yield server


def run(factory: Callable[[], Any], work: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work())


@pytest.mark.parametrize("factory", LOOPS)
def test_a_client_is_used_in_one_loop_after_another(factory: Callable[[], Any], server: PeerServer) -> None:
    client = AsyncClient(server.path)
    streams: list[Any] = []

    async def work() -> Any:
        streams.append(client.call_stream("stall"))
        await streams[-1]
        return await client.call("echo", {"n": len(streams)})

    with warnings.catch_warnings():
        # The program left the connection open when its loop ended, and asyncio says so.
        warnings.simplefilter("ignore", ResourceWarning)
        assert [run(factory, work) for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
        server.wait_for(lambda: len(server.cancelled) >= 2)  # those of the loops that were left
        with pytest.raises(RpcError) as caught:
            run(factory, streams[0].__anext__)
        assert caught.value.code is Code.LOST
        run(factory, client.close)
        streams.clear()
        gc.collect()
    server.wait_for(lambda: not server._live)


def test_a_client_of_a_running_loop_is_refused_in_another(server: PeerServer) -> None:
    client = AsyncClient(server.path)

    async def work() -> None:
        await client.call("echo")
        with pytest.raises(RuntimeError, match="make one for each"):
            await asyncio.to_thread(lambda: asyncio.run(client.call("echo")))
        await client.call("echo")
        await client.close()

    asyncio.run(work())
    assert server.connections == 1


@pytest.mark.parametrize("factory", LOOPS)
def test_more_than_the_socket_takes_makes_the_next_call_wait(
    factory: Callable[[], Any], tmp_path: Path
) -> None:
    """Many requests written at once by a daemon's slow reader must not pile up in the client without bound."""

    async def work() -> None:
        path = tmp_path / "deaf"
        reading, connected = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hello = Peer("accepting", "deaf/1").outgoing()
            writer.writelines(hello)
            connected.set()
            await reading.wait()
            writer.close()

        server = await asyncio.start_unix_server(serve, path, limit=1024)
        client = AsyncClient(path)
        connection = await client._connected()
        for _ in range(2):  # queued and written together, as the calls of two tasks are
            connection.link.start(Exchange(), "echo", {"x": b"x" * 4_000_000}, None, 0)
        connection.flush()
        assert connection.drained is not None
        reading.set()
        await client.close()
        server.close()

    run(factory, work)
