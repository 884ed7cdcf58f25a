"""`ccd task show`: one task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import show as show_value
from ccd_cli.task.options import task_argument
from ccd_cli.task.worker import describe, worker


@command("show", "ccd task show task_3f…", "ccd task show task_3f… --json")
@task_argument
@json_option
@socket_option
def show(task_id: str, as_json: bool, socket: Path | None) -> None:
    """Show a task and the answers of its steps."""
    with worker(socket) as tasks:
        task = tasks.get(task_id)
        items = list(tasks.items(task_id))
        show_value({**task, "steps": items}, as_json, lambda told: _print(told, items))


def _print(task: dict[str, Any], items: list[dict[str, Any]]) -> None:
    describe(task)
    for item in items:
        click.echo(f"\n{item['number'] + 1}. {item['name']}: {item['status']}")
        if item["error"]:
            click.echo(f"   {item['error']['code']}: {item['error']['message']}")
        if item["result"]:
            click.echo(item["result"].get("text", ""))
