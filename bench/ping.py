"""(a) The round trip of the smallest call, against a bare uvloop server that answers the same msgpack frames.

Both ends run on one core: on two, the time to wake the other core hides everything else. What is compared
uses the same kind of client: the blocking `Client` with a bare blocking socket, `AsyncClient` with a bare
uvloop Protocol.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns

import msgpack
import uvloop

from bench.feeder import stand_in
from bench.measure import Figure, cores, figure, interleaved, percentile, pinned
from bench.stage import Bench, Endpoint, daemon_stack, helper
from ccd_client import AsyncClient, Client

GROUP = "a ping"
_CALL = ("daemon.ping", {}, 0, 0, 0)
_TARGET = "p50 at most 2× the bare echo"


def run(bench: Bench) -> list[Figure]:
    """Blocking and asyncio clients, each beside its floor."""
    folder = bench.room("ping")
    echo = folder / "echo.sock"
    # Spares would only be in the way: a ping concerns no worker.
    settings = {"CCD_POOL__SPARES": "0"}
    with (
        helper("echo_server.py", str(echo), folder=folder) as floor,
        daemon_stack(folder / "ccd", stand_in(folder), Endpoint(), **settings) as stack,
    ):
        core = cores()[-1]
        with pinned({0: core, floor.pid: core, stack.daemon.pid: core}):
            return _blocking(bench, echo, stack.socket) + _asyncio(bench, echo, stack.socket)


def _blocking(bench: Bench, echo: Path, ccd: Path) -> list[Figure]:
    with BareSocket(echo) as bare, Client(ccd) as client:
        runs = {"bare": bare.ping, "ccd": client.ping}
        return _compare(
            bench, "Client (blocking)", "bare blocking socket", {k: _Batch(v) for k, v in runs.items()}
        )


def _asyncio(bench: Bench, echo: Path, ccd: Path) -> list[Figure]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bare = runner.run(BareProtocol.connected(echo))
        client = AsyncClient(ccd)
        runs = {"bare": bare.ping, "ccd": client.ping}
        found = _compare(
            bench,
            "AsyncClient (uvloop)",
            "bare uvloop Protocol",
            {k: _AsyncBatch(v, runner) for k, v in runs.items()},
        )
        runner.run(client.close())
        bare.close()
        return found


def _compare(bench: Bench, name: str, floor_name: str, batches: dict[str, _Batch]) -> list[Figure]:
    for batch in batches.values():
        batch()  # connects, and warms caches
        batch.samples_us.clear()
    medians = interleaved(bench.rounds(60, 15), dict(batches), bench.random)
    bare, ccd = batches["bare"].samples_us, batches["ccd"].samples_us
    ratio = statistics.median(a / b for a, b in zip(medians["ccd"], medians["bare"], strict=True))
    return [
        figure(GROUP, f"echo, {floor_name}", "µs", bare, note=f"p99 {percentile(bare, 0.99):.1f}"),
        figure(
            GROUP, f"daemon.ping, {name}", "µs", ccd, ratio=ratio, floor="echo", target=_TARGET,
            note=f"p99 {percentile(ccd, 0.99):.1f}",
        ),
    ]  # fmt: skip


class _Batch:
    """A few hundred pings in a row; calling it returns their median in microseconds."""

    size = 500

    def __init__(self, ping: Callable[[], object]) -> None:
        self._ping = ping
        self.samples_us: list[float] = []

    def __call__(self) -> float:
        times = [0] * (self.size + 1)
        times[0] = perf_counter_ns()
        for index in range(self.size):
            self._ping()
            times[index + 1] = perf_counter_ns()
        return self._note(times)

    def _note(self, times: list[int]) -> float:
        batch = [(after - before) / 1000 for before, after in pairwise(times)]
        self.samples_us += batch
        return statistics.median(batch)


class _AsyncBatch(_Batch):
    def __init__(self, ping: Callable[[], object], runner: asyncio.Runner) -> None:
        super().__init__(ping)
        self._runner = runner

    def __call__(self) -> float:
        return self._runner.run(self._all())

    async def _all(self) -> float:
        times = [0] * (self.size + 1)
        times[0] = perf_counter_ns()
        for index in range(self.size):
            await self._ping()  # type: ignore[misc]
            times[index + 1] = perf_counter_ns()
        return self._note(times)


class BareSocket:
    """The smallest blocking client."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(str(path))
        self._pack = msgpack.Packer().pack
        self._unpacker = msgpack.Unpacker()
        self._id = 1

    def ping(self) -> object:
        """One round trip."""
        self._id += 2
        self._sock.sendall(self._pack((1, self._id, *_CALL)))
        self._unpacker.feed(self._sock.recv(65536))
        return self._unpacker.unpack()[2]

    def __enter__(self) -> BareSocket:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()


class BareProtocol(asyncio.Protocol):
    """The smallest asyncio client."""

    @classmethod
    async def connected(cls, path: Path) -> BareProtocol:
        """Connect to a socket."""
        return (await asyncio.get_running_loop().create_unix_connection(cls, str(path)))[1]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._pack = msgpack.Packer().pack
        self._unpacker = msgpack.Unpacker()
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[int, asyncio.Future[object]] = {}
        self._id = 1

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for frame in self._unpacker:
            self._waiters.pop(frame[1]).set_result(frame[2])

    async def ping(self) -> object:
        """One round trip."""
        self._id += 2
        self._waiters[self._id] = waiter = self._loop.create_future()
        self._transport.write(self._pack((1, self._id, *_CALL)))  # type: ignore[attr-defined]
        return await waiter

    def close(self) -> None:
        """Close the socket."""
        self._transport.close()
