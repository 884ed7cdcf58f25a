"""`ccd cli`: the group."""

from __future__ import annotations

from ccd_cli.cli.install import install
from ccd_cli.cli.path import path
from ccd_cli.cli.version import version
from ccd_cli.options import group


@group("cli", "ccd cli version", "ccd cli install")
def cli() -> None:
    """Find or install the Claude Code CLI that ccd runs."""


for _command in (path, version, install):
    cli.add_command(_command)
