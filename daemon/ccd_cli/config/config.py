"""`ccd config check` and `ccd config show`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ccd_daemon import config as daemon_config
from ccd_gateway.settings import GatewaySettings, load_settings
from ccd_settings import compat
from ccd_settings.settings import SettingsError, config_path, sources

_EXIT_USAGE = 2
_HIDDEN = "(hidden)"


@click.group("config")
def config_group() -> None:
    """Check the settings, and show which are in force."""


@config_group.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def check(file: Path | None, as_json: bool) -> None:
    """Check FILE, or the settings that ccd would use, and start nothing.

    \b
    Examples:
      ccd config check                      # what `ccd up` would read
      ccd config check /etc/ccd/ccd.toml    # a file before it is put in place
      ccd config check --json

    Every mistake is named with file and line. Exit status: 0 when there is none, 2 otherwise.
    """
    environ = _environ(file)
    found = problems(environ)
    source = config_path(environ)
    if as_json:
        click.echo(json.dumps({"file": str(source) if source else None, "problems": found}))
    elif not found:
        click.echo(f"{source or 'No settings file; variables and defaults'}: nothing wrong.")
    else:
        click.echo("\n".join(found), err=True)
    sys.exit(_EXIT_USAGE if found else 0)


@config_group.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option("--changed", is_flag=True, help="Only what is not a default.")
def show(as_json: bool, changed: bool) -> None:
    """Show every setting in force and where it comes from; values that may hold secrets are hidden.

    \b
    Examples:
      ccd config show --changed
      ccd config show --json | jq '."pool.spares"'
    """
    try:
        rows = in_force(os.environ)
    except SettingsError as error:
        click.echo("\n".join(f"ccd: {problem}" for problem in error.problems), err=True)
        sys.exit(_EXIT_USAGE)
    if changed:
        rows = {key: row for key, row in rows.items() if row["source"] != "default"}
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    for key, row in rows.items():
        click.echo(f"{key:<34} {_text(row['value']):<34} {row['source']}")


def problems(environ: Mapping[str, str]) -> list[str]:
    """Returns everything that is wrong with the settings of daemon and gateway, each text once."""
    found: dict[str, None] = {}
    for read in (lambda: daemon_config.read(environ), lambda: load_settings(environ, {})):
        try:
            read()
        except SettingsError as error:
            found |= dict.fromkeys(error.problems)
    return list(found)


def in_force(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Returns `section.key` to `{"value", "source"}` for every setting of daemon and gateway.

    Raises:
        SettingsError: they cannot be read.
    """
    settings = daemon_config.read(environ)
    tables: dict[str, Any] = {
        name: getattr(settings, name) for name in daemon_config.SECTIONS if name != "gateway"
    }
    tables["gateway"] = load_settings(environ, {})
    places = sources(
        {**daemon_config.SECTIONS, "gateway": GatewaySettings},
        toml_path=config_path(environ),
        environ=environ,
        below=compat.read(environ).settings,
    )
    return dict(sorted(row for name, table in tables.items() for row in _rows(name, table, places)))


def _rows(path: str, value: Any, places: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(value, Mapping) and all(dataclasses.is_dataclass(item) for item in value.values()):
        return [row for name, item in value.items() for row in _rows(f"{path}.{name}", item, places)]
    return [
        (
            f"{path}.{field.name}",
            {
                "value": _HIDDEN if field.metadata.get("secret") else getattr(value, field.name),
                "source": places.get(f"{path}.{field.name}", "default"),
            },
        )
        for field in dataclasses.fields(value)
    ]


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _environ(file: Path | None) -> dict[str, str]:
    return {**os.environ, **({"CCD_CONFIG": str(file)} if file else {})}
