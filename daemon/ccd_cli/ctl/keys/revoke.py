"""`ccd ctl keys revoke`."""

from __future__ import annotations

from pathlib import Path

import click

from ccd_cli.completion import words
from ccd_cli.ctl.keys.file import failing, file_option, named, path_of
from ccd_cli.options import command
from ccd_gateway.access import keyfile


@command("revoke", "ccd ctl keys revoke laptop")
@click.argument("name", shell_complete=words.keys)
@file_option
def revoke(name: str, keys_file: Path | None) -> None:
    """Make a key useless, by its name or id; its usage stays on record."""
    with failing(), keyfile.changing(path_of(keys_file)) as keys:
        del keys[named(keys, name).id]
    click.echo(f"revoked: {name}")
    if not keys:
        click.echo(
            "That was the last key. Running gateways go on asking for one; one that is started now on a loopback"
            " address does not, unless gateway.require_keys is true.",
            err=True,
        )
