"""`ccd task webhooks`: how deliveries went, and once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import show, table
from ccd_cli.task.options import task_argument
from ccd_cli.task.worker import worker


@command("webhooks", "ccd task webhooks task_3f…", "ccd task webhooks task_3f… --resend")
@task_argument
@click.option("--resend", is_flag=True, help="Deliver them once more.")
@json_option
@socket_option
def webhooks(task_id: str, resend: bool, as_json: bool, socket: Path | None) -> None:
    """Show the webhooks of a task and how their delivery went."""
    with worker(socket) as tasks:
        if resend:
            tasks.call("task.resend", {"task_id": task_id})
        show(tasks.call("task.webhooks", {"task_id": task_id})["webhooks"], as_json, _print)


def _print(found: list[dict[str, Any]]) -> None:
    if not found:
        click.echo("It has none.")
        return
    rows = [
        [hook["id"], hook["status"], str(hook["attempts"]), str(hook["http_status"] or "-"), hook["url"]]
        for hook in found
    ]
    table(["id", "status", "attempts", "http", "url"], rows, right=("attempts",))
