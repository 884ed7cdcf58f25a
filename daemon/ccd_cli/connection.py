"""A connection to the daemon for the length of a command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ccd_cli.ending import checked, error_row, exit_status
from ccd_client import Client
from ccd_protocol.errors import RpcError
from ccd_settings.settings import config_path, socket_in_force


@contextmanager
def connected(socket: Path | None, *, as_json: bool = False) -> Iterator[Client]:
    """A client; a failed call ends the command with one line on stderr and a telling exit status.

    With `as_json` standard output gets the failure, too: `{"error": {"code", "message", …}}`.
    """
    path = socket or checked(lambda: socket_in_force(os.environ, config_path(os.environ)))
    try:
        with Client(path) as client:
            yield client
    except RpcError as error:
        if as_json:
            click.echo(json.dumps({"error": error_row(error)}, ensure_ascii=False))
        click.echo(f"ccd: {error.message}", err=True)
        tail = error.data.get("stderr_tail")
        if tail:
            click.echo(f"     the CLI said: {tail}", err=True)
        sys.exit(exit_status(error))
