"""`ccd ctl keys create`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ccd_cli.ctl import days
from ccd_cli.ctl.keys.file import failing, file_option, path_of, say_once, show_token
from ccd_cli.ending import EXIT_FAILED, stop
from ccd_cli.options import command, json_option
from ccd_gateway.access import keyfile


@command(
    "create",
    "ccd ctl keys create laptop",
    "ccd ctl keys create ci --usd-per-day 5 --expires 90d --model haiku",
    "ccd ctl keys create agents --scope chat --scope agent --profile 'agent*'",
)
@click.argument("name")
@click.option("--tenant", help="Whose objects its holder sees; keys may share one.  [default: the name]")
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="PATTERN",
    help="Profile it may use; repeatable.  [default: chat]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="PATTERN",
    help="Model it may use; repeatable.  [default: all]",
)
@click.option("--scope", "scopes", multiple=True, help="chat, agent or stats; repeatable.  [default: chat]")
@click.option("--requests-per-minute", type=int, help="Answers that it may ask for in a minute.")
@click.option("--tokens-per-minute", type=int, help="Tokens, in and out, in a minute.")
@click.option("--concurrent", type=int, help="Answers that it may have open at a time.")
@click.option("--usd-per-day", type=float, help="Budget for a day (UTC).")
@click.option(
    "--expires",
    metavar="WHEN",
    callback=lambda _, __, value: None if value is None else days.moment(value),
    help="A day (2026-12-31, until its end, UTC) or a period from now (90d, 12h).",
)
@file_option
@json_option
def create(name: str, expires: float | None, keys_file: Path | None, as_json: bool, **wishes: Any) -> None:
    """Make a key and print its secret, once: only a hash of it is stored."""
    limits = {field: value for field, value in wishes.items() if value not in (None, ())}
    with failing():
        key, token = keyfile.make(name, expires=expires, **limits)
        with keyfile.changing(path_of(keys_file)) as keys:
            if any(other.name == name for other in keys.values()):
                stop(
                    f"there is a key {name!r} already; revoke or rotate it, or choose another name",
                    EXIT_FAILED,
                )
            keys[key.id] = key
            show_token(key, token, as_json)
    say_once(key, as_json)
