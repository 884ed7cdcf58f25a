"""`ccd ctl usage`: what the keys have used. No daemon is needed."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

import click

from ccd_cli.ctl import days
from ccd_cli.ending import EXIT_FAILED, checked, stop
from ccd_cli.options import command, json_option
from ccd_cli.output import show, table

_COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens")


@command("usage", "ccd ctl usage --since 7d", "ccd ctl usage --since 2026-11-01 --json")
@click.option(
    "--since",
    metavar="DAY",
    callback=lambda _, __, value: days.first_day(value),
    help="First day, as 2026-11-01 (UTC), or a period up to now (7d).  [default: today]",
)
@json_option
def usage(since: str, as_json: bool) -> None:
    """Show what each key has used: by day and model, with requests, tokens and USD."""
    from ccd_gateway.access import ledger  # noqa: PLC0415
    from ccd_gateway.settings import load_settings  # noqa: PLC0415

    path = checked(lambda: load_settings(os.environ, {})).usage_path(os.environ)
    try:
        rows = [row._asdict() for row in ledger.read_usage(path, since)]
    except sqlite3.Error as error:
        stop(f"cannot read the usage file {path}: {error}", EXIT_FAILED)
    show(rows, as_json, _print)


def _print(rows: list[dict[str, Any]]) -> None:
    if not rows:
        click.echo("Nothing was used.", err=True)
        return
    lines = [
        [row["day"], row["key"], row["model"], *(str(row[c]) for c in _COUNTS), f"{row['cost_usd']:.4f}"]
        for row in rows
    ]
    total = [str(sum(row[count] for row in rows)) for count in _COUNTS]
    lines.append(["total", "", "", *total, f"{sum(row['cost_usd'] for row in rows):.4f}"])
    table(["day", "key", "model", "requests", "input", "cached", "output", "USD"], lines)
