"""Shows a newcomer that it works: a curl command, and beneath it what that command prints."""

from __future__ import annotations

import json
import shlex
import urllib.error
import urllib.request

import click

_QUESTION = "Say hello, and tell me in one sentence what you are."
_MAX_BYTES = 10_000_000


def show_first_answer(url: str, *, timeout_s: float = 120.0) -> None:
    """Ask the gateway at `url` one question and print its answer; a failure is shown, not raised."""
    body = json.dumps({"model": "sonnet", "messages": [{"role": "user", "content": _QUESTION}]})
    click.echo(
        f"\n$ curl -s {url}/v1/chat/completions -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", data=body.encode(), headers={"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
    try:
        with opener.open(request, timeout=timeout_s) as response:
            click.echo(response.read(_MAX_BYTES).decode())
    except urllib.error.HTTPError as error:
        click.echo(error.read(_MAX_BYTES).decode(errors="replace"))
    except OSError as error:
        click.echo(f"The gateway could not be asked: {error}", err=True)
