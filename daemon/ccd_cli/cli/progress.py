"""Shows the progress of an installation on stderr: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from ccd_cli.output import is_lively
from ccd_daemon.claude.install import Progress

_WORDS = {
    "waiting": "Waiting for another installation",
    "downloading": "Downloading the Claude Code CLI",
    "unpacking": "Unpacking and verifying it",
    "checking": "Running it once",
    "done": "Installed",
}


@contextlib.contextmanager
def shown(stream: TextIO | None = None) -> Iterator[Callable[[Progress], None]]:
    """The callback to give to `install`, showing on `stream` (stderr) while the context lasts."""
    stream = stream or sys.stderr
    if not is_lively(stream):
        yield _lines(stream)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=Console(file=stream), transient=True) as bars:
        yield _bars(bars)


def _lines(stream: TextIO) -> Callable[[Progress], None]:
    """One line when a stage begins, and one for every quarter of the bytes."""
    last = ""

    def show(progress: Progress) -> None:
        nonlocal last
        line = _WORDS[progress.stage]
        if progress.total_bytes:
            quarter = min(4, 4 * progress.done_bytes // progress.total_bytes)
            line += f" ({progress.total_bytes // 10**6} MB): {25 * quarter} %"
        if line != last:
            print(line, file=stream, flush=True)
            last = line

    return show


def _bars(bars: Bars) -> Callable[[Progress], None]:
    """One bar for each stage, the earlier ones hidden."""
    stage = ""

    def show(progress: Progress) -> None:
        nonlocal stage
        if progress.stage != stage:
            for task in bars.tasks:
                bars.update(task.id, visible=False)
            stage = progress.stage
            bars.add_task(_WORDS[stage], total=progress.total_bytes)
        bars.update(bars.tasks[-1].id, completed=progress.done_bytes, total=progress.total_bytes)

    return show
