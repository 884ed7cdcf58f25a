"""(e) How fast processes come: spawns per second, and the time until a pool that was emptied is full.

With the real CLI a start costs a third of a second of CPU, so the floor is the same number of processes
started by hand, as many at a time as there are cores, until each has answered `initialize`. With stand-ins,
which cost next to nothing, what is left is the daemon's own share.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.feeder import MANY, stand_in
from bench.measure import Figure, cores, cpu_s, figure, median_ratio
from bench.stage import Bench, Endpoint, Stack, daemon_stack, instant_api, wait_until
from bench.streams import streams
from bench.turns import HandDriven, settled, through_socket
from ccd_client import Client

GROUP = "e spawn"
_SPARES = 4


def run(bench: Bench) -> list[Figure]:
    """The real CLI by hand and by the pool, in turns; then stand-ins."""
    return _real(bench) + _own_share(bench)


def _real(bench: Bench) -> list[Figure]:
    folder = bench.room("spawn")
    settings = {
        "CCD_ENGINE__MAX_TURNS": "1",
        "CCD_POOL__SPARES": str(_SPARES),
        "CCD_POOL__MAX_WORKERS": str(2 * _SPARES),
    }
    by_hand: list[float] = []
    refill: list[float] = []
    with instant_api(folder) as api, daemon_stack(folder / "ccd", bench.cli, api, **settings) as stack:
        for _ in range(bench.rounds(8, 2)):
            wait_until(lambda: settled(stack, _SPARES), timeout_s=60, what="a full pool")
            time.sleep(0.3)
            by_hand.append(_started_by_hand(bench.cli, folder / "home", api))
            time.sleep(0.3)
            refill.append(_refilled(stack))
    rates = [_SPARES / seconds for seconds in by_hand]
    return [
        figure(GROUP, f"{_SPARES} processes by hand, {len(cores())} at a time, to ready", "s", by_hand),
        figure(GROUP, "the same, as a rate", "spawns/s", rates),
        figure(
            GROUP, f"pool full again after {_SPARES} leases", "s", refill,
            ratio=median_ratio(refill, by_hand), floor="by hand",
            note="from the first request on; includes the turns, and 0.25 s that are left to them",
        ),
    ]  # fmt: skip


def _started_by_hand(cli: Path, home: Path, api: Endpoint) -> float:
    """Seconds until `_SPARES` processes are initialised."""

    def one(_: int) -> HandDriven:
        process = HandDriven(cli, home, api)
        process.wait_ready()
        return process

    started = time.perf_counter()
    with ThreadPoolExecutor(len(cores())) as threads:
        processes = list(threads.map(one, range(_SPARES)))
        took = time.perf_counter() - started
    for process in processes:
        process.close()
    return took


def _refilled(stack: Stack) -> float:
    """Use every spare at once; seconds until as many others are ready."""
    used = {row["id"] for row in stack.workers()}

    def one() -> None:
        with Client(stack.socket) as client:
            through_socket(client)

    threads = [threading.Thread(target=one) for _ in range(_SPARES)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()

    def full() -> bool:
        ready = {row["id"] for row in stack.workers() if row["state"] == "ready"}
        return len(ready - used) >= _SPARES

    wait_until(full, timeout_s=60, what="a refilled pool")
    took = time.perf_counter() - started
    for thread in threads:
        thread.join()
    return took


def _own_share(bench: Bench) -> list[Figure]:
    folder = bench.room("spawn-own")
    count = bench.rounds(100, 50)
    took: list[float] = []
    cpu_ms: list[float] = []
    with (
        daemon_stack(folder / "ccd", stand_in(folder), Endpoint(), **MANY) as stack,
        streams(stack) as opened,
    ):
        for number in range(1, 6):
            before, started = cpu_s(stack.daemon.pid), time.perf_counter()
            opened.open(number * count)
            took.append(count / (time.perf_counter() - started))
            cpu_ms.append((cpu_s(stack.daemon.pid) - before) * 1000 / count)
    return [
        figure(GROUP, "stand-ins: request, spawn, warm, answer begun", "spawns/s", took),
        figure(GROUP, "stand-ins: the daemon's own CPU for it", "ms", cpu_ms),
    ]
