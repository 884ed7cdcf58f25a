"""`ccd cli install`: a copy of the CLI of ccd's own."""

from __future__ import annotations

import json
import os

import click

from ccd_cli.ending import checked
from ccd_cli.options import command, json_option
from ccd_daemon import config


@command(
    "install", "ccd cli install", "ccd cli install --upgrade", "ccd cli install --version 0.2.187 --json"
)
@click.option(
    "--version",
    "release",
    metavar="V",
    help="Release of the package that carries the CLI.  [default: newest]",
)
@click.option("--upgrade", is_flag=True, help="Look for a newer one although there is one.")
@json_option
def install(release: str | None, upgrade: bool, as_json: bool) -> None:
    """Download the CLI into ccd's own data directory, verify it, and show progress; what is there is not fetched."""
    from ccd_cli.cli import ensure  # noqa: PLC0415 - only this command needs it

    settings = checked(lambda: config.read(os.environ))
    there = None if upgrade else ensure.already_there(settings, release)
    installed = there or ensure.install_shown(settings, release)
    facts = {"path": str(installed.path), "version": installed.version, "fetched": there is None}
    already = "" if there is None else " already"
    click.echo(
        json.dumps(facts)
        if as_json
        else f"Claude Code {installed.version} is{already} installed: {installed.path}"
    )
