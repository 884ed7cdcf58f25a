"""`ccd ctl keys list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ccd_cli.ctl.keys.file import failing, file_option, path_of, row
from ccd_cli.options import command, json_option
from ccd_cli.output import show, table
from ccd_gateway.access import keyfile

_LIMITS = {
    "requests_per_minute": "req/min",
    "tokens_per_minute": "tok/min",
    "concurrent": "open",
    "usd_per_day": "USD/day",
}


@command("list", "ccd ctl keys list", "ccd ctl keys list --json")
@file_option
@json_option
def list_keys(keys_file: Path | None, as_json: bool) -> None:
    """List the keys and what they may do."""
    with failing():
        keys = keyfile.read(path_of(keys_file))
    show([row(key) for key in sorted(keys.values(), key=lambda key: key.name)], as_json, _print)


def _print(rows: list[dict[str, Any]]) -> None:
    if not rows:
        click.echo("There are no keys. Make one with: ccd ctl keys create NAME", err=True)
        return
    table(
        ["name", "id", "tenant", "scopes", "profiles", "models", *_LIMITS.values(), "expires"],
        [
            [shown["name"], shown["id"], shown["tenant"]]
            + [" ".join(shown[field]) for field in ("scopes", "profiles", "models")]
            + ["-" if shown[limit] is None else f"{shown[limit]:g}" for limit in _LIMITS]
            + [shown["expires"] or "-"]
            for shown in rows
        ],
    )
