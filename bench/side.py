"""A server between a stand-in daemon and a reader of many streams, each a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.measure import cpu_s, memory_bytes
from bench.stage import HERE, clean_environ, free_port, helper, start
from ccd_daemon.process.process import children

RATE = 20  # chunks a second on each stream


class Arrived(NamedTuple):
    """What came of one round of chunks; `took_s` is the time from the first that was sent to the last."""

    chunks: int
    wrong: int
    took_s: float


class Part:
    """A script of this folder that takes orders on its stdin.

    Attributes:
        ready_line: what it said first.
    """

    def __init__(self, folder: Path, module: str, *arguments: str) -> None:
        with (folder / f"{module}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"bench.{module}", *arguments],
                env=clean_environ(folder / "home"), cwd=HERE.parent,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._log = folder / f"{module}.log"
        self.ready_line = self.reply()

    def tell(self, order: str) -> None:
        """Give an order; `reply` waits for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def reply(self) -> str:
        """The next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended: {self._log.read_text()}")
        return line.strip()

    def ask(self, order: str) -> Any:
        """Give an order and wait for its answer."""
        self.tell(order)
        return json.loads(self.reply())

    def stop(self) -> None:
        """End one that does not look at its stdin."""
        self._process.terminate()
        self.close()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Side:
    """One server, the stand-in behind it and the reader before it.

    Attributes:
        name: `gateway` or `bare`.
        url: where the server listens.
        socket: the stand-in's.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._held = ExitStack()
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.socket = self.folder / "daemon.sock"
        self.daemon = Part(self.folder, "chunk_daemon", str(self.socket))
        self._held.callback(self.daemon.close)
        if name == "gateway":
            arguments = ["-m", "ccd_cli", "gateway", "--bind", f"127.0.0.1:{free_port()}"]
            environ = clean_environ(self.folder / "home", CCD_SOCKET=str(self.socket))
            self.server = start(arguments, environ, self.folder / "gateway.log")
            self._held.callback(self.server.stop)
        else:
            self.server = self._held.enter_context(
                helper("bare_gateway.py", str(self.socket), folder=self.folder)
            )
        self.url = self.server.ready_line.rpartition(" ")[2]
        self.reader = Part(self.folder, "sse_reader", self.url)
        self._held.callback(self.reader.close)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.close()

    @property
    def pids(self) -> list[int]:
        """The server's process, and its workers where it has any."""
        return [self.server.pid, *children(self.server.pid)]

    def cpu_s(self) -> float:
        """CPU time of the server so far."""
        return sum(map(cpu_s, self.pids))

    def idle_share(self, seconds: float) -> float:
        """CPU that the server uses by itself, as a share of the time."""
        before = self.cpu_s()
        time.sleep(seconds)
        return (self.cpu_s() - before) / seconds

    def go(self, count: int) -> None:
        """Begin to send so many chunks on every stream."""
        self.daemon.tell(f"go {RATE} {count}")
        self.reader.tell(f"read {count}")

    def arrived(self) -> Arrived:
        """Wait until all of them have come."""
        took_s = json.loads(self.daemon.reply())
        report = json.loads(self.reader.reply())
        return Arrived(report["chunks"], report["wrong"], took_s)

    def memory(self) -> tuple[float, float]:
        """RSS and PSS of the server's processes together, in kB."""
        pairs = [memory_bytes(pid) for pid in self.pids]
        return sum(rss for rss, _ in pairs) / 1e3, sum(pss for _, pss in pairs) / 1e3

    def close_streams(self) -> None:
        """End every stream and drop its connection."""
        self.daemon.ask("finish")
        self.reader.ask("close")
