"""(a) The round trip of the smallest call, against a bare uvloop server that answers the same msgpack frames.

Both ends run on one core: on two, the time to wake the other core hides everything else. What is compared uses
the same kind of client: the blocking `Client` with a bare blocking socket, `AsyncClient` with a bare uvloop
Protocol. About one pair of processes in seven is half as slow again for as long as it lives, bare ones too,
in user time alone and with as many switches and system calls; apparently a matter of where their memory lies in
the core's caches. So the servers are started anew several times, and each figure is the median of those runs.
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
from bench.measure import Figure, cores, figure, interleaved, median_ratio, percentile, pinned
from bench.stage import Bench, Endpoint, daemon_stack, helper
from ccd_client import AsyncClient, Client

GROUP = "a ping"
_CALL = ("daemon.ping", {}, 0, 0, 0)
_TARGET = "p50 at most 2× the bare echo"
_NAMES = {
    "echo": "echo, bare blocking socket",
    "ccd": "daemon.ping, Client (blocking)",
    "async echo": "echo, bare uvloop Protocol",
    "async ccd": "daemon.ping, AsyncClient (uvloop)",
}

Samples = dict[str, list[list[float]]]  # by way, then by run


def run(bench: Bench) -> list[Figure]:
    """Blocking and asyncio clients, each beside its floor."""
    samples: Samples = {name: [] for name in _NAMES}
    for number in range(bench.rounds(7, 3)):
        _one_run(bench, f"ping-{number}", samples)
    medians = {name: [statistics.median(run) for run in runs] for name, runs in samples.items()}
    return [_figure(name, samples, medians) for name in _NAMES]


def _figure(name: str, samples: Samples, medians: dict[str, list[float]]) -> Figure:
    p99_us = statistics.median(percentile(run, 0.99) for run in samples[name])
    note = f"p99 {p99_us:.1f}; medians of {len(medians[name])} pairs of processes"
    if "ccd" not in name:
        return figure(GROUP, _NAMES[name], "µs", medians[name], note=note)
    ratio = median_ratio(medians[name], medians[name.replace("ccd", "echo")])
    return figure(
        GROUP, _NAMES[name], "µs", medians[name], ratio=ratio, floor="echo", target=_TARGET, note=note
    )


def _one_run(bench: Bench, room: str, samples: Samples) -> None:
    """Start the servers, and add a run to each way's samples."""
    folder = bench.room(room)
    echo = folder / "echo.sock"
    # Spares would only be in the way: a ping concerns no worker.
    with (
        helper("echo_server.py", str(echo), folder=folder) as floor,
        daemon_stack(folder / "ccd", stand_in(folder), Endpoint(), CCD_POOL__SPARES="0") as stack,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        core = cores()[-1]
        with pinned({0: core, floor.pid: core, stack.daemon.pid: core}):
            for name, batch in _batches(bench, runner, echo, stack.socket).items():
                samples[name].append(batch)


def _batches(bench: Bench, runner: asyncio.Runner, echo: Path, ccd: Path) -> dict[str, list[float]]:
    """Ping on every way, in turns; microseconds by way."""
    bare = runner.run(BareProtocol.connected(echo))
    client = AsyncClient(ccd)
    with BareSocket(echo) as bare_socket, Client(ccd) as blocking:
        batches = {
            "echo": _Batch(bare_socket.ping),
            "ccd": _Batch(blocking.ping),
            "async echo": _AsyncBatch(bare.ping, runner),
            "async ccd": _AsyncBatch(client.ping, runner),
        }
        for batch in batches.values():
            batch()  # connects, and warms caches
            batch.samples_us.clear()
        interleaved(bench.rounds(16, 8), dict(batches), bench.random)
    runner.run(client.close())
    bare.close()
    return {name: batch.samples_us for name, batch in batches.items()}


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
