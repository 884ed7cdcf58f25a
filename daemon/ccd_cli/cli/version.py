"""`ccd cli`: which Claude Code CLI ccd uses, and getting one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from ccd_cli.rpc import EXIT_FAILED, EXIT_UNAVAILABLE, json_option
from ccd_daemon import config
from ccd_daemon.claude import binary as cli_binary
from ccd_settings.settings import SettingsError


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
    settings = _settings()
    try:
        cli = cli_binary.resolve(settings.cli.command, settings.data_dir, os.environ)
    except cli_binary.CliError as error:
        _stop(str(error), EXIT_UNAVAILABLE)
    lowest = cli_binary.LOWEST_SUPPORTED
    facts = {"path": str(cli.path), "version": cli.version, "source": cli.source, "lowest_supported": lowest}
    click.echo(json.dumps(facts) if as_json else f"{cli.version} ({cli.path}); ccd needs {lowest} or later")


@cli_group.command()
@click.option(
    "--version", "wanted", metavar="V", help="Release of the package that carries the CLI.  [default: newest]"
)
@json_option
def install(wanted: str | None, as_json: bool) -> None:
    """Download the CLI into ccd's own data directory, verify it, and show progress."""
    from ccd_cli.cli.progress import shown  # noqa: PLC0415
    from ccd_daemon.claude.install import InstallFailed  # noqa: PLC0415 - only this command needs it
    from ccd_daemon.claude.install import install as install_cli  # noqa: PLC0415

    try:
        with shown() as progress:
            installed = install_cli(_settings().data_dir, version=wanted, progress=progress)
    except InstallFailed as error:
        _stop(str(error), EXIT_FAILED)
    facts = {"path": str(installed.path), "version": installed.version}
    click.echo(
        json.dumps(facts) if as_json else f"Claude Code {installed.version} is installed: {installed.path}"
    )


def _settings() -> config.Settings:
    try:
        return config.read(os.environ)
    except SettingsError as error:
        _stop(str(error), 2)


def _found() -> Path:
    settings = _settings()
    try:
        found = cli_binary.find(settings.cli.command, settings.data_dir, os.environ.get("PATH", os.defpath))
    except cli_binary.CliError as error:
        _stop(str(error), EXIT_UNAVAILABLE)
    if found is None:
        _stop("there is no Claude Code CLI yet; install it with: ccd cli install", EXIT_UNAVAILABLE)
    return found


def _stop(message: str, status: int) -> NoReturn:
    click.echo(f"ccd: {message}", err=True)
    sys.exit(status)
