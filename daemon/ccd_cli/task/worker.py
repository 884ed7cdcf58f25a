"""A connection to `ccd worker` for the length of a command, and how its tasks are shown."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ccd_cli.ending import checked, exit_status
from ccd_client.tasks.blocking import Tasks
from ccd_protocol.errors import RpcError
from ccd_settings.paths import tasks_socket
from ccd_settings.settings import config_path, socket_in_force


@contextmanager
def worker(socket: Path | None) -> Iterator[Tasks]:
    """The worker beside the daemon's socket; a failed call ends the command with one line on stderr."""
    path = socket or checked(lambda: socket_in_force(os.environ, config_path(os.environ)))
    try:
        with Tasks(tasks_socket(path)) as tasks:
            yield tasks
    except RpcError as error:
        click.echo(f"ccd: {error.message}", err=True)
        sys.exit(exit_status(error))


def describe(task: dict[str, Any]) -> None:
    """A task for people."""
    counts = ", ".join(f"{count} {word}" for word, count in task["items"].items() if count)
    click.echo(f"{task['id']}  {task['kind']}  {task['status']}")
    click.echo(f"  steps    {task['total']} ({counts or 'none yet'})")
    click.echo(f"  cost     ${task['cost_usd']:.4f}, {task['usage']['output_tokens']} tokens written")
    click.echo(f"  created  {when(task['created_at'])}, ended {when(task['completed_at'])}")
    if task["interruptions"]:
        click.echo(f"  attempts that were interrupted, and may have cost something: {task['interruptions']}")
    if task["error"]:
        click.echo(f"  {task['error']['code']}: {task['error']['message']}")


def when(at_s: float | None) -> str:
    """A time of this machine's zone."""
    return "-" if at_s is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))
