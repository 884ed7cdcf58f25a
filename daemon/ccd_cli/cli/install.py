"""`ccd cli install`: a copy of the CLI of ccd's own."""

from __future__ import annotations

import json
import os

import click

from ccd_cli.ending import checked
from ccd_cli.options import command, json_option
from ccd_daemon import config


@command("install", "ccd cli install", "ccd cli install --version 0.1.60 --json")
@click.option(
    "--version", "wanted", metavar="V", help="Release of the package that carries the CLI.  [default: newest]"
)
@json_option
def install(wanted: str | None, as_json: bool) -> None:
    """Download the CLI into ccd's own data directory, verify it, and show progress; what is there is kept."""
    from ccd_cli.cli.ensure import install_shown  # noqa: PLC0415 - only this command needs it

    installed = install_shown(checked(lambda: config.read(os.environ)), wanted)
    facts = {"path": str(installed.path), "version": installed.version}
    click.echo(
        json.dumps(facts) if as_json else f"Claude Code {installed.version} is installed: {installed.path}"
    )
