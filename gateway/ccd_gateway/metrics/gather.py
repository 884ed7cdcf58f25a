"""Where the gateway's processes share their counts: a directory that lives as long as the master."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare(environ: MutableMapping[str, str] = os.environ) -> Path:
    """Make the directory and name it, before `prometheus_client` is imported for the first time; for the master."""
    folder = tempfile.mkdtemp(prefix="ccd-metrics-")
    environ[_VARIABLE] = folder
    return Path(folder)


def remove(folder: Path) -> None:
    """The master ends."""
    shutil.rmtree(folder, ignore_errors=True)


def mark_dead(pid: int) -> None:
    """A worker has ended: what it had open is no longer open; what it counted stays."""
    from prometheus_client import multiprocess  # noqa: PLC0415 - see the room

    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
