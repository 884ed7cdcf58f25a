"""`ccd config show`: the settings in force, and where each comes from."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import click

from ccd_cli.ending import checked
from ccd_cli.options import command, json_option
from ccd_daemon import config as daemon_config
from ccd_gateway.settings import GatewaySettings, load_settings
from ccd_settings import compat
from ccd_settings.settings import config_path, sources
from ccd_tasks import settings as tasks_settings

_OTHERS = ("gateway", "tasks")  # which have programs of their own
_HIDDEN = "(hidden)"


@command("show", "ccd config show --changed", "ccd config show --json | jq '.\"pool.spares\"'")
@json_option
@click.option("--changed", is_flag=True, help="Only what is not a default.")
def show(as_json: bool, changed: bool) -> None:
    """Show every setting in force and where it comes from; values that may hold secrets are hidden."""
    rows = checked(lambda: in_force(os.environ))
    if changed:
        rows = {key: row for key, row in rows.items() if row["source"] != "default"}
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    for key, row in rows.items():
        click.echo(f"{key:<34} {_text(row['value']):<34} {row['source']}")


def in_force(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Returns `section.key` to `{"value", "source"}` for every setting of daemon, gateway and worker.

    Raises:
        SettingsError: they cannot be read.
    """
    settings = daemon_config.read(environ)
    tables: dict[str, Any] = {
        name: getattr(settings, name) for name in daemon_config.SECTIONS if name not in _OTHERS
    }
    tables["gateway"] = load_settings(environ, {})
    tables["tasks"] = tasks_settings.read(environ).tasks
    places = sources(
        {**daemon_config.SECTIONS, "gateway": GatewaySettings, "tasks": tasks_settings.TasksSettings},
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
