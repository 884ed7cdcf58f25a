"""Starts the real thing for tests: the loopback API, the daemon with the real CLI, the gateway, each a process.

Everything runs in a cleared environment with a fresh HOME and a dummy key, and talks to loopback only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccd_daemon.claude import binary as cli_binary
from ccd_daemon.claude import install as cli_install
from ccd_daemon.config import default_data_dir

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 60.0
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def real_cli() -> Path:
    """The CLI under test: the one that `ccd` itself would use, installed first when there is none."""
    data_dir = default_data_dir(os.environ)
    found = cli_binary.find(os.environ.get("CCD_CLI__COMMAND"), data_dir, os.environ.get("PATH", os.defpath))
    return found or cli_install.install(data_dir).path


def clean_environ(home: Path, **extra: str) -> dict[str, str]:
    """An environment without anything of the machine's but the search path."""
    home.mkdir(parents=True, exist_ok=True)
    extra.update(
        {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    )  # the code under test
    base = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    # No admin address: tests at the same time would all want its one default port.
    return {**base, "CCD_GATEWAY__ADMIN_BIND": "", **extra}


def forced_mode() -> dict[str, str]:
    """`CCD_ENGINE__BODY` as the tests were started with it: every stack that names no mode of its own is in that."""
    return {name: os.environ[name] for name in ("CCD_ENGINE__BODY",) if name in os.environ}


def wait_until(condition: Callable[[], Any], *, timeout_s: float = 15.0, what: str = "") -> Any:
    """Poll until the condition is true, and return its value; a fact of another process cannot be waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}")
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def marked_processes(mark: str) -> list[int]:
    """Processes that carry `mark` in their environment, zombies not counted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes() and alive(int(entry.name)):
                    found.append(int(entry.name))
    return found


@dataclass
class Running:
    """A child process that has printed its ready line."""

    process: subprocess.Popen[bytes]
    ready_line: str
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and wait; a test whose process does not end has failed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.process.args} did not stop; its log:\n{self.log_text()}") from None
        finally:
            self._close()

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()


def start(
    arguments: list[str], environ: dict[str, str], log: Path, *, timeout_s: float | None = None
) -> Running:
    """Run `python -m …` until its first line of output, by default for `READY_TIMEOUT_S`."""
    timeout_s = READY_TIMEOUT_S if timeout_s is None else timeout_s
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], timeout_s)
    line = process.stdout.readline().decode() if readable else ""
    if not line:
        process.kill()
        process.wait()
        process.stdout.close()
        raise AssertionError(
            f"{arguments} did not get ready (exit {process.returncode}):\n{log.read_text(errors='replace')}"
        )
    return Running(process, line.strip(), log)


class Api:
    """The scripted loopback Messages API, seen from a test."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.url: str = json.loads(running.ready_line)["url"]

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with _opener.open(request, timeout=10) as response:
            text = response.read()
        return json.loads(text) if text else None

    def script(self, *replies: dict[str, Any]) -> None:
        """Queue scripted replies."""
        self._ask("POST", "/_offline/script", {"replies": list(replies)})

    def requests(self, after: int = 0) -> list[dict[str, Any]]:
        """Every request to /v1/messages with a higher number, oldest first."""
        answer = self._ask("GET", f"/_offline/requests?after={after}")
        return [entry for entry in answer["requests"] if entry["path"].startswith("/v1/messages")]

    def newest(self) -> int:
        """The number of the last request to /v1/messages."""
        return max((int(request["seq"]) for request in self.requests()), default=0)

    def bodies(self) -> list[dict[str, Any]]:
        return [entry["body"] for entry in self.requests()]

    def reset(self) -> None:
        self._ask("POST", "/_offline/reset", {})


@dataclass
class Stack:
    """The API, a daemon and perhaps a gateway, in one temporary directory."""

    folder: Path
    cli: Path
    api: Api
    settings: dict[str, str] = field(default_factory=dict)
    daemon: Running = field(init=False)
    gateway: Running | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "ccd.sock"

    @property
    def url(self) -> str:
        assert self.gateway is not None
        return self.gateway.ready_line.rpartition(" ")[2]

    def environ(self) -> dict[str, str]:
        values = {
            "CCD_SOCKET": str(self.socket),
            "CCD_CLI__COMMAND": str(self.cli),
            "ANTHROPIC_BASE_URL": self.api.url,
            "ANTHROPIC_API_KEY": "test-key",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            **forced_mode(),
            **self.settings,
        }
        return clean_environ(self.folder / "home", **values)

    def start_daemon(self) -> Running:
        self.daemon = start(["-m", "ccd_cli", "daemon"], self.environ(), self.folder / "daemon.log")
        return self.daemon

    def start_gateway(self, port: int | None = None) -> Running:
        arguments = ["-m", "ccd_cli", "gateway", "--bind", f"127.0.0.1:{port or free_port()}"]
        self.gateway = start(arguments, self.environ(), self.folder / "gateway.log")
        return self.gateway

    def ccd(
        self, *arguments: str, stdin: str = "", timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a `ccd` command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "ccd_cli", *arguments],
            env=self.environ(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def workers(self) -> list[dict[str, Any]]:
        from ccd_client import Client

        with Client(self.socket) as client:
            return list(client.workers()["workers"])

    def status(self) -> dict[str, Any]:
        from ccd_client import Client

        with Client(self.socket) as client:
            return dict(client.status())

    def settle(self) -> None:
        """Wait until nothing of an earlier test goes on (a CLI may go on after its answer); forget its calls."""
        going_on = {"held", "busy", "cancelling", "resetting"}
        wait_until(lambda: not going_on & {row["state"] for row in self.workers()}, what="idle workers")
        self.api.reset()

    def processes(self) -> list[int]:
        """Every process of this stack's workers, whoever its parent is."""
        return marked_processes(f"CCD_OWNER={self.socket}")


def free_port() -> int:
    """A port that was free a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_api(folder: Path) -> Iterator[Api]:
    """The loopback API for the length of a with block."""
    environ = clean_environ(folder / "api-home")
    running = start(["-m", "ccd_offline", "--bind", "127.0.0.1:0"], environ, folder / "api.log")
    try:
        yield Api(running)
    finally:
        running.stop()


@contextlib.contextmanager
def running_stack(
    folder: Path, cli: Path, api: Api, *, gateway: bool = False, **settings: str
) -> Iterator[Stack]:
    """A daemon (and a gateway) for the length of a with block; afterwards no process of it may be left."""
    stack = Stack(folder, cli, api, settings)
    api.reset()
    stack.start_daemon()
    try:
        if gateway:
            stack.start_gateway()
        yield stack
    finally:
        if stack.gateway is not None and stack.gateway.process.poll() is None:
            stack.gateway.stop()
        if stack.daemon.process.poll() is None:
            stack.daemon.stop()
        wait_until(lambda: not stack.processes(), timeout_s=5, what="every worker process to be gone")
