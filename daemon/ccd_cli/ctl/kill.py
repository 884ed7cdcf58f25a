"""`ccd ctl kill`: one CLI process, at once."""

from __future__ import annotations

from pathlib import Path

import click

from ccd_cli.connection import connected
from ccd_cli.options import command, socket_option


@command("kill", "ccd ctl workers", "ccd ctl kill w3")
@click.argument("worker")
@socket_option
def kill(worker: str, socket: Path | None) -> None:
    """End one CLI process at once, by its id in `ccd ctl workers`; the answer that it is giving fails."""
    with connected(socket) as client:
        client.kill(worker)
    click.echo(f"Worker {worker} was killed.")
