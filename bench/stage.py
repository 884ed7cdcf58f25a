"""What the benchmarks play on: scratch folders, the real CLI, the real daemon and gateway as processes.

The processes are started the way the tests start them (`tests/fakes/stack.py`): a cleared environment, a
fresh HOME, a dummy key, loopback only.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from fakes.stack import (  # noqa: E402
    Running,
    Stack,
    clean_environ,
    free_port,
    real_cli,
    start,
    wait_until,
)

__all__ = [
    "Bench",
    "Endpoint",
    "Running",
    "Stack",
    "clean_environ",
    "daemon_stack",
    "free_port",
    "helper",
    "instant_api",
    "start",
    "wait_until",
]


@dataclass
class Bench:
    """What a benchmark gets: a scratch folder, how hard to try, and the CLI (installed if there is none)."""

    folder: Path
    quick: bool
    random: Random = field(default_factory=lambda: Random(1))
    _cli: Path | None = None

    def rounds(self, full: int, quick: int) -> int:
        """How often to repeat something."""
        return quick if self.quick else full

    def room(self, name: str) -> Path:
        """An empty folder of its own."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    @property
    def cli(self) -> Path:
        """The real CLI, as ccd itself finds it."""
        self._cli = self._cli or real_cli()
        return self._cli

    def say(self, text: str) -> None:
        """Progress, for whoever waits."""
        print(f"… {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Endpoint:
    """Where the Messages API is; what `Stack` wants to know of it."""

    url: str = "http://127.0.0.1:9"  # nobody listens on the discard port


@contextlib.contextmanager
def helper(script: str, *arguments: str, folder: Path) -> Iterator[Running]:
    """One of this folder's scripts as a process that has printed a line, for the length of a with block."""
    running = start(
        [str(HERE / script), *arguments], clean_environ(folder / "home"), folder / f"{script}.log"
    )
    try:
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def instant_api(folder: Path) -> Iterator[Endpoint]:
    """The Messages API that answers at once."""
    with helper("instant_api.py", folder=folder) as running:
        yield Endpoint(json.loads(running.ready_line)["url"])


@contextlib.contextmanager
def daemon_stack(
    folder: Path, cli: Path, api: Endpoint, *, gateway: bool = False, **settings: str
) -> Iterator[Stack]:
    """The real daemon, and perhaps the real gateway, for the length of a with block."""
    folder.mkdir(exist_ok=True)
    stack = Stack(folder, cli, api, settings)  # type: ignore[arg-type]
    stack.start_daemon()
    try:
        if gateway:
            stack.start_gateway()
        yield stack
    finally:
        if stack.gateway is not None:
            stack.gateway.stop()
        stack.daemon.stop(60)
