"""(c) What ccd itself adds to the first delta: the process behind the pipes is a stand-in.

The stand-in's pipes are held by this process, which answers the moment it has read the request. By hand,
that is two pipes and nothing else; through the socket and the gateway all of ccd is real.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
from contextlib import ExitStack
from time import perf_counter

from bench.feeder import BEGIN, MANY, Feeder, stand_in, token_line
from bench.measure import Figure, figure, interleaved
from bench.stage import Bench, Endpoint, Stack, daemon_stack
from bench.streams import Consumer
from bench.turns import engine_lines
from ccd_client import Client

GROUP = "c first delta"
_CHAT = {"messages": [{"role": "user", "content": "hello"}], "model": "bench"}
_HTTP = json.dumps({**_CHAT, "stream": True}).encode()
_POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: %b\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)
_DELTA = BEGIN + token_line()


def run(bench: Bench) -> list[Figure]:
    """By hand, through the socket, through the gateway; in turns."""
    folder = bench.room("added")
    settings = MANY | {"CCD_ENGINE__RESET_TURNS": "100000", "CCD_ENGINE__MAX_TURNS": "100000"}
    with ExitStack() as held:
        stack = held.enter_context(
            daemon_stack(folder / "ccd", stand_in(folder), Endpoint(), gateway=True, **settings)
        )
        cli = PlayedCli(stack)
        held.callback(cli.close)
        gateway = Gateway(stack, cli)
        held.callback(gateway.close)
        way = {"by hand": Pipes().turn, "socket": Socket(stack, cli).turn, "gateway": gateway.turn}
        for turn in way.values():
            for _ in range(20):
                turn()
        samples = interleaved(bench.rounds(600, 150), way, bench.random)
    hand = statistics.median(samples["by hand"])
    targets = {"socket": "within 2 ms of hand-driven", "gateway": "within 5 ms of hand-driven"}
    return [
        figure(
            GROUP,
            f"added by ccd alone, {name}",
            "ms",
            [value - hand for value in samples[name]],
            target=target,
        )
        for name, target in targets.items()
    ]


class PlayedCli:
    """The one worker of a daemon, played by this process."""

    def __init__(self, stack: Stack) -> None:
        self._feeder = Feeder(begin=_DELTA)
        self._stack = stack

    def answer(self) -> None:
        """Wait for a request and write the beginning of an answer."""
        while not self._feeder.serve(0.01 if not self._feeder.adopted else 1.0):
            with Client(self._stack.socket) as client:
                self._feeder.adopt([row["pid"] for row in client.workers()["workers"] if row["pid"]])

    def finish(self) -> None:
        """End the answer."""
        self._feeder.finish()

    def close(self) -> None:
        """Let go of the pipes."""
        self._feeder.close()


class Pipes:
    """Two pipes and the bytes that the daemon would write."""

    def __init__(self) -> None:
        self._stdin = os.pipe()
        self._stdout = os.pipe()

    def turn(self) -> float:
        """Milliseconds for a request and the first delta."""
        started = perf_counter()
        os.write(self._stdin[1], engine_lines("r1"))
        json.loads(os.read(self._stdin[0], 1 << 20).splitlines()[-1])
        os.write(self._stdout[1], _DELTA)
        os.read(self._stdout[0], 1 << 20)
        return 1000 * (perf_counter() - started)


class Socket:
    """A stream over the daemon's socket."""

    def __init__(self, stack: Stack, cli: PlayedCli) -> None:
        self._consumer = Consumer(stack.socket)
        self._cli = cli

    def turn(self) -> float:
        """Milliseconds for a request and the first delta."""
        consumer, ended = self._consumer, self._consumer.ended
        started = perf_counter()
        consumer.call()
        self._cli.answer()
        left = len(_DELTA)
        while left > 0:
            left -= consumer.receive()
        took = perf_counter() - started
        self._cli.finish()
        while consumer.ended == ended:
            consumer.receive()
        return 1000 * took


class Gateway:
    """A stream over HTTP."""

    def __init__(self, stack: Stack, cli: PlayedCli) -> None:
        host = stack.url.removeprefix("http://")
        address, _, port = host.rpartition(":")
        self._sock = socket.create_connection((address, int(port)))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = _POST % (host.encode(), len(_HTTP), _HTTP)
        self._cli = cli

    def turn(self) -> float:
        """Milliseconds for a request and the first delta."""
        started = perf_counter()
        self._sock.sendall(self._request)
        self._cli.answer()
        self._until(b'"content":"x')
        took = perf_counter() - started
        self._cli.finish()
        self._until(b"0\r\n\r\n")
        return 1000 * took

    def _until(self, mark: bytes) -> None:
        data = b""
        while mark not in data:
            data += self._sock.recv(1 << 20)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()
