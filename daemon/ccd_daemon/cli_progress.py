"""Shows how far the installation of the CLI is: a bar on a terminal, a line per stage elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from .cli_install import Progress

_WORDS = {
    "waiting": "Waiting for another installation",
    "downloading": "Downloading Claude Code",
    "unpacking": "Unpacking and verifying",
    "checking": "Checking that it runs",
    "done": "Installed",
}


@contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """A callback for `cli_install.install` that draws on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    with Bar(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("", total=None)

        def draw(progress: Progress) -> None:
            words = _WORDS.get(progress.stage, progress.stage)
            bar.update(task, description=words, completed=progress.done_bytes, total=progress.total_bytes)

        yield draw


def _lines(console: Console) -> Callable[[Progress], None]:
    said: set[str] = set()

    def say(progress: Progress) -> None:
        if progress.stage not in said:
            said.add(progress.stage)
            console.print(_WORDS.get(progress.stage, progress.stage) + " …", highlight=False, soft_wrap=True)

    return say
