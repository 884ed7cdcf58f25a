"""ccd's gateway and two other servers over the same Messages API, each as its users would run it.

Each peer lives in a virtual environment of its own, made on demand from a pinned list (`bench/peers/*.txt`) and kept in
a cache; it runs in a cleared environment with a fresh HOME on loopback, and is ended with its whole tree of processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.stage import Bench, Endpoint, clean_environ, daemon_stack, free_port, wait_until
from ccd_daemon.process.process import children
from clients import environments
from clients.environments import BuildError

__all__ = ["CCD", "CLAUDEGATE", "LITELLM", "BuildError", "Server", "ccd", "claudegate", "litellm"]

_REQUIREMENTS = Path(__file__).parent / "peers"
_READY_S = 120.0
_KEY = "sk-bench-0000"  # LiteLLM does not start without one
LITELLM, CLAUDEGATE, CCD = "LiteLLM proxy", "claude-code-openai", "ccd"


@dataclass
class Server:
    """A server that listens.

    Attributes:
        name: for the table.
        url: where it listens.
        roots: its processes, without their children.
        own: those of its processes that are not the CLI.
        headers: what its clients have to send.
        socket: the daemon's, of ccd.
    """

    name: str
    url: str
    roots: list[int]
    own: Callable[[], list[int]]
    headers: dict[str, str] = field(default_factory=dict)
    socket: Path | None = None

    def tree(self) -> list[int]:
        """All of its processes."""
        return descendants(self.roots)


def descendants(roots: list[int]) -> list[int]:
    """Processes and all that they have started, as far as that is still below them."""
    found: list[int] = []
    for root in roots:
        found += [root, *descendants(children(root))]
    return found


@contextlib.contextmanager
def ccd(bench: Bench, folder: Path, api: Endpoint, **settings: str) -> Iterator[Server]:
    """ccd with its defaults, but for these settings."""
    with daemon_stack(folder / "ccd", bench.cli, api, gateway=True, **settings) as stack:
        wait_until(lambda: stack.status()["state"] == "ready", timeout_s=30)
        assert stack.gateway is not None
        gateway, daemon = stack.gateway.pid, stack.daemon.pid
        own = [daemon, gateway]
        yield Server(CCD, stack.url, own, lambda: [*own, *children(gateway)], socket=stack.socket)


@contextlib.contextmanager
def litellm(bench: Bench, folder: Path, api: Endpoint) -> Iterator[Server]:
    """LiteLLM's proxy, which calls the Messages API itself: there is no CLI behind it."""
    python = environments.python("litellm", _REQUIREMENTS)
    config = folder / "litellm.yaml"
    config.write_text(
        "model_list:\n- model_name: sonnet\n  litellm_params:\n    model: anthropic/claude-sonnet-4-5\n"
        f"    api_base: {api.url}\n    api_key: test-key\n"
    )
    port = free_port()
    command = [str(python.parent / "litellm"), "--config", str(config), "--port", str(port)]
    environ = {
        "LITELLM_MASTER_KEY": _KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
    }
    with _process(folder, "litellm", [*command, "--host", "127.0.0.1"], environ) as pid:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(f"{url}/health/liveliness", folder / "litellm.log")
        yield Server(LITELLM, url, [pid], lambda: descendants([pid]), {"Authorization": f"Bearer {_KEY}"})


@contextlib.contextmanager
def claudegate(bench: Bench, folder: Path, api: Endpoint) -> Iterator[Server]:
    """PyPI's `claude-code-openai`, over the same CLI as ccd."""
    python = environments.python("claude-code-openai", _REQUIREMENTS)
    port = free_port()
    command = [str(python.parent / "claudegate"), "serve", "--port", str(port)]
    environ = {
        "ANTHROPIC_API_KEY": "test-key",
        "ANTHROPIC_BASE_URL": api.url,
        "CLAUDEGATE_CLI_PATH": str(bench.cli),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    with _process(folder, "claudegate", command, environ) as pid:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(f"{url}/health", folder / "claudegate.log")
        yield Server(CLAUDEGATE, url, [pid], lambda: [pid])


@contextlib.contextmanager
def _process(folder: Path, name: str, command: list[str], environ: dict[str, str]) -> Iterator[int]:
    clean = clean_environ(folder / f"{name}-home", **environ)
    clean.pop("PYTHONPATH", None)  # ours
    workspace = folder / f"{name}-work"
    workspace.mkdir()
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=clean, cwd=workspace, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it leaves behind."""
    tree = {pid: _started(pid) for pid in descendants([process.pid])}
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, started in tree.items():
        if started and _started(pid) == started:  # still the same process
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _started(pid: int) -> str:
    """When a process was started, which together with its number names it for good; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _wait_ready(url: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + _READY_S
    while True:
        try:
            with opener.open(url, timeout=2):
                return
        except OSError:
            if time.monotonic() > until:
                raise RuntimeError(f"{url} did not answer:\n{log.read_text(errors='replace')}") from None
            time.sleep(0.2)
