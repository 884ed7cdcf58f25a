"""`ccd ask`: one question over the socket, the answer as it comes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from .rpc_command import connected, json_option, socket_option


@click.command()
@click.argument("prompt", required=True)
@click.option("--model", help="For example sonnet, opus, haiku, or PROFILE/MODEL.")
@click.option("--profile", help="The kind of worker.  [default: chat]")
@click.option("--system", help="A system prompt.")
@click.option("--timeout", "timeout_s", type=float, help="Give up after so many seconds.")
@json_option
@socket_option
def ask(
    prompt: str,
    model: str | None,
    profile: str | None,
    system: str | None,
    timeout_s: float | None,
    as_json: bool,
    socket: Path | None,
) -> None:
    """Ask PROMPT, or what stands on standard input when PROMPT is "-"; the answer streams to standard output.

    With --json the whole answer is one JSON object: text, model, stop_reason, usage and more.
    """
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise click.UsageError("the prompt is empty")
    wishes: dict[str, Any] = {"model": model, "profile": profile, "system": system, "timeout_s": timeout_s}
    with connected(socket) as client:
        if as_json:
            answer = client.chat(text, **wishes)
            click.echo(json.dumps({"text": answer.text, **answer.result}, ensure_ascii=False))
            return
        for event in client.chat(text, stream=True, **wishes):
            click.echo(getattr(event, "text", "") if type(event).__name__ == "TextDelta" else "", nl=False)
        click.echo()
