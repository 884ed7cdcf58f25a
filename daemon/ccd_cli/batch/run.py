"""`ccd batch run`: a file of questions as one piece of durable work, which can be gone on with at any time."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any, cast

import click

from ccd_cli.batch.lines import row, steps
from ccd_cli.batch.progress import progress_on
from ccd_cli.ending import EXIT_FAILED, EXIT_USAGE, stop
from ccd_cli.options import command, json_option, socket_option
from ccd_cli.task.options import submit_options
from ccd_cli.task.worker import worker
from ccd_client.tasks.blocking import Tasks
from ccd_client.tasks.requests import TaskOptions

_LOOK_S = 0.5


@command(
    "run",
    "ccd batch run questions.jsonl > answers.jsonl",
    "ccd batch run questions.jsonl --output answers.jsonl --budget-usd 5",
    "ccd batch run questions.jsonl --again     # ask everything anew",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the answers here.")
@click.option("--concurrency", type=click.IntRange(1, 256), help="Lines at a time.  [default: the worker's]")
@click.option("--again", is_flag=True, help="Ask everything anew, although the same file was run before.")
@submit_options
@json_option
@socket_option
def run(
    file: Path,
    output: Path | None,
    concurrency: int | None,
    again: bool,
    as_json: bool,
    socket: Path | None,
    **options: Any,
) -> None:
    """Ask every line of FILE and print the answers as JSON lines, in the order of the file.

    A line is a string, or an object with "prompt" or "messages", options of a chat, and perhaps an "id". A wrong line
    fails alone. After Ctrl-C or a power cut the batch goes on by itself; the same command finds it again and shows its
    answers. With --json a last line on stderr tells the whole. Exit status 1 when a line did not succeed.
    """
    text = _text(file)
    whole: dict[str, Any] = {name: options.pop(name) for name in ("priority", "budget_usd")}
    whole["concurrency"] = concurrency
    whole["idempotency_key"] = _key(text, whole, options, again=again)
    given = {name: value for name, value in options.items() if value is not None}
    made = list(steps(text.splitlines(), given))
    if not made:
        stop(f"{file} has no lines", EXIT_USAGE)
    with worker(socket) as tasks:
        task = tasks.submit_steps(made, cast(TaskOptions, whole))
        try:
            ended = _follow(tasks, task)
        except KeyboardInterrupt:
            click.echo(f"\nccd: {task['id']} goes on; the same command finds it again", err=True)
            sys.exit(130)
        _write(tasks, task["id"], output)
    if as_json:
        click.echo(json.dumps(ended, ensure_ascii=False), err=True)
    sys.exit(0 if ended["items"]["completed"] == ended["total"] else EXIT_FAILED)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        stop(f"{file} is not UTF-8 text", EXIT_USAGE)


def _key(text: str, whole: dict[str, Any], options: dict[str, Any], *, again: bool) -> str:
    """The same file with the same options is the same batch."""
    nonce = f"{time.time_ns()}" if again else ""
    said = json.dumps([text, whole, options, nonce], sort_keys=True, default=str)
    return f"batch-{hashlib.sha256(said.encode()).hexdigest()}"


def _follow(tasks: Tasks, task: dict[str, Any]) -> dict[str, Any]:
    """Show how far it is until it has ended."""
    with progress_on(sys.stderr, task["total"], _done(task)) as show:
        while True:
            show(_done(task), task["items"]["failed"], task["cost_usd"])
            if task["final"]:
                return task
            task = tasks.wait(task["id"], _LOOK_S)


def _done(task: dict[str, Any]) -> int:
    return int(task["total"] - task["items"]["pending"] - task["items"]["running"])


def _write(tasks: Tasks, task_id: str, output: Path | None) -> None:
    """Print the answers, or put a whole file into its place."""
    if output is None:
        for item in tasks.items(task_id):
            click.echo(json.dumps(row(item), ensure_ascii=False))
        return
    fresh = output.with_name(f"{output.name}.part")
    with fresh.open("w", encoding="utf-8") as file:
        for item in tasks.items(task_id):
            file.write(json.dumps(row(item), ensure_ascii=False) + "\n")
    fresh.replace(output)
