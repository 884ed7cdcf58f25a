"""Many open `chat.stream` calls on a real daemon whose workers are stand-ins, driven from one process."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.feeder import Feeder
from bench.stage import Stack
from ccd_client import Client
from ccd_protocol.peer import CallFailed, Ended, Item, Peer

CALLS_PER_CONNECTION = 250
_WINDOW_BYTES = 262_144


class Consumer:
    """One connection to the daemon that counts what comes, and gives it back as credit."""

    def __init__(self, path: Path, text: str = "hello") -> None:
        self._chat = {"messages": [{"role": "user", "content": text}], "model": "bench"}
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.peer = Peer("connecting", "bench")
        self.got_bytes: dict[int, int] = {}
        self.items = 0
        self.ended = 0

    def call(self) -> None:
        """Open one more stream."""
        self.got_bytes[self.peer.call("chat.stream", self._chat, window=_WINDOW_BYTES)] = 0
        self.flush()

    def flush(self) -> None:
        """Write what the peer has to say."""
        out = self.peer.outgoing()
        if out:
            self.sock.sendall(b"".join(out))

    def receive(self) -> int:
        """Read once; returns the bytes of payload."""
        count = 0
        for event in self.peer.receive(self.sock.recv(1 << 20)):
            if isinstance(event, Item):
                count += len(event.payload)
                self.items += 1
                self.got_bytes[event.id] += len(event.payload)
                self.peer.consumed(event.id, len(event.payload))
            elif isinstance(event, Ended):
                self.ended += 1
            elif isinstance(event, CallFailed):
                raise RuntimeError(f"the daemon failed a stream: {event}")
        self.flush()
        return count


class Streams:
    """All streams of one stack."""

    def __init__(self, stack: Stack) -> None:
        self.feeder = Feeder()
        self.consumers: list[Consumer] = []
        self._stack = stack
        self._poll = select.epoll()
        self._by_fd: dict[int, Consumer] = {}

    def __len__(self) -> int:
        return sum(len(consumer.got_bytes) for consumer in self.consumers)

    def open(self, total: int) -> None:
        """Open streams until there are `total`, and wait until each has begun to answer."""
        missing = total - len(self)
        with Client(self._stack.socket) as client:
            client.workers()  # connects; a daemon that starts a thousand processes may not greet within two seconds
            for _ in range(missing):
                if not self.consumers or len(self.consumers[-1].got_bytes) >= CALLS_PER_CONNECTION:
                    self._connect()
                self.consumers[-1].call()
            while len(self.feeder.answering) < total:
                self.feeder.adopt(
                    [row["pid"] for row in client.workers()["workers"] if row["state"] != "spawning"]
                )
                while self.feeder.serve(0.02):
                    pass
        self.receive(len(self.feeder.begin) * missing)
        for consumer in self.consumers:
            consumer.got_bytes = dict.fromkeys(consumer.got_bytes, 0)

    def _connect(self) -> None:
        consumer = Consumer(self._stack.socket)
        self.consumers.append(consumer)
        self._by_fd[consumer.sock.fileno()] = consumer
        self._poll.register(consumer.sock, select.EPOLLIN)

    def receive(self, nbytes: int) -> None:
        """Read until so many bytes of payload have come."""
        while nbytes > 0:
            for fd, _ in self._poll.poll():
                nbytes -= self._by_fd[fd].receive()

    def relay(self, chunk: bytes, rounds: int) -> float:
        """Write `chunk` on every stream and wait until all have come, `rounds` times; items per chunk."""
        before = sum(consumer.items for consumer in self.consumers)
        for _ in range(rounds):
            for stdout in self.feeder.answering:
                os.write(stdout, chunk)
            self.receive(len(chunk) * len(self.feeder.answering))
        items = sum(consumer.items for consumer in self.consumers) - before
        return items / (rounds * len(self.feeder.answering))

    def check_even(self) -> None:
        """Every stream must have got the same number of bytes; else the figures are worthless."""
        if len({count for consumer in self.consumers for count in consumer.got_bytes.values()}) != 1:
            raise RuntimeError("the streams did not all get the same")

    def finish(self) -> None:
        """End every stream."""
        count = len(self.feeder.answering)
        self.feeder.finish()
        while sum(consumer.ended for consumer in self.consumers) < count:
            for fd, _ in self._poll.poll():
                self._by_fd[fd].receive()

    def close(self) -> None:
        """Drop all connections and pipes."""
        for consumer in self.consumers:
            consumer.sock.close()
        self._poll.close()
        self.feeder.close()


@contextmanager
def streams(stack: Stack) -> Iterator[Streams]:
    """Streams that are dropped at the end of a with block."""
    opened = Streams(stack)
    try:
        yield opened
    finally:
        opened.close()
