"""`ccd ctl keys` and `ccd ctl usage`: who may call the gateway, and what they have used. No daemon is needed.

The files are the gateway's and are read by its modules.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import click

from ccd_cli.rpc import EXIT_FAILED, json_option, show
from ccd_gateway.access import keyfile, ledger
from ccd_gateway.settings import GatewaySettings, load_settings
from ccd_settings.settings import SettingsError

_EXIT_USAGE = 2
_ANY_WIDTH = 100_000  # more than a line can have
_PERIOD = re.compile(r"(\d{1,5})([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}

file_option = click.option(
    "--keys-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file of keys.  [default: gateway.keys_file, else keys.json in the data directory]",
)


@click.group("keys")
def keys_group() -> None:
    """Make, list, revoke and rotate the gateway's API keys; running gateways notice within a second."""


@keys_group.command()
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
    help="A day (2026-12-31, until its end, UTC) or a period from now (90d, 12h).",
)
@file_option
@json_option
def create(name: str, expires: str | None, keys_file: Path | None, as_json: bool, **wishes: Any) -> None:
    """Make a key and print its secret, once: only a hash of it is stored."""
    limits = {field: value for field, value in wishes.items() if value not in (None, ())}
    with _failing():
        key, token = keyfile.make(name, expires=_moment(expires), **limits)
        with keyfile.changing(_path(keys_file)) as keys:
            if any(other.name == name for other in keys.values()):
                _stop(
                    f"there is a key {name!r} already; revoke or rotate it, or choose another name",
                    EXIT_FAILED,
                )
            keys[key.id] = key
            _show_token(key, token, as_json)
    click.echo(f"The key {key.name!r} is shown only now. Clients send it as their API key.", err=True)


@keys_group.command("list")
@file_option
@json_option
def list_keys(keys_file: Path | None, as_json: bool) -> None:
    """List the keys and what they may do."""
    with _failing():
        keys = keyfile.read(_path(keys_file))
    rows = [_row(key) for key in sorted(keys.values(), key=lambda key: key.name)]
    show(rows, as_json, _print_keys)


@keys_group.command()
@click.argument("name")
@file_option
def revoke(name: str, keys_file: Path | None) -> None:
    """Make a key useless, by its name or id; its usage stays on record."""
    with _failing(), keyfile.changing(_path(keys_file)) as keys:
        del keys[_named(keys, name).id]
    click.echo(f"revoked: {name}")
    if not keys:
        click.echo(
            "That was the last key. Running gateways go on asking for one; one that is started now on a loopback"
            " address does not, unless gateway.require_keys is true.",
            err=True,
        )


@keys_group.command()
@click.argument("name")
@file_option
@json_option
def rotate(name: str, keys_file: Path | None, as_json: bool) -> None:
    """Give a key another secret; the old one is useless at once. Limits and usage stay."""
    with _failing(), keyfile.changing(_path(keys_file)) as keys:
        key, token = keyfile.renewed(_named(keys, name))
        keys[key.id] = key
        _show_token(key, token, as_json)
    click.echo(f"The key {key.name!r} is shown only now. Clients send it as their API key.", err=True)


@click.command()
@click.option(
    "--since",
    metavar="DAY",
    help="First day, as 2026-11-01 (UTC), or a period up to now (7d).  [default: today]",
)
@json_option
def usage(since: str | None, as_json: bool) -> None:
    """Show what each key has used: by day and model, with requests, tokens and USD."""
    first = _first_day(since)
    path = _settings().usage_path(os.environ)
    try:
        rows = [row._asdict() for row in ledger.read_usage(path, first)]
    except sqlite3.Error as error:
        _stop(f"cannot read the usage file {path}: {error}", EXIT_FAILED)
    show(rows, as_json, _print_usage)


def _settings() -> GatewaySettings:
    try:
        return load_settings(os.environ, {})
    except SettingsError as error:
        _stop(str(error), _EXIT_USAGE)


def _path(keys_file: Path | None) -> Path:
    path: Path = keys_file or _settings().keys_path(os.environ)
    return path


@contextmanager
def _failing() -> Iterator[None]:
    """A file that cannot be used ends the command with one line."""
    try:
        yield
    except keyfile.KeyFileError as error:
        _stop(str(error), EXIT_FAILED)


def _named(keys: dict[str, Any], name: str) -> Any:
    for key in keys.values():
        if name in (key.name, key.id):
            return key
    _stop(f"there is no key {name!r}; see: ccd ctl keys list", EXIT_FAILED)
    return None


def _moment(when: str | None) -> float | None:
    if when is None:
        return None
    period = _PERIOD.fullmatch(when)
    if period:
        return round(time.time() + timedelta(**{_UNITS[period[2]]: int(period[1])}).total_seconds())
    return datetime.combine(_day(when, "--expires"), datetime.min.time(), UTC).timestamp() + 86400


def _first_day(since: str | None) -> str:
    period = _PERIOD.fullmatch(since or "0d")
    if period:
        return (datetime.now(UTC) - timedelta(**{_UNITS[period[2]]: int(period[1])})).date().isoformat()
    return _day(since or "", "--since").isoformat()


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        _stop(f"{option}: expected a day like 2026-11-01 or a period like 7d, got {text[:40]!r}", _EXIT_USAGE)


def _row(key: Any) -> dict[str, Any]:
    fields = (
        "name",
        "id",
        "tenant",
        "scopes",
        "profiles",
        "models",
        "requests_per_minute",
        "tokens_per_minute",
    )
    row = {field: getattr(key, field) for field in (*fields, "concurrent", "usd_per_day")}
    return {**row, "created": _shown(key.created), "expires": key.expires and _shown(key.expires)}


def _shown(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="seconds")


def _show_token(key: Any, token: str, as_json: bool) -> None:
    """Print a token while its key may still be taken back: one that nobody has seen is of no use to anybody."""
    try:
        click.echo(json.dumps({**_row(key), "token": token}) if as_json else token)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else what is still held back fails again at the exit
        _stop(f"the key cannot be shown, so none was made: {error.strerror}", EXIT_FAILED)


def _print_keys(rows: list[dict[str, Any]]) -> None:
    if not rows:
        click.echo("There are no keys. Make one with: ccd ctl keys create NAME", err=True)
        return
    limits = ("requests_per_minute", "tokens_per_minute", "concurrent", "usd_per_day")
    _table(
        [
            "name",
            "id",
            "tenant",
            "scopes",
            "profiles",
            "models",
            "req/min",
            "tok/min",
            "open",
            "USD/day",
            "expires",
        ],
        [
            [row["name"], row["id"], row["tenant"]]
            + [" ".join(row[field]) for field in ("scopes", "profiles", "models")]
            + ["-" if row[limit] is None else f"{row[limit]:g}" for limit in limits]
            + [row["expires"] or "-"]
            for row in rows
        ],
    )


def _print_usage(rows: list[dict[str, Any]]) -> None:
    if not rows:
        click.echo("Nothing was used.", err=True)
        return
    headings = ["day", "key", "model", "requests", "input", "cached", "output", "USD"]
    counts = ("requests", "input_tokens", "cached_tokens", "output_tokens")
    lines = [
        [row["day"], row["key"], row["model"], *(str(row[c]) for c in counts), f"{row['cost_usd']:.4f}"]
        for row in rows
    ]
    total = [str(sum(row[count] for row in rows)) for count in counts]
    _table(headings, [*lines, ["total", "", "", *total, f"{sum(row['cost_usd'] for row in rows):.4f}"]])


def _table(headings: list[str], lines: list[list[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only for people
    from rich.table import Table  # noqa: PLC0415

    table = Table(*headings, box=None, pad_edge=False)
    for line in lines:
        table.add_row(*line)
    # The terminal wraps what is too wide; shortened names would be of no use to anybody.
    Console(width=_ANY_WIDTH, highlight=False, markup=False).print(table)


def _stop(message: str, status: int) -> NoReturn:
    click.echo(f"ccd: {message}", err=True)
    sys.exit(status)
