"""`ccd ctl recycle`: fresh CLI processes."""

from __future__ import annotations

from pathlib import Path

import click

from ccd_cli.connection import connected
from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import show


@command("recycle", "ccd ctl recycle", "ccd ctl recycle --profile quick")
@click.option("--profile", metavar="NAME", help="Only the processes of this profile.")
@socket_option
@json_option
def recycle(profile: str | None, socket: Path | None, as_json: bool) -> None:
    """Replace the CLI processes: idle ones now, others when their turn ends. Nobody's answer is lost."""
    with connected(socket) as client:
        show(
            client.recycle(profile),
            as_json,
            lambda result: click.echo(f"{result['workers']} processes are being replaced."),
        )
