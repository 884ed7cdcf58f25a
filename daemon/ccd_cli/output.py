"""What a command prints: one JSON document, or text and tables for a reader."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

import click

_ANY_WIDTH = 100_000  # more than a line can have
MIB = 1024 * 1024


def is_lively(stream: TextIO) -> bool:
    """Whether what is written there may be moved about: a terminal, and not one that says it is dumb."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def show(value: Any, as_json: bool, human: Callable[[Any], None]) -> None:
    """Print a result as one JSON document, or as `human` does."""
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False))
    else:
        human(value)


def table(headings: Sequence[str], lines: Iterable[Sequence[str]], right: Iterable[str] = ()) -> None:
    """Print a table without frames; the columns named in `right` hold numbers.

    The terminal wraps what is too wide; shortened names would be of no use to anybody.
    """
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only for readers
    from rich.table import Table  # noqa: PLC0415

    drawn = Table(box=None, pad_edge=False)
    numbers = set(right)
    for heading in headings:
        drawn.add_column(heading, justify="right" if heading in numbers else "left")
    for line in lines:
        drawn.add_row(*line)
    Console(width=_ANY_WIDTH, highlight=False, markup=False).print(drawn)
