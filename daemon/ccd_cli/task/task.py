"""`ccd task`: the group. Each command stands in the file that has its name."""

from __future__ import annotations

from ccd_cli.options import group
from ccd_cli.task.cancel import cancel
from ccd_cli.task.list import list_tasks
from ccd_cli.task.retry import retry
from ccd_cli.task.run import run
from ccd_cli.task.show import show
from ccd_cli.task.submit import submit
from ccd_cli.task.wait import wait
from ccd_cli.task.webhooks import webhooks


@group("task", 'ccd task run "Why is the sky blue?"', "ccd task list", "ccd task show task_3f…")
def task() -> None:
    """Durable work: tasks that are run whatever becomes of the terminal, the daemon or the machine."""


for _command in (submit, run, list_tasks, show, wait, cancel, retry, webhooks):
    task.add_command(_command)
