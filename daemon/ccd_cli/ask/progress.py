"""How far a batch is, on stderr: a bar on a terminal, elsewhere a line for every tenth; and what it came to."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TextIO

from ccd_cli.output import is_lively
from ccd_client import BatchItem

_READ = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


class Tally:
    """What became of the questions so far."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.causes: Counter[str] = Counter()  # of failures, by code
        self._began_s = time.monotonic()
        self._tokens_in = self._tokens_out = 0
        self._cost_usd = 0.0

    @property
    def failed(self) -> int:
        """How many failed."""
        return self.causes.total()

    @property
    def rate(self) -> float:
        """Questions per second, so far."""
        return self.done / max(time.monotonic() - self._began_s, 0.001)

    def count(self, item: BatchItem) -> None:
        """Take one more into account."""
        self.done += 1
        if item.error is not None:
            self.causes[item.error.code.name.lower()] += 1
        if item.answer is not None:
            usage = item.answer.usage
            self._tokens_in += sum(usage.get(name, 0) for name in _READ)
            self._tokens_out += usage.get("output_tokens", 0)
            self._cost_usd += item.answer.cost_usd

    def __str__(self) -> str:
        causes = ", ".join(f"{cause} {count}" for cause, count in self.causes.most_common())
        return (
            f"{self.done - self.failed} answered, {self.failed} failed{f' ({causes})' if causes else ''}; "
            f"{self._tokens_in} tokens in, {self._tokens_out} out, ${self._cost_usd:.4f}; {self.rate:.1f}/s"
        )


@contextlib.contextmanager
def progress_on(stream: TextIO, total: int) -> Iterator[Callable[[Tally], None]]:
    """Shows a tally: a bar on a terminal, elsewhere a line for every tenth of the whole."""
    if not is_lively(stream):
        yield _lines(stream, total)
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only for readers
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as bars:
        task = bars.add_task("Asking", total=total, rate="")

        def show(tally: Tally) -> None:
            word = f"Asking ([red]{tally.failed} failed[/])" if tally.failed else "Asking"
            bars.update(task, completed=tally.done, description=word, rate=f"{tally.rate:.1f}/s")

        yield show


def _lines(stream: TextIO, total: int) -> Callable[[Tally], None]:
    last = -1

    def show(tally: Tally) -> None:
        nonlocal last
        tenth = 10 * tally.done // total
        if tenth != last and tally.done < total:
            last = tenth
            print(f"{tally.done} of {total} done, {tally.failed} failed", file=stream, flush=True)

    return show
