"""`ccd cli version`: which release of the CLI ccd runs."""

from __future__ import annotations

import json
import os

import click

from ccd_cli.ending import EXIT_UNAVAILABLE, checked, stop
from ccd_cli.options import command, json_option
from ccd_daemon import config
from ccd_daemon.claude import binary


@command("version", "ccd cli version", "ccd cli version --json")
@json_option
def version(as_json: bool) -> None:
    """Print the CLI's version, and the lowest that ccd supports."""
    settings = checked(lambda: config.read(os.environ))
    try:
        cli = binary.resolve(settings.cli.command, settings.data_dir, os.environ)
    except binary.CliError as error:
        stop(str(error), EXIT_UNAVAILABLE)
    lowest = binary.LOWEST_SUPPORTED
    facts = {"path": str(cli.path), "version": cli.version, "source": cli.source, "lowest_supported": lowest}
    click.echo(json.dumps(facts) if as_json else f"{cli.version} ({cli.path}); ccd needs {lowest} or later")
