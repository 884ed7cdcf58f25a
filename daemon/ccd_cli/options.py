"""What every command's help and options share: how examples are shown, and the options that several commands have."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ccd_cli.ending import EXIT_INTERRUPTED

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class _Explained(click.Command):
    """A command whose help ends in examples.

    Args:
        examples: command lines as they are typed, each perhaps with a comment after two spaces and a `#`.
    """

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, as they stand: a terminal may wrap them, a formatter may not."""
        if self.examples:
            formatter.write(f"\n{'Examples' if len(self.examples) > 1 else 'Example'}:\n")
            formatter.write("".join(f"  {example}\n" for example in self.examples))

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first sentence of the help, whole, for the list of a group."""
        text = " ".join((self.help or "").partition("\n\n")[0].split())
        end = text.find(". ")
        return (text if end < 0 else text[:end]).removesuffix(".")


class Command(_Explained):
    """One command, in a file of its own."""


class CommandGroup(_Explained, click.Group):
    """A word with further words behind it."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; one that is interrupted while it loads what it needs ends as any program does, silently."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)


def command(
    name: str, *examples: str, pass_on: bool = False, **more: Any
) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command; its docstring is its help, which the examples follow.

    Args:
        name: as it is typed.
        examples: see `Command`.
        pass_on: unknown options are another program's.
        more: of `click.command`.
    """
    context = {**CONTEXT, "ignore_unknown_options": True} if pass_on else CONTEXT
    return click.command(name, cls=Command, examples=examples, context_settings=context, **more)


def group(name: str, *examples: str, **more: Any) -> Callable[[Callable[..., Any]], CommandGroup]:
    """Declare a group of commands."""
    return click.group(name, cls=CommandGroup, examples=examples, context_settings=CONTEXT, **more)


def seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """The callback of an option that takes a time: `30s`, `5m`, `1h`, or a number of seconds.

    Raises:
        click.BadParameter: it is none, or not more than 0.
    """
    if value is None:
        return None
    found = _TIME.fullmatch(value.strip().lower())
    time_s = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < time_s < _LONGEST_S:
        raise click.BadParameter("expected a time like 30s, 5m or 1h, or a number of seconds, more than 0")
    return time_s


_TIME = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|m|h|d|)")
_SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 10.0**9


socket_option = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="The daemon's Unix socket.  [default: $CCD_SOCKET or the usual places]",
)
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (TOML).  [default: $CCD_CONFIG]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
bind_option = click.option(
    "--bind", metavar="HOST:PORT", help="Where the gateway listens.  [default: 127.0.0.1:8080]"
)
no_auth_option = click.option(
    "--insecure-no-auth",
    is_flag=True,
    help="Serve other machines although there is no API key: something else guards the way.",
)
