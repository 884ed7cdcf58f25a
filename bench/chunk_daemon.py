"""A stand-in for the daemon that answers `chat.stream` at a chosen pace, for benchmarks of what stands before it.

Run with the path of its socket; it takes orders on stdin, one a line, and answers each with a line:

- `go RATE COUNT`: send COUNT chunks on every open stream, RATE a second on each, the streams evenly spread over the
  time, so that no two come together unless they must; answers with the seconds it took.
- `finish`: end every open stream; answers with their number.

What a call is about is the text of its message: a number opens a stream that begins to answer and then waits for `go`,
`probe` is answered with one delta and ended. `chat.complete` is answered at once. Each chunk says which stream's and
which number it is, so that whoever reads them can tell whether one is missing or late.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Any

from bench.feeder import BEGIN, LINE_BYTES, token_line
from ccd_protocol.errors import Code
from ccd_protocol.peer import Called, Cancelled, Closed, Peer

_USAGE = {
    "input_tokens": 5,
    "output_tokens": 7,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
}
RESULT = {
    "stop_reason": "end_turn", "stop_sequence": None, "model": "bench", "usage": _USAGE, "cost_usd": 0.0,
    "duration_ms": 1, "api_calls": 1, "worker": "w1", "mode": "full", "ignored": [],
}  # fmt: skip
ANSWER = {**RESULT, "text": "hello", "content": [{"type": "text", "text": "hello"}]}
_LINE = token_line()
_HEAD, _TAIL = _LINE[: _LINE.index(b'"xxx') + 1], _LINE[_LINE.rindex(b'x"') + 1 :]


def chunk(stream: str, number: int) -> bytes:
    """A token line of `LINE_BYTES` whose text is `STREAM:NUMBER ` and padding."""
    text = b"%b:%d " % (stream.encode(), number)
    return _HEAD + text.ljust(LINE_BYTES - len(_HEAD) - len(_TAIL), b"x") + _TAIL


class Connection:
    """One connection and the streams on it, by call id."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.peer = Peer("accepting", "bench")
        self.streams: dict[int, str] = {}

    def receive(self) -> bool:
        """Read once and answer; whether the connection is still there."""
        data = self.sock.recv(1 << 18)
        for event in self.peer.receive(data):
            if isinstance(event, Called):
                self._answer(event)
            elif isinstance(event, Cancelled):
                self.streams.pop(event.id, None)
                self.peer.fail(event.id, Code.CANCELLED)
            elif isinstance(event, Closed):
                raise RuntimeError(event.message)
        self.flush()
        return bool(data)

    def _answer(self, call: Called) -> None:
        if call.method == "chat.complete":
            self.peer.end(call.id, ANSWER)
            return
        if call.method != "chat.stream":
            self.peer.fail(call.id, Code.NO_METHOD)
            return
        text = _text(call.params)
        self.peer.item(call.id, BEGIN + chunk(text, 0))
        if text == "probe":
            self.peer.end(call.id, RESULT)
        else:
            self.streams[call.id] = text

    def flush(self) -> None:
        """Write what the peer has to say, in one piece, as the daemon does."""
        out = self.peer.outgoing()
        if out:
            self.sock.sendall(b"".join(out))

    def finish(self) -> int:
        """End every stream."""
        count = len(self.streams)
        for call_id in self.streams:
            self.peer.end(call_id, RESULT)
        self.streams.clear()
        self.flush()
        return count


def _text(params: dict[str, Any]) -> str:
    content = params["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


class Daemon:
    """The listener and its connections, on one thread without an event loop: pacing needs microseconds."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._connections: dict[int, Connection] = {}

    def serve(self) -> None:
        """Take calls and orders until stdin ends."""
        stdin = sys.stdin.fileno()
        while True:
            if stdin in self._poll(None, [stdin]):
                order = sys.stdin.readline().split()
                if not order:
                    return
                print(self._obey(*order), flush=True)

    def _obey(self, order: str, *numbers: str) -> str:
        if order == "go":
            return json.dumps(self._go(float(numbers[0]), int(numbers[1])))
        return json.dumps(sum(connection.finish() for connection in self._connections.values()))

    def _poll(self, timeout_s: float | None, also: list[int]) -> list[int]:
        """Serve what there is to serve, waiting so long for it; which of `also` can be read."""
        mine = [self._listener.fileno(), *self._connections]
        readable, _, _ = select.select(mine + also, (), (), timeout_s)
        for fd in readable:
            if fd == mine[0]:
                sock, _ = self._listener.accept()
                connection = self._connections[sock.fileno()] = Connection(sock)
                connection.flush()
            elif fd in self._connections and not self._connections[fd].receive():
                self._connections.pop(fd).sock.close()
        return [fd for fd in readable if fd in also]

    def _go(self, rate: float, count: int) -> float:
        streams = [
            (connection, call_id, text)
            for connection in self._connections.values()
            for call_id, text in connection.streams.items()
        ]
        step_s = 1 / (rate * len(streams))
        started = due = time.perf_counter()
        touched: set[Connection] = set()
        for number in range(1, count + 1):
            for connection, call_id, text in streams:
                now = time.perf_counter()
                if now < due:
                    while touched:
                        touched.pop().flush()
                    self._wait(due)
                if connection.peer.item(call_id, chunk(text, number)) <= 0:
                    raise RuntimeError("a stream is held back; the reader is too slow")
                touched.add(connection)
                due += step_s
        while touched:
            touched.pop().flush()
        return time.perf_counter() - started

    def _wait(self, due: float) -> None:
        left = due - time.perf_counter()
        while left > 0:
            self._poll(left, [])
            left = due - time.perf_counter()


if __name__ == "__main__":
    print("listening", flush=True)
    Daemon(sys.argv[1]).serve()
