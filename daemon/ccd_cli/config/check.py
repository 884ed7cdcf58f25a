"""`ccd config check`: every mistake in the settings, with file and line; nothing is started."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from ccd_cli.ending import EXIT_USAGE
from ccd_cli.options import command, json_option
from ccd_daemon import config as daemon_config
from ccd_gateway.settings import load_settings
from ccd_settings.settings import SettingsError, config_path
from ccd_tasks import settings as tasks_settings


@command(
    "check",
    "ccd config check                      # what `ccd up` would read",
    "ccd config check /etc/ccd/ccd.toml    # a file before it is put in place",
    "ccd config check --json",
)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@json_option
def check(file: Path | None, as_json: bool) -> None:
    """Check FILE, or the settings that ccd would use, and start nothing.

    Every mistake is named with file and line. Exit status: 0 when there is none, 2 otherwise.
    """
    environ = {**os.environ, **({"CCD_CONFIG": str(file)} if file else {})}
    found = problems(environ)
    source = config_path(environ)
    if as_json:
        click.echo(json.dumps({"file": str(source) if source else None, "problems": found}))
    elif not found:
        click.echo(f"{source or 'No settings file; variables and defaults'}: nothing wrong.")
    else:
        click.echo("\n".join(found), err=True)
    sys.exit(EXIT_USAGE if found else 0)


def problems(environ: Mapping[str, str]) -> list[str]:
    """Returns everything that is wrong with the settings of daemon, gateway and worker, each text once."""
    found: dict[str, None] = {}
    readers = (daemon_config.read, lambda given: load_settings(given, {}), tasks_settings.read)
    for read in readers:
        try:
            read(environ)
        except SettingsError as error:
            found |= dict.fromkeys(error.problems)
    return list(found)
