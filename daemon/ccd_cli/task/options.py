"""Options that the commands for submitting share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--model", help="For example sonnet, opus, haiku, or PROFILE/MODEL."),
    click.option("--profile", help="The kind of worker.  [default: chat]"),
    click.option("--system", help="A system prompt."),
    click.option("--priority", type=click.IntRange(0, 9), help="0 goes first, 9 last.  [default: 5]"),
    click.option("--budget-usd", type=float, help="Begin nothing more once so much is spent."),
    click.option("--retries", type=click.IntRange(0, 10), help="Further attempts of a step.  [default: 2]"),
    click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="Of a step, all attempts."),
)


def submit_options(function: F) -> F:
    """Add them; absent ones are None."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


task_argument = click.argument("task_id", metavar="TASK")
