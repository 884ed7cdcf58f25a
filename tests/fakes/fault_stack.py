"""A daemon over the scripted CLI, without any API, for faults; with what a leak check needs."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccd_client import Client
from ccd_protocol.errors import RpcError

from .fake_cli_install import install_fake_cli, set_faults, started_pids
from .stack import Running, alive, clean_environ, marked_processes, start, wait_until

#: Children of a daemon that are no workers: the process that checks schemas.
OTHERS = 1


class FaultStack:
    """One daemon whose CLI does what the test says."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.settings = settings
        self.cli = install_fake_cli(folder / "bin")
        self.socket = folder / "run" / "ccd.sock"
        self.daemon: Running

    def environ(self) -> dict[str, str]:
        own = {
            "CCD_SOCKET": str(self.socket),
            "CCD_CLI__COMMAND": str(self.cli),
            "CCD_DATA__DIR": str(self.folder / "data"),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        }
        return clean_environ(self.folder / "home", **{**own, **self.settings})

    def start(self) -> Running:
        self.daemon = start(["-m", "ccd_cli", "daemon"], self.environ(), self.folder / "daemon.log")
        return self.daemon

    def faults(self, **faults: Any) -> None:
        """The faults of all processes started from now on."""
        set_faults(self.cli, **faults)

    def started(self) -> list[int]:
        return started_pids(self.cli)

    def client(self) -> Client:
        return Client(self.socket)

    def ask(self, text: str = "hello", **options: Any) -> str:
        with self.client() as client:
            return client.chat(text, **options).text

    def error_of(self, text: str = "hello", **options: Any) -> RpcError:
        """The failure of a chat that must fail."""
        try:
            answer = self.ask(text, **options)
        except RpcError as error:
            return error
        raise AssertionError(f"{text!r} was answered: {answer!r}")

    def status(self) -> dict[str, Any]:
        with self.client() as client:
            return dict(client.status())

    def workers(self, state: str | None = None) -> list[dict[str, Any]]:
        with self.client() as client:
            rows = list(client.workers()["workers"])
        return [row for row in rows if state in (None, row["state"])]

    def processes(self) -> list[int]:
        """Every living process that the scripted CLI ever was, and all others with the daemon's mark."""
        marked = marked_processes(f"CCD_OWNER={self.socket}")
        return sorted({*marked, *(pid for pid in self.started() if alive(pid))})

    def quiet(self, *, spares: int = 2) -> None:
        """Wait until every worker is idle, the spares are there, and nothing else of theirs lives."""

        def settled() -> bool:
            rows = self.workers()
            pids = sorted(row["pid"] for row in rows if row["state"] == "ready")
            generic = sum(row["tenant"] is None for row in rows)
            return len(rows) == len(pids) and generic >= spares and self.processes() == pids

        wait_until(settled, what="idle workers and nothing else")


class Asking(threading.Thread):
    """One streamed chat in a thread of its own: what came, how it ended, and how long it took."""

    def __init__(self, stack: FaultStack, prompt: str, **options: Any) -> None:
        super().__init__(daemon=True)
        self.text = ""
        self.error: RpcError | None = None
        self.seconds = 0.0
        self.result: Any = None
        self.first = threading.Event()
        self._stack, self._prompt, self._options = stack, prompt, options
        self.start()

    def run(self) -> None:
        started = time.perf_counter()
        try:
            with self._stack.client() as client:
                stream = client.chat(self._prompt, stream=True, **self._options)
                for event in stream:
                    self.text += getattr(event, "text", "") or ""
                    self.first.set()
                self.result = stream.result
        except RpcError as error:
            self.error = error
        self.seconds = time.perf_counter() - started


def faulty(**faults: Any) -> str:
    """A prompt that makes the scripted CLI fail in that turn."""
    return f"hello [[fake: {json.dumps(faults)}]]"


def footprint(pid: int) -> dict[str, int]:
    """What a process holds: open files, threads, children (zombies too), resident memory."""
    tasks = os.listdir(f"/proc/{pid}/task")
    children = [Path(f"/proc/{pid}/task/{task}/children").read_text().split() for task in tasks]
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return {
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(tasks),
        "children": sum(map(len, children)),
        "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
    }


def peak_rss_bytes(pid: int) -> int:
    """The most that a process ever held, or held since `forget_peak_rss`."""
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return 1024 * int(line.split()[1])


def forget_peak_rss(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def control_groups() -> list[Path]:
    """The control groups of all daemons on this machine."""
    return list(Path("/sys/fs/cgroup").glob("**/ccd-*-*"))


@contextlib.contextmanager
def running_faults(
    folder: Path, *, faults: dict[str, Any] | None = None, **settings: str
) -> Iterator[FaultStack]:
    """A daemon for the length of a with block; afterwards nothing of it may be left, not even an empty group."""
    stack = FaultStack(folder, settings)
    stack.faults(**(faults or {}))
    stack.start()
    pid = stack.daemon.pid
    try:
        yield stack
    finally:
        if stack.daemon.process.poll() is None:
            stack.daemon.stop()
        wait_until(lambda: not stack.processes(), timeout_s=5, what="every worker process to be gone")
    left = [group for group in control_groups() if group.name.endswith(f"-{pid}")]
    assert not left, left
