"""`ccd task list`: tasks, newest first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import show, table
from ccd_cli.task.worker import when, worker

_STATUSES = ("pending", "running", "completed", "failed", "cancelled", "interrupted")


@command("list", "ccd task list", "ccd task list --status failed --limit 100 --json")
@click.option("--status", multiple=True, type=click.Choice(_STATUSES), help="Only these; may be repeated.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@json_option
@socket_option
def list_tasks(status: tuple[str, ...], limit: int, as_json: bool, socket: Path | None) -> None:
    """List tasks, newest first."""
    with worker(socket) as tasks:
        show(tasks.list(statuses=list(status), limit=limit), as_json, _print)


def _print(found: list[dict[str, Any]]) -> None:
    rows = [
        [
            task["id"],
            task["kind"],
            task["status"],
            f"{task['items']['completed']}/{task['total']}",
            f"{task['cost_usd']:.4f}",
            when(task["created_at"]),
        ]
        for task in found
    ]
    table(["id", "kind", "status", "done", "usd", "created"], rows, right=("done", "usd"))
