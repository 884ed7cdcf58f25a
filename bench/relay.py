"""(b) What it costs the daemon to pass a token line on: its CPU time (user and system) per 255-byte line.

Both ends run on one core, as in `bench.ping`. Real: the daemon process with all of its code, its pipes, its
workers' life, its socket, credit. Stand-in: the process behind each pipe (`bench.feeder`). Each round
writes one chunk on every stream and then waits for all of them, so that a read brings exactly one chunk;
the items counted at the other end prove it. The floor is a bare uvloop process with as many pipes that puts
a header before each read (`bench.bare_relay`), measured in turns with the daemon.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack

from bench.feeder import MANY, stand_in, token_line
from bench.measure import Figure, cores, cpu_s, figure, interleaved, median_ratio, percentile, pinned
from bench.stage import Bench, Endpoint, Stack, daemon_stack, helper
from bench.streams import Streams, streams

GROUP = "b relay"
_TARGETS = {(100, 16): "at most 1 µs", (100, 1): "at most 2 µs"}
_HEADER_BYTES = 8  # before each read, in the bare relay


def run(bench: Bench) -> list[Figure]:
    """1, 100 and 1,000 streams, at 1 and 16 lines per read."""
    folder = bench.room("relay")
    found: list[Figure] = []
    with ExitStack() as held:
        floors = {count: held.enter_context(BareRelay(bench, count)) for count in (1, 100, 1000)}
        stack = held.enter_context(daemon_stack(folder / "ccd", stand_in(folder), Endpoint(), **MANY))
        opened = held.enter_context(streams(stack))
        for count, bare in floors.items():
            bench.say(f"{count} streams")
            opened.open(count)
            bare.open()
            for lines in (16, 1):
                found.append(_measure(bench, stack, opened, bare, lines))
    return found


def _measure(bench: Bench, stack: Stack, opened: Streams, bare: BareRelay, lines: int) -> Figure:
    count = len(opened)
    chunk = token_line() * lines
    rounds = min(3000, max(5, bench.rounds(30_000, 10_000) // (count * lines)))
    per_chunk: list[float] = []

    def daemon() -> None:
        per_chunk.append(opened.relay(chunk, rounds))

    us = 1e6 / (count * lines * rounds)
    runs = {
        "ccd": _cpu_of(stack.daemon.pid, daemon, us),
        "bare": _cpu_of(bare.pid, lambda: bare.relay(chunk, rounds), us),
    }
    core = cores()[-1]
    with pinned({0: core, stack.daemon.pid: core, bare.pid: core}):
        for once in runs.values():
            once()
        samples = interleaved(bench.rounds(9, 5), runs, bench.random)
    opened.check_even()
    bare_us = percentile(samples["bare"], 0.5)
    items = sum(per_chunk) / len(per_chunk)
    return figure(
        GROUP,
        f"{count} stream{'s' * (count > 1)}, {lines} line{'s' * (lines > 1)} per read",
        "µs/line",
        samples["ccd"],
        ratio=median_ratio(samples["ccd"], samples["bare"]),
        floor="bare",
        target=_TARGETS.get((count, lines), ""),
        note=f"bare relay {bare_us:.2f} µs/line; {items:.2f} items per chunk",
    )


def _cpu_of(pid: int, work: Callable[[], None], scale: float) -> Callable[[], float]:
    def once() -> float:
        before = cpu_s(pid)
        work()
        return (cpu_s(pid) - before) * scale

    return once


class BareRelay:
    """The bare relay's process, its pipes and its socket."""

    def __init__(self, bench: Bench, count: int) -> None:
        folder = bench.room(f"bare-{count}")
        path = folder / "relay.sock"
        self._process = helper("bare_relay.py", str(path), str(count), folder=folder)
        self._running = self._process.__enter__()
        self.pid = self._running.pid
        self._pipes: list[int] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(str(path))

    def open(self) -> None:
        """Open the write ends; not before, as processes are started before descriptors are many."""
        ends = json.loads(self._running.ready_line)
        self._pipes = [os.open(f"/proc/{self.pid}/fd/{fd}", os.O_WRONLY) for fd in ends]

    def relay(self, chunk: bytes, rounds: int) -> None:
        """Write `chunk` on every pipe and wait until all have come, `rounds` times."""
        for _ in range(rounds):
            for pipe in self._pipes:
                os.write(pipe, chunk)
            missing = (len(chunk) + _HEADER_BYTES) * len(self._pipes)
            while missing > 0:
                missing -= len(self._sock.recv(1 << 20))

    def __enter__(self) -> BareRelay:
        return self

    def __exit__(self, *exc: object) -> None:
        for pipe in self._pipes:
            os.close(pipe)
        self._sock.close()
        self._process.__exit__(None, None, None)
