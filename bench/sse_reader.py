"""Many HTTP clients in one process: opens streams, reads them, and checks that nothing is missing or out of order.

Run with the URL; it takes orders on stdin, one a line, and answers each with a line:

- `open COUNT`: have so many streams open, each with its first delta; answers with their number.
- `read COUNT`: read until so many further chunks have come on each; answers with `{chunks, wrong}`, where `wrong`
  counts the streams that did not get exactly theirs, in order.
- `ask COUNT CONNECTIONS`: so many requests that are not streamed, on so many connections; answers with the seconds.
- `close`: drop every stream.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time

_DELAY_S = 30.0
_CHUNK = re.compile(rb'"(?:content|text)":"(\d+):(\d+) ')
_FIRST = re.compile(rb'"(?:content|text)":"\d+:0 x*"')
_MARK = b" xxx"  # once in every chunk


class Stream:
    """One open response."""

    def __init__(self, name: int, sock: socket.socket) -> None:
        self.name = str(name).encode()
        self.sock = sock
        self.pieces: list[bytes] = []

    def whole(self, first: int, count: int) -> bool:
        """Whether exactly these chunks came, in order, all of them this stream's."""
        found = _CHUNK.findall(b"".join(self.pieces))
        return found == [(self.name, str(number).encode()) for number in range(first, first + count)]


class Reader:
    """All clients of one server."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._address = (host, int(port))
        self._streams: dict[int, Stream] = {}
        self._poll = select.epoll()

    def open(self, count: int) -> int:
        """Open streams until there are `count`."""
        for _ in range(count - len(self._streams)):
            self._open_one(len(self._streams))
        return len(self._streams)

    def _open_one(self, name: int) -> None:
        sock = socket.create_connection(self._address)
        sock.sendall(_request(self._address, str(name), stream=True))
        data = b""
        while not _FIRST.search(data):
            piece = sock.recv(1 << 16)
            if not piece:
                raise RuntimeError(f"no stream: {data!r}")
            data += piece
        sock.setblocking(False)
        self._streams[sock.fileno()] = Stream(name, sock)
        self._poll.register(sock, select.EPOLLIN)

    def read(self, count: int) -> str:
        """Read so many chunks on each stream, and look at them afterwards."""
        expected = count * len(self._streams)
        got, until = 0, time.monotonic() + _DELAY_S
        while got < expected and time.monotonic() < until:
            for fd, _ in self._poll.poll(1.0, 256):
                piece = self._streams[fd].sock.recv(1 << 16)
                if not piece:
                    raise RuntimeError("a stream ended early")
                self._streams[fd].pieces.append(piece)
                got += piece.count(_MARK)
                until = time.monotonic() + _DELAY_S
        wrong = sum(not stream.whole(1, count) for stream in self._streams.values())
        for stream in self._streams.values():
            stream.pieces.clear()
        return json.dumps({"chunks": got, "wrong": wrong})

    def close(self) -> int:
        """Drop every stream."""
        for stream in self._streams.values():
            stream.sock.close()
        self._streams.clear()
        return 0

    def ask(self, count: int, connections: int) -> float:
        """Ask for whole answers, each connection one after the other."""
        request = _request(self._address, "whole", stream=False)
        poll = select.epoll()
        socks = {
            sock.fileno(): sock
            for sock in (socket.create_connection(self._address) for _ in range(connections))
        }
        started, left, waiting = time.perf_counter(), count, 0
        for fd, sock in socks.items():
            poll.register(fd, select.EPOLLIN)
            sock.sendall(request)
            left, waiting = left - 1, waiting + 1
        while waiting:
            for fd, _ in poll.poll():
                data = socks[fd].recv(1 << 16)
                while not _is_whole(data):
                    data += socks[fd].recv(1 << 16)
                if b" 200 " not in data[:16]:
                    raise RuntimeError(f"refused: {data!r}")
                waiting -= 1
                if left > 0:
                    socks[fd].sendall(request)
                    left, waiting = left - 1, waiting + 1
        took_s = time.perf_counter() - started
        for sock in socks.values():
            sock.close()
        return took_s


def _request(address: tuple[str, int], text: str, *, stream: bool) -> bytes:
    body = json.dumps(
        {"model": "bench", "messages": [{"role": "user", "content": text}], "stream": stream}
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address[0]}:{address[1]}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _is_whole(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return bool(found) and length is not None and len(body) >= int(length[1])


def _obey(reader: Reader, order: str, *numbers: str) -> object:
    return getattr(reader, {"open": "open", "read": "read", "ask": "ask", "close": "close"}[order])(
        *map(int, numbers)
    )


if __name__ == "__main__":
    clients = Reader(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        print(_obey(clients, *line.split()), flush=True)
