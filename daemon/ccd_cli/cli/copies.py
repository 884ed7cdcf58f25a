"""`ccd cli list`, `use` and `remove`: ccd's own copies of the CLI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from ccd_cli.ending import EXIT_FAILED, checked, stop
from ccd_cli.options import command, json_option
from ccd_cli.output import show, table
from ccd_daemon import config
from ccd_daemon.claude import binary


@command("list", "ccd cli list", "ccd cli list --json")
@json_option
def list_copies(as_json: bool) -> None:
    """List ccd's own copies of the CLI, and which program is in use."""
    settings = checked(lambda: config.read(os.environ))
    try:
        used = binary.find(settings.cli.command, settings.data_dir, os.environ.get("PATH", os.defpath))
    except binary.CliError:
        used = None
    rows: list[dict[str, Any]] = [
        {"version": path.parent.name, "path": str(path), "used": path == used}
        for path in binary.installed(settings.data_dir)
    ]
    if used is not None and not any(row["used"] for row in rows):
        rows.insert(0, {"version": None, "path": str(used), "used": True})
    show(rows, as_json, _print)


def _print(rows: list[dict[str, Any]]) -> None:
    if not rows:
        click.echo("There is no CLI yet. Install one with: ccd cli install", err=True)
        return
    table(
        ["", "version", "path"],
        [["*" if row["used"] else "", row["version"] or "(not ccd's own)", row["path"]] for row in rows],
    )


@command("use", "ccd cli use 2.1.330", "ccd cli use newest")
@click.argument("version")
def use(version: str) -> None:
    """Use one of ccd's own copies, or the newest again; a daemon that runs does so when it is restarted."""
    settings = checked(lambda: config.read(os.environ))
    choice = binary.chosen_file(settings.data_dir)
    if version == "newest":
        choice.unlink(missing_ok=True)
    else:
        _copy(settings.data_dir, version)
        choice.write_text(f"{version}\n")
    used = binary.find(settings.cli.command, settings.data_dir, os.environ.get("PATH", os.defpath))
    click.echo(f"In use: {used}")
    if used is None or used not in binary.installed(settings.data_dir):
        click.echo("The setting cli.command, or a claude on PATH, goes before ccd's own copies.", err=True)


@command("remove", "ccd cli remove 2.1.197")
@click.argument("version")
def remove(version: str) -> None:
    """Remove one of ccd's own copies."""
    data_dir = checked(lambda: config.read(os.environ)).data_dir
    copy = _copy(data_dir, version)
    try:
        shutil.rmtree(copy.parent)
    except OSError as error:
        stop(f"{copy.parent} cannot be removed: {error.strerror}", EXIT_FAILED)
    if binary.chosen(data_dir) == version:
        binary.chosen_file(data_dir).unlink(missing_ok=True)
    click.echo(f"removed: {version}")


def _copy(data_dir: Path, version: str) -> Path:
    copies = {path.parent.name: path for path in binary.installed(data_dir)}
    if version not in copies:
        there = ", ".join(copies) or "none"
        stop(f"there is no copy of version {version!r}; there are: {there}", EXIT_FAILED)
    return copies[version]
