"""`ccd cli`: the group."""

from __future__ import annotations

from ccd_cli.cli.copies import list_copies, remove, use
from ccd_cli.cli.install import install
from ccd_cli.cli.path import path
from ccd_cli.cli.run import run
from ccd_cli.cli.version import version
from ccd_cli.options import group


@group("cli", "ccd cli version", "ccd cli install")
def cli() -> None:
    """Find, install, choose or run the Claude Code CLI that ccd uses."""


for _command in (path, version, install, list_copies, use, remove, run):
    cli.add_command(_command)
