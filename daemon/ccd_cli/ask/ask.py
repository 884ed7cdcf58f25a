"""`ccd ask`: one question over the socket, the answer as it comes; or a batch of questions."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import click

from ccd_cli.ask import batch as ask_batch
from ccd_cli.connection import connected
from ccd_cli.ending import EXIT_FAILED
from ccd_cli.options import command, json_option, socket_option
from ccd_client.events import TextDelta


def _seconds(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter("expected a number of seconds, more than 0")
    return value


@command(
    "ask",
    'ccd ask "Why is the sky blue?"',
    "git diff | ccd ask -",
    "ccd ask --batch questions.jsonl --concurrency 8 > answers.jsonl",
)
@click.argument("prompt", required=False)
@click.option("--model", help="For example sonnet, opus, haiku, or PROFILE/MODEL.")
@click.option("--profile", help="The kind of worker.  [default: chat]")
@click.option("--system", help="A system prompt.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    callback=_seconds,
    metavar="SECONDS",
    help="Give up on an answer after so long.",
)
@click.option(
    "--batch", type=click.File(encoding="utf-8"), help="Ask every line of a JSONL file, or of - for stdin."
)
@click.option("--concurrency", type=click.IntRange(1, 256), default=4, show_default=True, help="Of a batch.")
@json_option
@socket_option
def ask(
    prompt: str | None,
    model: str | None,
    profile: str | None,
    system: str | None,
    timeout_s: float | None,
    batch: Any,
    concurrency: int,
    as_json: bool,
    socket: Path | None,
) -> None:
    """Ask PROMPT, or what stands on standard input when PROMPT is "-"; the answer streams to standard output.

    With --json the whole answer is one JSON object: text, model, stop_reason, usage and more.

    With --batch, each line of the file is a JSON string, or an object with "prompt" or "messages", chat options such as
    "model" or "tools", and an "id" of your own. The answers are JSON lines in the same order; one that failed has
    "error", and the exit status is 1 then.
    """
    wishes: dict[str, Any] = {"model": model, "profile": profile, "system": system, "timeout_s": timeout_s}
    if batch is not None:
        if prompt is not None:
            raise click.UsageError("give either PROMPT or --batch")
        asked = ask_batch.questions(batch)
        with connected(socket) as client:
            client.ping()  # no daemon is one failure, not one for every line
            failed = ask_batch.run(client, asked, wishes, concurrency)
        sys.exit(EXIT_FAILED if failed else 0)
    _ask_one(prompt, wishes, as_json, socket)


def _ask_one(prompt: str | None, wishes: dict[str, Any], as_json: bool, socket: Path | None) -> None:
    if prompt is None:
        raise click.UsageError("there is no prompt: give one, or - for standard input, or --batch FILE")
    text = _text(prompt)
    if not text.strip():
        raise click.UsageError("the prompt is empty")
    with connected(socket) as client:
        if as_json:
            answer = client.chat(text, **wishes)
            click.echo(json.dumps({"text": answer.text, **answer.result}, ensure_ascii=False))
            return
        for event in client.chat(text, stream=True, **wishes):
            if isinstance(event, TextDelta):
                click.echo(event.text, nl=False)
        click.echo()


def _text(prompt: str) -> str:
    """The prompt, or what stands on standard input; whatever the locale, it must be UTF-8."""
    raw = sys.stdin.buffer.read() if prompt == "-" else os.fsencode(prompt)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise click.UsageError("the prompt is not UTF-8 text") from None
