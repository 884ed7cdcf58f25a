"""`ccd task cancel`: end a task."""

from __future__ import annotations

from pathlib import Path

import click

from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import show
from ccd_cli.task.options import task_argument
from ccd_cli.task.worker import worker


@command("cancel", "ccd task cancel task_3f…")
@task_argument
@json_option
@socket_option
def cancel(task_id: str, as_json: bool, socket: Path | None) -> None:
    """End a task; what its steps have answered stays."""
    with worker(socket) as tasks:
        tasks.cancel(task_id)
        show(tasks.wait(task_id, 10), as_json, lambda task: click.echo(f"{task['id']} is {task['status']}"))
