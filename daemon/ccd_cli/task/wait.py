"""`ccd task wait`: a task's end."""

from __future__ import annotations

import sys
from pathlib import Path

from ccd_cli.options import command, json_option, socket_option
from ccd_cli.task.options import task_argument
from ccd_cli.task.run import follow
from ccd_cli.task.worker import worker


@command("wait", "ccd task wait task_3f…", "ccd task wait task_3f… --json | jq .cost_usd")
@task_argument
@json_option
@socket_option
def wait(task_id: str, as_json: bool, socket: Path | None) -> None:
    """Show what a task has said, and what it still says, to its end. Exit status 1 when it did not succeed."""
    with worker(socket) as tasks:
        sys.exit(follow(tasks, task_id, as_json=as_json))
