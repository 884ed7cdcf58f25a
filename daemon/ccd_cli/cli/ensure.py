"""A CLI where there is none: installed when a setting says so, or when whoever sits at the terminal agrees."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from ccd_cli.cli.progress import shown
from ccd_cli.ending import EXIT_FAILED, EXIT_UNAVAILABLE, stop
from ccd_daemon.claude import binary
from ccd_daemon.claude.install import Installed, InstallFailed, install
from ccd_daemon.config import Settings

_SIZE = "about 80 MB"


def ensure_cli(settings: Settings, environ: Mapping[str, str]) -> None:
    """Return when there is a CLI; without one, and without leave to install it, the command ends."""
    try:
        if binary.find(settings.cli.command, settings.data_dir, environ.get("PATH", os.defpath)) is not None:
            return
    except binary.CliError as error:
        stop(str(error), EXIT_UNAVAILABLE)
    if not settings.cli.auto_install and not _agreed(settings):
        stop(
            "there is no Claude Code CLI yet; install it with: ccd cli install (or set cli.auto_install)",
            EXIT_UNAVAILABLE,
        )
    installed = install_shown(settings)
    click.echo(f"Claude Code {installed.version} is installed: {installed.path}", err=True)


def install_shown(settings: Settings, release: str | None = None) -> Installed:
    """Install the CLI and show how far that is; a failure ends the command."""
    try:
        with shown() as progress:
            installed = install(settings.data_dir, version=release, progress=progress)
    except InstallFailed as error:
        stop(str(error), EXIT_FAILED)
    if release is not None:
        with contextlib.suppress(OSError):
            _release_file(installed.path).write_text(release)
    return installed


def already_there(settings: Settings, release: str | None) -> Installed | None:
    """The copy that needs no download: of that release, or, without one, the one in use."""
    copies = binary.installed(settings.data_dir)
    if release is not None:
        copies = [path for path in copies if _released(path) == release]
    chosen = binary.chosen(settings.data_dir)
    copies.sort(key=lambda path: path.parent.name != chosen)
    return Installed(copies[0], copies[0].parent.name) if copies else None


def _release_file(copy: Path) -> Path:
    return copy.with_name("release")


def _released(copy: Path) -> str | None:
    try:
        return _release_file(copy).read_text()
    except OSError:
        return None


def _agreed(settings: Settings) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    where = settings.data_dir / "cli"
    return click.confirm(
        f"There is no Claude Code CLI yet. Install it into {where} ({_SIZE})?", default=True, err=True
    )
