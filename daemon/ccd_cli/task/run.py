"""`ccd task run`: a task, followed to its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ccd_cli.ending import EXIT_FAILED
from ccd_cli.options import command, json_option, socket_option
from ccd_cli.task.options import submit_options
from ccd_cli.task.worker import worker
from ccd_client.tasks.blocking import Tasks


@command("run", 'ccd task run "Why is the sky blue?"', "ccd task run - < question.txt --json")
@click.argument("prompt")
@submit_options
@json_option
@socket_option
def run(prompt: str, as_json: bool, socket: Path | None, **options: Any) -> None:
    """Submit PROMPT (- for stdin) and show its answer as it comes. Ctrl-C leaves it running."""
    text = sys.stdin.read() if prompt == "-" else prompt
    with worker(socket) as tasks:
        task = tasks.submit(text, **options)
        try:
            sys.exit(follow(tasks, task["id"], as_json=as_json))
        except KeyboardInterrupt:
            click.echo(f"\nccd: it goes on; follow it with: ccd task wait {task['id']}", err=True)
            sys.exit(130)


def follow(tasks: Tasks, task_id: str, *, as_json: bool) -> int:
    """Show the text of a task as it comes, or its end as JSON; returns the exit status."""
    if not as_json:
        for event in tasks.events(task_id):
            if event["type"] == "text":
                click.echo(event["data"]["text"], nl=False)
            elif event["type"] == "restart":
                click.echo("\nccd: asking again:", err=True)
    task = tasks.wait(task_id)
    if as_json:
        click.echo(json.dumps({**task, "items": list(tasks.items(task_id))}, ensure_ascii=False))
    elif task["status"] == "completed":
        click.echo()
    else:
        error = task["error"] or {"code": task["status"], "message": ""}
        click.echo(f"ccd: the task is {task['status']}: {error['code']} {error['message']}", err=True)
    return 0 if task["status"] == "completed" else EXIT_FAILED
