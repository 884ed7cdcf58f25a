"""`ccd ctl status`: what an operator asks first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ccd_cli.connection import connected
from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import MIB, show


@command("status", "ccd ctl status", "ccd ctl status --json")
@socket_option
@json_option
def status(socket: Path | None, as_json: bool) -> None:
    """Show the daemon's state, counters and the settings in force."""
    with connected(socket) as client:
        show(client.status(), as_json, _print)


def _print(status: dict[str, Any]) -> None:
    reason = f" ({status['reason']})" if status["reason"] else ""
    click.echo(
        f"ccd {status['version']}: {status['state']}{reason}, pid {status['pid']}, up {status['uptime_s']:.0f} s"
    )
    for section in ("cli", "login", "pool", "counters", "memory", "cache", "settings"):
        for key, value in status.get(section, {}).items():
            click.echo(f"  {section + '.' + key:<31} {_shown(key, value)}")
    click.echo(f"  {'socket':<31} {status['socket']} ({status['connections']} connections)")


def _shown(key: str, value: Any) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / MIB:.0f} MiB"
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return "-" if value is None else str(value)
