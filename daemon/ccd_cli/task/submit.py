"""`ccd task submit`: hand a task over, and return at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import show
from ccd_cli.task.options import submit_options
from ccd_cli.task.worker import worker


@command(
    "submit", 'ccd task submit "Summarise this repository."', "git diff | ccd task submit - --key review-42"
)
@click.argument("prompt")
@submit_options
@click.option("--key", help="The same key gives the same task, however often it is submitted.")
@click.option("--webhook", metavar="URL", help="Is told of the end (Standard Webhooks).")
@json_option
@socket_option
def submit(
    prompt: str, key: str | None, webhook: str | None, as_json: bool, socket: Path | None, **options: Any
) -> None:
    """Submit PROMPT (- for stdin) as a task and print its id; it is run whatever becomes of this terminal."""
    text = sys.stdin.read() if prompt == "-" else prompt
    target = {"url": webhook} if webhook else None
    with worker(socket) as tasks:
        task = tasks.submit(text, idempotency_key=key, webhook=target, **options)
        show(task, as_json, lambda told: click.echo(told["id"]))
