"""`ccd cli path`: where the CLI is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from ccd_cli.ending import EXIT_UNAVAILABLE, checked, stop
from ccd_cli.options import command, json_option
from ccd_daemon import config
from ccd_daemon.claude import binary


@command("path", "ccd cli path", 'exec "$(ccd cli path)" --version')
@json_option
def path(as_json: bool) -> None:
    """Print where the CLI is: `cli.command`, else `claude` on PATH, else ccd's own copy."""
    found = _found()
    click.echo(json.dumps({"path": str(found)}) if as_json else str(found))


def _found() -> Path:
    settings = checked(lambda: config.read(os.environ))
    try:
        found = binary.find(settings.cli.command, settings.data_dir, os.environ.get("PATH", os.defpath))
    except binary.CliError as error:
        stop(str(error), EXIT_UNAVAILABLE)
    if found is None:
        stop("there is no Claude Code CLI yet; install it with: ccd cli install", EXIT_UNAVAILABLE)
    return found
