"""What the commands that talk to the daemon share: the options, the connection, and errors as exit statuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ccd_client import Client
from ccd_protocol.errors import MEANINGS, Code, RpcError
from ccd_settings.settings import SettingsError, config_path, socket_in_force

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69
EXIT_RETRY = 75

socket_option = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="The daemon's Unix socket.  [default: $CCD_SOCKET or the usual places]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@contextmanager
def connected(socket: Path | None) -> Iterator[Client]:
    """A client; a failed call ends the command with one line on stderr and a telling exit status."""
    try:
        path = socket or socket_in_force(os.environ, config_path(os.environ))
    except SettingsError as error:
        click.echo(f"ccd: {error}", err=True)
        sys.exit(EXIT_USAGE)
    try:
        with Client(path) as client:
            yield client
    except RpcError as error:
        click.echo(f"ccd: {error.message}", err=True)
        tail = error.data.get("stderr_tail")
        if tail:
            click.echo(f"     the CLI said: {tail}", err=True)
        sys.exit(exit_status(error))


def exit_status(error: RpcError) -> int:
    """69 when there is no daemon, 75 when trying again later can help, 1 otherwise."""
    if error.code is Code.LOST:
        return EXIT_UNAVAILABLE
    return EXIT_RETRY if MEANINGS[error.code].retryable else EXIT_FAILED


def show(value: Any, as_json: bool, human: Callable[[Any], None]) -> None:
    """Print a result as one JSON document, or for people."""
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False))
    else:
        human(value)
