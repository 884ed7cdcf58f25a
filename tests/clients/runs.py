"""Runs a client's driver in the client's own environment, and keeps what it reported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients import environments
from fakes.stack import Stack, clean_environ, forced_mode

HERE = Path(__file__).parent
DRIVERS = HERE / "drivers"
RUN_TIMEOUT_S = 400.0
RUNS_AT_A_TIME = 2
#: Clients that phone home do not, in tests.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGSMITH_TRACING": "false",
    "NO_PROXY": "*",
}


@dataclass(frozen=True)
class Result:
    """How one use of a feature went."""

    api: str
    feature: str
    variant: str
    ok: bool
    detail: str | None
    took_s: float


@dataclass(frozen=True)
class Report:
    """All that a driver printed."""

    versions: dict[str, str]
    results: list[Result]
    facts: dict[str, Any]


def clients() -> list[str]:
    """Every client that has a driver."""
    return sorted(path.stem for path in DRIVERS.glob("*.py"))


def has_environment(client: str) -> bool:
    """Whether a client is Python packages; others are programs of the machine's."""
    return (environments.REQUIREMENTS / f"{client}.txt").exists()


def environ(stack: Stack, folder: Path) -> dict[str, str]:
    """A cleared environment that points clients at the gateway."""
    found = clean_environ(
        folder,
        OPENAI_BASE_URL=f"{stack.url}/v1",
        OPENAI_API_KEY="not-needed",
        ANTHROPIC_BASE_URL=stack.url,
        ANTHROPIC_API_KEY="not-needed",
        **QUIET,
    )
    found.pop("PYTHONPATH", None)  # the code under test is none of the clients' business
    return found


class Runs:
    """The drivers of some clients: each is run once, when its environment is there."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._pool = ThreadPoolExecutor(RUNS_AT_A_TIME)
        self._runs: dict[str, Future[Report]] = {}

    def begin(self, clients: Iterable[str]) -> None:
        """Run the drivers of these clients, unless they have been begun."""
        for client in clients:
            if client not in self._runs:
                self._runs[client] = self._pool.submit(self._run, client)

    def report(self, client: str) -> Report:
        """The report of a client's driver, as soon as there is one.

        Raises:
            BuildError: there is no environment for it.
            AssertionError: the driver itself failed.
        """
        self.begin([client])
        return self._runs[client].result()

    def python(self, client: str) -> Path:
        """The interpreter of a client's environment."""
        return environments.python(client) if has_environment(client) else Path(sys.executable)

    def close(self) -> None:
        """Wait for the runs that were begun; those that were not are not begun any more."""
        self._pool.shutdown(cancel_futures=True)

    def _run(self, client: str) -> Report:
        home = self._folder / client
        variables = environ(self._stack, home) | {
            "PYTHONPATH": str(HERE / "shared"),
            "OFFLINE_API_URL": self._stack.api.url,
            **forced_mode(),
            "CLAUDE": str(self._stack.cli),
        }
        # -P: drivers are named like their clients, and must not be imported in their place.
        done = subprocess.run(
            [str(self.python(client)), "-P", str(DRIVERS / f"{client}.py")],
            env=variables,
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"the driver of {client} failed:\n{done.stdout}{done.stderr}")
        found = json.loads(done.stdout.strip().splitlines()[-1])
        return Report(found["versions"], [Result(**result) for result in found["results"]], found["facts"])
