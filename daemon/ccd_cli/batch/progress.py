"""How far a batch is: a bar on a terminal with rate, time left and cost; elsewhere a line for every tenth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TextIO

from ccd_cli.output import is_lively

Show = Callable[[int, int, float], None]  # done, failed, cost in USD


@contextlib.contextmanager
def progress_on(stream: TextIO, total: int, done: int) -> Iterator[Show]:
    """Shows how far it is.

    Args:
        stream: where.
        total: lines of the batch.
        done: lines that had ended before, which say nothing of the rate.
    """
    if not is_lively(stream):
        yield _lines(stream, total)
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only for people
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[cost]}")),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as bars:
        task = bars.add_task("Asking", total=total, completed=done, rate="", cost="")

        def show(ended: int, failed: int, cost_usd: float) -> None:
            word = f"Asking ([red]{failed} failed[/])" if failed else "Asking"
            speed = bars.tasks[0].speed
            rate = f"{speed:.1f}/s" if speed else ""
            bars.update(task, completed=ended, description=word, rate=rate, cost=f"${cost_usd:.4f}")

        yield show


def _lines(stream: TextIO, total: int) -> Show:
    last = -1

    def show(done: int, failed: int, cost_usd: float) -> None:
        nonlocal last
        tenth = 10 * done // max(total, 1)
        if tenth != last:
            last = tenth
            print(f"{done} of {total} done, {failed} failed, ${cost_usd:.4f}", file=stream, flush=True)

    return show
