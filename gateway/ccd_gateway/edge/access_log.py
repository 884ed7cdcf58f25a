"""One JSON line per request: who asked what, and what came of it. Never what was said.

Lines are written by a thread, so a slow disk or a full pipe holds up nobody; when it stays slow, lines are
dropped and the next one says how many.

The standard library's QueueListener and WatchedFileHandler would not be less: the one waits without end when it stops,
and a full queue is a traceback for each line; the other makes files that everybody may read.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ccd_gateway.access.caller import Caller

_MAX_WAITING = 10_000
_MAX_PATH = 200
_CLOSE_S = 2.0


class Observer(Protocol):
    """Told of requests; must neither wait nor fail."""

    def began(self) -> None:
        """A request has come."""

    def write(self, scope: Mapping[str, Any], status: int, took_s: float, caller: Caller) -> None:
        """It was answered; status 0 is a client that left before there was an answer."""


class Observers:
    """Several as one."""

    def __init__(self, all_of_them: Sequence[Observer]) -> None:
        self._all = tuple(all_of_them)

    def began(self) -> None:
        """A request has come."""
        for one in self._all:
            one.began()

    def write(self, scope: Mapping[str, Any], status: int, took_s: float, caller: Caller) -> None:
        """It was answered."""
        for one in self._all:
            one.write(scope, status, took_s, caller)


class AccessLog:
    """The log of one worker process; opened at its first line, so that it can be made before a fork.

    Args:
        path: the file; `-` for stderr, None for no log.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: queue.Queue[bytes | None] | None = None
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def began(self) -> None:
        """Nothing is written before there is an answer."""

    def write(self, scope: Mapping[str, Any], status: int, took_s: float, caller: Caller) -> None:
        """Note one answer; status 0 is a client that left before there was one."""
        if self._path is None:
            return
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": caller.request_id,
            "key": caller.name,
            "method": scope["method"],
            "path": scope["path"][:_MAX_PATH],
            "status": status,
            "ms": round(took_s * 1000, 2),
        }
        if caller.model is not None:
            line["model"] = caller.model
            line["input_tokens"] = caller.input_tokens
            line["output_tokens"] = caller.output_tokens
        if self._dropped:
            line["dropped"] = self._dropped
        try:
            self._opened().put_nowait(msgspec.json.encode(line) + b"\n")
            self._dropped = 0
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, for a moment."""
        if self._lines is not None and self._thread is not None:
            try:
                self._lines.put_nowait(None)
            except queue.Full:
                return
            self._thread.join(_CLOSE_S)

    def _opened(self) -> queue.Queue[bytes | None]:
        if self._lines is None:
            self._lines = queue.Queue(_MAX_WAITING)
            self._thread = threading.Thread(
                target=self._work, args=(self._lines,), name="ccd-log", daemon=True
            )
            self._thread.start()
        return self._lines

    def _work(self, lines: queue.Queue[bytes | None]) -> None:
        while (line := lines.get()) is not None:
            try:
                self._append(line)
            except OSError:
                self._dropped += 1

    def _append(self, line: bytes) -> None:
        """One write per line, into a file opened for it: it may be moved away at any time (log rotation)."""
        if str(self._path) == "-":
            os.write(2, line)
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(str(self._path), flags, 0o640)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
