"""`ccd ctl ping`: whether the daemon answers, and how fast."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ccd_cli.connection import connected
from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import show


@command("ping", "ccd ctl ping", "ccd ctl ping --json")
@socket_option
@json_option
def ping(socket: Path | None, as_json: bool) -> None:
    """Check that the daemon answers, and how fast."""
    with connected(socket) as client:
        client.ping()  # the first one also connects
        started = time.perf_counter()
        answer = client.ping()
        elapsed_ms = 1000 * (time.perf_counter() - started)
    show({**answer, "round_trip_ms": round(elapsed_ms, 3)}, as_json, _print)


def _print(pong: dict[str, Any]) -> None:
    click.echo(f"pong in {pong['round_trip_ms']:.2f} ms from ccd {pong['version']} (pid {pong['pid']})")
