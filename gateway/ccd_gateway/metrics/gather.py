"""Where the gateway's processes share their counts: a directory that lives as long as the master."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_NAME = re.compile(r"ccd-metrics-(\d+)-\w+")


@contextmanager
def shared(environ: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Make the directory and name it, for as long as the master runs; what a killed master left is removed as well.

    To be entered before `prometheus_client` is imported for the first time. Workers are forked inside of the block and
    leave by it too: only the process that made the directory removes it.
    """
    _remove_leftovers(Path(tempfile.gettempdir()))
    master = os.getpid()
    environ[_VARIABLE] = folder = tempfile.mkdtemp(prefix=f"ccd-metrics-{master}-")
    try:
        yield
    finally:
        if os.getpid() == master:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(place: Path) -> None:
    for folder in place.glob("ccd-metrics-*"):
        found = _NAME.fullmatch(folder.name)
        if found and folder.lstat().st_uid == os.getuid() and not Path(f"/proc/{found[1]}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def mark_dead(pid: int) -> None:
    """A worker has ended: what it had open is no longer open; what it counted stays."""
    from prometheus_client import multiprocess  # noqa: PLC0415 - see the room

    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
