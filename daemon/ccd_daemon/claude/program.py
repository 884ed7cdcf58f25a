"""The installed CLI as this daemon uses it: where it is, which version, how it is tuned, whether it was replaced.

Which variables it knows is told by their names in its file. Searching 400 MB takes 0.2 s where all are found and some
0.2 s for each that is not, so the answer is remembered in the data directory, for each file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import mmap
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from ccd_daemon.claude import binary
from ccd_daemon.claude.tuning import TRACES, Tuning, sparing, speeding

log = logging.getLogger("ccd")

UNKNOWN = "unknown"
_MAX_CACHE_BYTES = 65536


class Program:
    """One CLI. Its file is searched for what it knows, which blocks once for each version.

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


# --- what it knows ---


def traces_in(file: Path, traces: Collection[bytes], cache: Path | None = None) -> frozenset[bytes]:
    """Returns those of `traces` that the file contains; none where it cannot be read. Blocks for up to some seconds.

    Args:
        file: the CLI; links are followed.
        traces: what to look for.
        cache: where the answer is kept, if anywhere; a cache that is damaged or of another file is ignored.
    """
    try:
        info = file.stat()
    except OSError:
        return frozenset()
    key = [str(file.resolve()), info.st_mtime_ns, info.st_size, sorted(trace.decode() for trace in traces)]
    known = _remembered(cache, key)
    if known is None:
        known = frozenset(_searched(file, traces))
        _remember(cache, key, known)
    return known


def _searched(file: Path, traces: Collection[bytes]) -> list[bytes]:
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return [trace for trace in traces if content.find(trace) >= 0]
    except (OSError, ValueError):  # an empty file cannot be mapped
        return []


def _remembered(cache: Path | None, key: list[object]) -> frozenset[bytes] | None:
    if cache is None:
        return None
    try:
        with cache.open("rb") as file:
            stored = json.loads(file.read(_MAX_CACHE_BYTES))
        if stored["key"] == key:
            return frozenset(name.encode() for name in stored["found"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _remember(cache: Path | None, key: list[object], found: Collection[bytes]) -> None:
    if cache is None:
        return
    fresh = cache.with_name(f".{cache.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps({"key": key, "found": sorted(trace.decode() for trace in found)}))
        fresh.replace(cache)
    except OSError as error:
        log.debug("the probe of the CLI is not remembered: %s", error)
