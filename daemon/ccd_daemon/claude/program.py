"""The installed CLI as this daemon uses it: where it is, which version, how it is tuned, whether it was replaced."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from ccd_daemon.claude import binary
from ccd_daemon.claude.probe import traces_in
from ccd_daemon.claude.tuning import TRACES, Tuning, sparing, speeding

log = logging.getLogger("ccd")

UNKNOWN = "unknown"


class Program:
    """One CLI. Its file is searched for what it knows, which blocks once for each version; see `probe`.

    Attributes:
        path: the executable.
        version: as its file tells; `unknown` where it does not.
        variables: what makes it faster, and each request one call, of those that it knows.
    """

    def __init__(self, path: Path, version: str, tuning: Tuning, cache: Path) -> None:
        self.path = path
        self.version = version
        self._tuning = tuning
        self._cache = cache
        self.variables: Mapping[str, str] = self._probe()
        self._identity = identity(path)

    def was_replaced(self) -> bool:
        """Whether its file is another one than at the last look; what the new one knows is then looked up meanwhile."""
        now = identity(self.path)
        if now is None or now == self._identity:
            return False
        self._identity = now
        asyncio.get_running_loop().run_in_executor(None, self._probe).add_done_callback(self._probed)
        return True

    def _probe(self) -> dict[str, str]:
        known = traces_in(self.path, TRACES, self._cache)
        return speeding(self._tuning, known) | sparing(known)

    def _probed(self, probing: asyncio.Future[dict[str, str]]) -> None:
        if not probing.cancelled() and probing.exception() is None:
            self.variables = probing.result()


def found(command: str | None, data_dir: Path, environ: Mapping[str, str], tuning: Tuning) -> Program:
    """Returns the CLI to use, its version checked. One that does not tell is tried: the breaker will show.

    Args:
        command: the setting `cli.command`.
        data_dir: where ccd's own copy and what is known of the file are kept.
        environ: for PATH.
        tuning: what it is tuned for.

    Raises:
        CliError: there is none, or it is too old.
    """
    cache = data_dir / "cli-probe.json"
    try:
        cli = binary.resolve(command, data_dir, environ)
    except binary.CliBroken as error:
        log.warning("%s", error)
        path = binary.find(command, data_dir, environ.get("PATH", os.defpath))
        if path is None:
            raise binary.CliNotFound(str(error)) from error
        return Program(path, UNKNOWN, tuning, cache)
    return Program(cli.path, cli.version, tuning, cache)


def identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced or rewritten; None while it is not there (in the middle of an update)."""
    try:
        found = os.stat(path)  # noqa: PTH116 - follows links, as running it does
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
