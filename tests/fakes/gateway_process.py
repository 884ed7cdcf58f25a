"""The real gateway (gunicorn and all) as a process, and a small HTTP client that shows the wire."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

SOURCES = [str(Path(__file__).parents[2] / name) for name in ("protocol", "client", "daemon", "gateway")]
USER = [{"role": "user", "content": "hi"}]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert self.headers["content-type"].startswith("application/json")
        return error  # type: ignore[no-any-return]


class Gateway:
    """Use as a context manager. Listens before the process runs, so the first request just waits for it."""

    def __init__(
        self,
        daemon_socket: Path,
        *,
        workers: int = 1,
        environ: Mapping[str, str] | None = None,
        **settings: object,
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        environ = {
            **{key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
            **(environ or {}),
        }
        environ["PYTHONPATH"] = os.pathsep.join(SOURCES)
        environ["CCD_DATA__DIR"] = str(daemon_socket.parent / "data")
        environ["CCD_GATEWAY__ADMIN_BIND"] = ""  # else all tests at once would want the one default port
        for key, value in settings.items():
            text = json.dumps(value) if isinstance(value, list) else str(value)
            environ[f"CCD_GATEWAY__{key.upper()}"] = text
        fd = self._listener.fileno()
        flags = ["--bind", f"fd://{fd}", "--socket", str(daemon_socket), "--workers", str(workers)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ccd_gateway", *flags],
            env=environ,
            pass_fds=[fd],
            stderr=subprocess.PIPE,
        )
        self.greeting = f"ccd gateway: http://127.0.0.1:{self.port}\n"
        self.log = ""

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *args: object) -> None:
        self.stop(signal.SIGINT)

    def stop(self, signum: signal.Signals = signal.SIGTERM, timeout_s: float = 40) -> int:
        self.process.send_signal(signum)
        _, log = self.process.communicate(timeout=timeout_s)
        self.log += log.decode()
        self._listener.close()
        return self.process.returncode

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()

    def chat(self, *, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        body = {"model": "sonnet", "messages": USER, **fields}
        return self.request("POST", "/v1/chat/completions", body, headers)

    def open_chat(self, **fields: Any) -> socket.socket:
        """Send a chat request and return the socket, nothing read."""
        body = json.dumps({"model": "sonnet", "messages": USER, **fields}).encode()
        connection = self.connect()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection


_unread: weakref.WeakKeyDictionary[socket.socket, bytes] = weakref.WeakKeyDictionary()


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """Read up to and including `mark`; fails when the connection ends first.

    What arrived behind the mark is kept for the next call: one read may hold several events.
    """
    held = _unread.pop(connection, b"")
    while mark not in held:
        piece = connection.recv(65536)
        assert piece, f"closed before {mark!r}: {held!r}"
        held += piece
    end = held.index(mark) + len(mark)
    _unread[connection] = held[end:]
    return held[:end]


def events(body: bytes) -> list[Any]:
    """The SSE events of a stream: parsed data, `"[DONE]"`, or comments as they are."""
    assert body.endswith(b"\n\n") and b"\r" not in body
    return list(_events(body))


def _events(body: bytes) -> Iterator[Any]:
    for block in body[:-2].split(b"\n\n"):
        assert b"\n" not in block
        if block.startswith(b":"):
            yield block.decode()
        else:
            assert block.startswith(b"data: ")
            yield "[DONE]" if block == b"data: [DONE]" else json.loads(block[6:])
