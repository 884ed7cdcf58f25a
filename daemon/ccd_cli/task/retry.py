"""`ccd task retry`: run once more what did not succeed."""

from __future__ import annotations

from pathlib import Path

import click

from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import show
from ccd_cli.task.options import task_argument
from ccd_cli.task.worker import worker


@command("retry", "ccd task retry task_3f…")
@task_argument
@json_option
@socket_option
def retry(task_id: str, as_json: bool, socket: Path | None) -> None:
    """Run the steps of a finished task once more that did not succeed."""
    with worker(socket) as tasks:
        show(tasks.retry(task_id), as_json, lambda task: click.echo(f"{task['id']} is {task['status']}"))
