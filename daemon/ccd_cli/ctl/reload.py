"""`ccd ctl reload`: the settings again, without a restart."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ccd_cli.connection import connected
from ccd_cli.ending import EXIT_USAGE
from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import show
from ccd_protocol.errors import RpcError


@command("reload", "ccd ctl reload", "ccd config check && ccd ctl reload")
@socket_option
@json_option
def reload(socket: Path | None, as_json: bool) -> None:
    """Have the daemon read its settings again: all of them, or none when something is wrong.

    What can only change with a restart is named as pending. Exit status 2: the settings are wrong.
    """
    with connected(socket) as client:
        try:
            result = client.reload()
        except RpcError as error:
            problems = error.data.get("problems")
            if not problems:
                raise
            _refused(problems, as_json)
        show(result, as_json, _print)


def _refused(problems: list[str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"problems": problems}))
    else:
        click.echo(
            "\n".join(("ccd: nothing has changed:", *(f"     {problem}" for problem in problems))), err=True
        )
    sys.exit(EXIT_USAGE)


def _print(result: Any) -> None:
    click.echo(f"In force now: {', '.join(result['changed']) or 'nothing new'}")
    if result["pending"]:
        click.echo(f"Pending, until a restart: {', '.join(result['pending'])}")
