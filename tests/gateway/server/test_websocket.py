"""The WebSocket itself, on the wire: pings, limits, refusals, and its end with the gateway."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ccd_gateway.server.internals import WebSocket
from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import SESSION, Call, Daemon
from fakes.gateway_keys import add_key
from fakes.gateway_process import Gateway, read_until
from fakes.stack import wait_until

TEXT, CONTINUATION, CLOSE, PING, PONG = 1, 0, 8, 9, 10
FINAL = 0x80


@pytest.fixture(scope="module")
def agents(_daemon: Daemon) -> Iterator[Gateway]:
    limits = {"ping_s": 0.2, "max_message_bytes": 5000}
    with Gateway(_daemon.path, allow_agent_without_key="true", **limits) as running:
        yield running
    assert running.log == running.greeting


@pytest.fixture(autouse=True)
def _attached(daemon: Daemon) -> Iterator[None]:
    """Clients are shown one frame. Afterwards all of them must have left the daemon."""

    async def attach(call: Call) -> Any:
        init = {"type": "session_init", "session_id": "s1", "state": SESSION["state"]}
        await call.send(json.dumps(init).encode() + b"\n")
        await call.cancelled.wait()
        raise RpcError(Code.CANCELLED)

    daemon.scripts["session.attach"] = attach
    yield
    came = sum(method == "session.attach" for method, _ in daemon.calls)
    wait_until(lambda: len(daemon.cancelled) == came, what="the end of all that were attached")


def handshake(
    gateway: Gateway, path: str = "/ws/session/s1", host: str = "localhost", more: str = ""
) -> socket.socket:
    connection = gateway.connect()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n".encode()
    )
    return connection


def send(connection: socket.socket, first: int, payload: bytes) -> None:
    """One frame of a client, masked."""
    size = len(payload)
    length = struct.pack("!B", 0x80 | size) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    connection.sendall(bytes([first]) + length + mask + masked)


class Frames:
    """The server's frames."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")

    def next(self) -> tuple[int, bytes]:
        first, size = self._file.read(2)
        if size == 126:
            (size,) = struct.unpack("!H", self._file.read(2))
        return first & 0x0F, self._file.read(size)

    def until(self, opcode: int) -> bytes:
        while True:
            found, payload = self.next()
            if found == opcode:
                return payload

    def rest(self) -> bytes:
        """Read to the end of the connection, however that comes."""
        try:
            return self._file.read()
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def wire(agents: Gateway) -> Iterator[tuple[socket.socket, Frames]]:
    connection = handshake(agents)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    frames = Frames(connection)
    assert json.loads(frames.until(TEXT))["type"] == "session_init"
    yield connection, frames
    frames.close()
    connection.close()


def close_code(payload: bytes) -> int:
    return int(struct.unpack("!H", payload[:2])[0])


def test_a_client_that_answers_pings_stays(wire: tuple[socket.socket, Frames]) -> None:
    connection, frames = wire
    for _ in range(6):  # longer than one that is silent would be kept
        send(connection, FINAL | PONG, frames.until(PING))
    send(connection, FINAL | PING, b"there?")
    assert frames.until(PONG) == b"there?"


def test_a_silent_client_is_let_go(wire: tuple[socket.socket, Frames], daemon: Daemon) -> None:
    _, frames = wire
    frames.until(PING)
    frames.rest()
    assert daemon.cancellations.acquire(timeout=20) and daemon.cancelled == ["session.attach"]


def test_fragments_make_a_message(wire: tuple[socket.socket, Frames], daemon: Daemon) -> None:
    connection, _ = wire
    daemon.arrivals.acquire()
    for first, piece in ((TEXT, b'{"type":'), (CONTINUATION, b'"inter'), (FINAL | CONTINUATION, b'rupt"}')):
        send(connection, first, piece)
    assert daemon.arrivals.acquire(timeout=20) and daemon.calls[-1][0] == "session.interrupt"


@pytest.mark.parametrize(
    ("frames_sent", "code"),
    [
        ([(FINAL | TEXT, b"x" * 5001)], 1009),
        ([(TEXT, b"x" * 3000), (FINAL | CONTINUATION, b"x" * 3000)], 1009),
        ([(TEXT, b"x"), *[(CONTINUATION, b"")] * 1100], 1009),
        ([(FINAL | TEXT, b"\xff")], 1007),
        ([(FINAL | 3, b"")], 1002),
        ([(FINAL | PING, b"x" * 126)], 1002),
    ],
)
def test_who_breaks_the_rules_is_told_so_and_let_go(
    wire: tuple[socket.socket, Frames], frames_sent: list[tuple[int, bytes]], code: int
) -> None:
    connection, frames = wire
    for first, payload in frames_sent:
        try:
            send(connection, first, payload)
        except (BrokenPipeError, ConnectionResetError):
            break
    assert close_code(frames.until(CLOSE)) == code


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"host": "evil.example"}, 403, "Host"),
        ({"more": "Origin: http://evil.example\r\n"}, 403, "Origin"),
        ({"more": "Origin: null\r\n"}, 403, "Origin"),
        ({"path": "/ws/session/s1?token=ccd_x"}, 101, ""),
        ({"path": "/ws/cli/s1"}, 404, "nothing can dial in"),
        ({"path": "/ws/session/"}, 404, "Unknown route"),
        ({"path": "/ws/session/a/b"}, 404, "Unknown route"),
        ({"more": f"x-api-key: ccd_{'0' * 12}_{'x' * 43}\r\n"}, 401, "API key"),
        ({"more": f"Sec-WebSocket-Protocol: ccd.v1, ccd.key.ccd_{'0' * 12}_{'x' * 43}\r\n"}, 401, "API key"),
        ({"more": "Sec-WebSocket-Protocol: ccd.v1, other\r\n"}, 101, ""),
    ],
)
def test_handshakes(
    agents: Gateway, daemon: Daemon, options: dict[str, str], status: int, words: str
) -> None:
    with handshake(agents, **options) as connection:
        head = read_until(connection, b"\r\n\r\n").decode()
        assert head.startswith(f"HTTP/1.1 {status} ")
        if status == 101:
            assert ("Sec-WebSocket-Protocol: ccd.v1\r\n" in head) is ("ccd.v1" in options.get("more", ""))
            read_until(connection, b"session_init")
            return
        assert "content-type: application/json" in head and "x-request-id: " in head
        body = json.loads(read_until(connection, b'"}'))
        assert list(body) == ["error"] and words in body["error"]
        assert connection.recv(1) == b""
    assert daemon.calls == []


def test_a_key_in_the_query_is_refused_where_keys_are_needed(daemon: Daemon, tmp_path: Path) -> None:
    token = add_key(tmp_path / "keys.json", scopes=("agent",))
    files = {"keys_file": tmp_path / "keys.json", "usage_file": tmp_path / "usage.sqlite3"}
    log = tmp_path / "access.log"
    with Gateway(daemon.path, access_log=log, **files) as gateway:
        cases = {
            f"/ws/session/s1?api_key={token}": ("", 401),
            "/ws/session/s1": (f"Sec-WebSocket-Protocol: ccd.key.{token}\r\n", 101),
            "/ws/session/s2": (f"x-api-key: {token}\r\nSec-WebSocket-Protocol: ccd.key.{token}\r\n", 401),
        }
        for path, (more, status) in cases.items():
            with handshake(gateway, path=path, more=more) as connection:
                head = read_until(connection, b"\r\n\r\n")
                assert head.startswith(f"HTTP/1.1 {status} ".encode()) and token.encode() not in head
                if status == 101:
                    read_until(connection, b"session_init")
    assert gateway.log == gateway.greeting
    written = log.read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert sorted((line["path"], line["status"]) for line in lines) == [
        ("/ws/session/s1", 101),
        ("/ws/session/s1", 401),
        ("/ws/session/s2", 401),
    ]
    assert token not in written and {line["key"] for line in lines} == {"app", None}


def test_a_gateway_that_stops_says_so_and_does_not_wait(daemon: Daemon) -> None:
    gateway = Gateway(daemon.path, allow_agent_without_key="true", graceful_timeout_s=3000)
    with gateway:
        connection = handshake(gateway)
        with connection:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            frames = Frames(connection)
            frames.until(TEXT)
            gateway.process.send_signal(signal.SIGTERM)
            assert close_code(frames.until(CLOSE)) == 1012
            send(connection, FINAL | CLOSE, struct.pack("!H", 1012))
            assert frames.rest() == b""
            frames.close()
        assert gateway.process.wait(60) == 0


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000])
def test_unmasking_is_the_same_as_gunicorns(size: int) -> None:
    payload, mask = os.urandom(size), os.urandom(4)
    ours, theirs = (kind._unmask(None, payload, mask) for kind in WebSocket.__mro__[:2])  # type: ignore[attr-defined]
    assert ours == theirs and (size == 0 or ours != payload or mask == bytes(4))


def test_a_client_that_only_sends_pings_is_let_go(wire: tuple[socket.socket, Frames], daemon: Daemon) -> None:
    """Each is answered, and answers that nobody reads must not pile up."""
    connection, _ = wire
    pings = (bytes([FINAL | PING, 0x80 | 125]) + bytes(4) + b"a" * 125) * 1000
    sent = 0
    with suppress(OSError):
        while sent < 64 << 20:
            connection.sendall(pings)
            sent += len(pings)
    assert sent < 64 << 20
    assert daemon.cancellations.acquire(timeout=20)
