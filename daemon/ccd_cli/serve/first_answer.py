"""Shows a newcomer that it works: one answer, streamed through HTTP like any OpenAI client would."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO

import click

_QUESTION = "Say hello, and tell me in one sentence what you are."


def show_first_answer(url: str, *, timeout_s: float = 120.0) -> None:
    """Ask the gateway at `url` one question and print the answer as it comes; a failure is shown, not raised."""
    click.echo(f"\n$ curl -N {url}/v1/chat/completions -d '{json.dumps(_body())}'\n")
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(_body()).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
    try:
        with opener.open(request, timeout=timeout_s) as response:
            for text in _deltas(response):
                click.echo(text, nl=False)
        click.echo("\n\nccd goes on serving; Ctrl-C stops it.")
    except urllib.error.HTTPError as error:
        click.echo(f"The gateway answered {error.code}: {_message(error)}", err=True)
    except OSError as error:
        click.echo(f"The gateway could not be asked: {error}", err=True)


def _body() -> dict[str, object]:
    return {"model": "sonnet", "stream": True, "messages": [{"role": "user", "content": _QUESTION}]}


def _deltas(response: IO[bytes]) -> Iterator[str]:
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            yield f"\n{event['error'].get('message')}"
        for choice in event.get("choices", []):
            yield choice.get("delta", {}).get("content") or ""


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return error.reason
