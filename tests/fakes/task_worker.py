"""A real `ccd worker` beside whatever serves a daemon's socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .stack import Running, clean_environ, start


@contextlib.contextmanager
def running_worker(daemon_socket: Path, folder: Path, **settings: str) -> Iterator[Running]:
    """The worker for the length of a with block; its files are in `folder`."""
    environ = clean_environ(
        folder / "home", CCD_SOCKET=str(daemon_socket), CCD_DATA__DIR=str(folder / "data"), **settings
    )
    worker = start(["-m", "ccd_cli", "worker"], environ, folder / "worker.log")
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.stop()
