"""`ccd cli`: which Claude Code CLI ccd uses, and getting one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

import click
from ccd_protocol.settings import SettingsError

from . import cli_binary, config
from .rpc_command import EXIT_FAILED, EXIT_UNAVAILABLE, json_option


@click.group("cli")
def cli_group() -> None:
    """Find or install the Claude Code CLI that ccd runs."""


@cli_group.command()
@json_option
def path(as_json: bool) -> None:
    """Print where the CLI is: `cli.command`, else `claude` on PATH, else ccd's own copy."""
    found = _found()
    click.echo(json.dumps({"path": str(found)}) if as_json else str(found))


@cli_group.command()
@json_option
def version(as_json: bool) -> None:
    """Print the CLI's version, and whether ccd supports it."""
    found = _found()
    try:
        number = cli_binary.version(found, os.environ)
        cli_binary.check_supported(number)
    except (cli_binary.CliNotFound, cli_binary.CliTooOld) as error:
        _stop(str(error), EXIT_UNAVAILABLE)
    facts = {"path": str(found), "version": number, "lowest_supported": cli_binary.LOWEST_SUPPORTED}
    click.echo(json.dumps(facts) if as_json else f"{number} ({found}); ccd needs {cli_binary.LOWEST_SUPPORTED} or later")


@cli_group.command()
@click.option("--version", "wanted", metavar="V", help="Version of the package that carries the CLI.  [default: newest]")
@json_option
def install(wanted: str | None, as_json: bool) -> None:
    """Download the CLI into ccd's own data directory, verify it, and show progress."""
    from . import cli_install  # noqa: PLC0415 - only this command needs it

    try:
        installed = cli_install.install(_settings().data_dir, version=wanted)
    except cli_install.InstallFailed as error:
        _stop(str(error), EXIT_FAILED)
    click.echo(json.dumps({"path": str(installed)}) if as_json else str(installed))


def _settings() -> config.Settings:
    try:
        return config.read(os.environ)
    except SettingsError as error:
        _stop(str(error), 2)


def _found() -> Path:
    settings = _settings()
    try:
        found = cli_binary.find(settings.cli.command, settings.data_dir, os.environ.get("PATH", ""))
    except cli_binary.CliNotFound as error:
        _stop(str(error), EXIT_UNAVAILABLE)
    if found is None:
        _stop("there is no Claude Code CLI yet; install it with: ccd cli install", EXIT_UNAVAILABLE)
    return found


def _stop(message: str, status: int) -> NoReturn:
    click.echo(f"ccd: {message}", err=True)
    sys.exit(status)
