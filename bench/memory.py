"""(d) Memory of the daemon and the gateway when idle, and of the daemon with many streams open that hang.

Idle is the real daemon with its two real spares, after a few answers. The open streams are answered by
stand-ins (`bench.feeder`), as nobody has the memory for 500 CLI processes: they have begun their answer and
say nothing more, so what is counted is what the daemon keeps for a stream and its worker. What the gateway keeps for a
streamed response is in (g).
"""

from __future__ import annotations

import time

from bench.feeder import MANY, stand_in, token_line
from bench.measure import Figure, memory_bytes, single
from bench.stage import Bench, Endpoint, daemon_stack, instant_api, wait_until
from bench.streams import streams
from bench.turns import Http, settled, through_socket
from ccd_client import Client
from ccd_daemon.process.process import children

GROUP = "d memory"
_MB = 1e6


def run(bench: Bench) -> list[Figure]:
    """Idle, then the daemon with open streams."""
    return _idle(bench) + _daemon(bench, bench.rounds(500, 200))


def _tree(pid: int) -> list[int]:
    """A gateway's master and its workers."""
    return [pid, *children(pid)]


def _sum(pids: list[int]) -> tuple[float, float]:
    pairs = [memory_bytes(pid) for pid in pids]
    return sum(rss for rss, _ in pairs) / _MB, sum(pss for _, pss in pairs) / _MB


def _row(name: str, sizes: tuple[float, float], target: str = "") -> Figure:
    return single(GROUP, name, "MB RSS", sizes[0], note=f"PSS {sizes[1]:.1f} MB", target=target)


def _per_stream(name: str, before: tuple[float, float], after: tuple[float, float], count: int) -> Figure:
    rss, pss = ((after[i] - before[i]) * 1000 / count for i in (0, 1))
    return single(GROUP, name, "kB RSS", rss, note=f"PSS {pss:.1f} kB; {count} streams")


def _idle(bench: Bench) -> list[Figure]:
    folder = bench.room("memory-idle")
    with instant_api(folder) as api, daemon_stack(folder / "ccd", bench.cli, api, gateway=True) as stack:
        http = Http(stack.url)
        with Client(stack.socket) as client:
            for _ in range(5):
                through_socket(client)
                http.gateway()
        http.close()
        wait_until(lambda: settled(stack, 3), what="an idle daemon")
        time.sleep(0.5)
        assert stack.gateway is not None
        gateway = _tree(stack.gateway.pid)
        return [
            _row("daemon, idle", _sum([stack.daemon.pid]), "at most 50 MB"),
            _row(f"gateway, idle, {len(gateway)} processes", _sum(gateway)),
        ]


def _daemon(bench: Bench, count: int) -> list[Figure]:
    folder = bench.room("memory-daemon")
    with (
        daemon_stack(folder / "ccd", stand_in(folder), Endpoint(), **MANY) as stack,
        streams(stack) as opened,
    ):
        opened.open(1)
        empty = _sum([stack.daemon.pid])
        opened.open(count + 1)
        opened.relay(token_line(), 2)
        full = _sum([stack.daemon.pid])
        opened.finish()
        wait_until(lambda: settled(stack, count + 1), what="all streams to have ended")
        idle = _sum([stack.daemon.pid])
    return [
        _per_stream("daemon, per open stream and its worker", empty, full, count),
        _per_stream("daemon, per idle worker", empty, idle, count),
    ]
