"""(g) What the gateway costs, by itself: the daemon is a stand-in that paces its chunks (`bench.chunk_daemon`).

Everything of the gateway is real: gunicorn's master and its two workers, Falcon, every check, the client library. CPU
is that of all three processes, less what they use when nothing is sent. The floor is a bare uvloop process between the
same two sockets (`bench.bare_gateway`), measured in turns; for answers that are not streamed, a bare Falcon application
on the same server (`bench.bare_falcon`). The reader of the streams checks every chunk of every stream.
"""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

from bench.measure import Figure, cpu_s, figure, interleaved, median_ratio, single
from bench.side import RATE, Part, Side
from bench.stage import Bench, free_port, helper
from bench.streams import Consumer
from ccd_daemon.process.process import children

GROUP = "g gateway"
_COUNTS = (1, 100, 1000)
_CONNECTIONS = 16
_CPU_TARGET = "at most 40 µs"
_MEMORY_TARGET = "at most 24.6 kB (24 KiB)"


def run(bench: Bench) -> list[Figure]:
    """Chunks, first deltas and memory at each number of streams; then answers that are not streamed."""
    folder = bench.room("gateway")
    found: list[Figure] = []
    sizes: dict[int, tuple[float, float]] = {}
    with ExitStack() as held:
        gateway, bare = (held.enter_context(Side(folder, name)) for name in ("gateway", "bare"))
        for count in _COUNTS:
            bench.say(f"{count} streams")
            for side in (gateway, bare):
                side.reader.ask(f"open {count}")
            found += [_chunks(bench, gateway, bare, count), _first_delta(bench, gateway, bare, count)]
            sizes[count] = gateway.memory()
        found.append(_memory(sizes))
        for side in (gateway, bare):
            side.close_streams()
        found += _whole(bench, folder, gateway)
    return found


def _chunks(bench: Bench, gateway: Side, bare: Side, count: int) -> Figure:
    each = RATE * bench.rounds(5, 2 if count == 1 else 1)
    wrong, behind = 0, 0.0

    def cpu_of(side: Side) -> Callable[[], float]:
        share = side.idle_share(bench.rounds(3, 1))

        def once() -> float:
            nonlocal wrong, behind
            before, started = side.cpu_s(), perf_counter()
            side.go(each)
            arrived = side.arrived()
            used_s = side.cpu_s() - before - share * (perf_counter() - started)
            if side is gateway:
                wrong += arrived.wrong + (arrived.chunks != each * count)
                behind = max(behind, arrived.took_s * RATE / each - 1)
            return 1e6 * used_s / (each * count)

        once()
        return once

    runs = {"gateway": cpu_of(gateway), "bare": cpu_of(bare)}
    samples = interleaved(bench.rounds(5, 3), runs, bench.random)
    if wrong:
        raise RuntimeError(f"{wrong} of {count} streams did not get exactly their chunks")
    floor_us = statistics.median(samples["bare"])
    more_us = statistics.median(a - b for a, b in zip(samples["gateway"], samples["bare"], strict=True))
    return figure(
        GROUP,
        f"CPU per chunk, {_streams(count)}",
        "µs",
        samples["gateway"],
        ratio=median_ratio(samples["gateway"], samples["bare"]),
        floor="bare",
        target=_CPU_TARGET,
        note=f"bare {floor_us:.1f} µs, the gateway {more_us:.1f} µs more; {RATE} chunks/s each, none lost or out of "
        f"order, at most {max(0.0, behind):.0%} behind",
    )


def _streams(count: int) -> str:
    return f"{count} stream{'s' * (count > 1)}"


def _first_delta(bench: Bench, gateway: Side, bare: Side, count: int) -> Figure:
    """One request after another while the streams go on; each side in turns, and the stand-in by itself."""
    rounds = bench.rounds(150, 40)
    samples: dict[str, list[float]] = {}
    for side in (gateway, bare):
        direct, http = Direct(side), Http(side)
        side.go(2 * rounds // RATE * 3)
        ways = {"direct": direct.turn, "http": http.turn}
        for name, values in interleaved(rounds, ways, bench.random).items():
            samples[f"{side.name} {name}"] = values
        side.arrived()
        direct.close()
        http.close()
    added = {
        name: [a - b for a, b in zip(samples[f"{name} http"], samples[f"{name} direct"], strict=True)]
        for name in ("gateway", "bare")
    }
    return figure(
        GROUP,
        f"added to the first delta, {_streams(count)} going on",
        "ms",
        added["gateway"],
        note=f"bare adds {statistics.median(added['bare']):.2f} ms",
    )


class Direct:
    """A request straight to the stand-in."""

    def __init__(self, side: Side) -> None:
        self._consumer = Consumer(side.socket, "probe")

    def turn(self) -> float:
        """Milliseconds to the first delta."""
        consumer, ended = self._consumer, self._consumer.ended
        started = perf_counter()
        consumer.call()
        while not consumer.receive():
            pass
        took = perf_counter() - started
        while consumer.ended == ended:
            consumer.receive()
        return 1000 * took

    def close(self) -> None:
        """Drop the connection."""
        self._consumer.sock.close()


class Http:
    """The same request over HTTP, on a connection that stays open."""

    def __init__(self, side: Side) -> None:
        host, _, port = side.url.removeprefix("http://").rpartition(":")
        self._sock = socket.create_connection((host, int(port)))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = json.dumps(
            {"model": "bench", "messages": [{"role": "user", "content": "probe"}], "stream": True}
        ).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body

    def turn(self) -> float:
        """Milliseconds to the first delta."""
        started = perf_counter()
        self._sock.sendall(self._request)
        data = b""
        while b'":"probe:0' not in data:
            data += self._sock.recv(1 << 16)
        took = perf_counter() - started
        while not data.endswith(b"0\r\n\r\n"):
            data += self._sock.recv(1 << 16)
        return 1000 * took

    def close(self) -> None:
        """Drop the connection."""
        self._sock.close()


def _memory(sizes: dict[int, tuple[float, float]]) -> Figure:
    """What each stream from the 100th to the 1,000th has added; the first hundred warm the processes up."""
    few, many = _COUNTS[-2:]
    rss, pss = ((sizes[many][i] - sizes[few][i]) / (many - few) for i in (0, 1))
    return single(
        GROUP, "memory per open stream", "kB PSS", pss, target=_MEMORY_TARGET,
        note=f"RSS {rss:.1f} kB; growth from {few} to {many:,} streams that send, master and workers together",
    )  # fmt: skip


def _whole(bench: Bench, folder: Path, gateway: Side) -> list[Figure]:
    """Requests that are not streamed, on so many connections at a time."""
    requests = bench.rounds(2000, 500)
    with helper("bare_falcon.py", f"127.0.0.1:{free_port()}", folder=folder) as falcon:
        time.sleep(0.5)  # for its workers
        reader = Part(folder, "sse_reader", falcon.ready_line)
        rates: dict[str, list[float]] = {}
        costs: dict[str, list[float]] = {}

        def rate_of(name: str, part: Part, pid: int) -> Callable[[], float]:
            def once() -> float:
                pids = [pid, *children(pid)]
                before = sum(map(cpu_s, pids))
                took_s = part.ask(f"ask {requests} {_CONNECTIONS}")
                costs.setdefault(name, []).append(1e6 * (sum(map(cpu_s, pids)) - before) / requests)
                return requests / float(took_s)

            once()
            costs.clear()
            return once

        runs = {
            "gateway": rate_of("gateway", gateway.reader, gateway.server.pid),
            "falcon": rate_of("falcon", reader, falcon.pid),
        }
        rates = interleaved(bench.rounds(7, 3), runs, bench.random)
        reader.close()
    return [
        figure(
            GROUP, f"answers that are not streamed, {_CONNECTIONS} connections", "requests/s", rates["gateway"],
            ratio=median_ratio(rates["gateway"], rates["falcon"]), floor="bare Falcon",
            note=f"bare Falcon on gunicorn {statistics.median(rates['falcon']):.0f} requests/s",
        ),
        figure(
            GROUP, "the same, CPU per request", "µs", costs["gateway"],
            ratio=median_ratio(costs["gateway"], costs["falcon"]), floor="bare Falcon",
            note=f"bare Falcon on gunicorn {statistics.median(costs['falcon']):.0f} µs",
        ),
    ]  # fmt: skip
