"""`ccd ctl`: what an operator asks the daemon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ccd_cli.ctl.keys import keys_group, usage
from ccd_cli.rpc import connected, json_option, show, socket_option

_MIB = 1024 * 1024


@click.group("ctl")
def ctl_group() -> None:
    """Ask a running daemon; manage the gateway's keys."""


ctl_group.add_command(keys_group)
ctl_group.add_command(usage)


@ctl_group.command()
@socket_option
@json_option
def ping(socket: Path | None, as_json: bool) -> None:
    """Check that the daemon answers, and how fast."""
    with connected(socket) as client:
        client.ping()  # the first one also connects
        started = time.perf_counter()
        answer = client.ping()
        elapsed_ms = 1000 * (time.perf_counter() - started)
    show(
        {**answer, "round_trip_ms": round(elapsed_ms, 3)},
        as_json,
        lambda pong: click.echo(
            f"pong in {pong['round_trip_ms']:.2f} ms from ccd {pong['version']} (pid {pong['pid']})"
        ),
    )


@ctl_group.command()
@socket_option
@json_option
def status(socket: Path | None, as_json: bool) -> None:
    """Show the daemon's state, counters and the settings in force."""
    with connected(socket) as client:
        show(client.status(), as_json, _print_status)


@ctl_group.command()
@socket_option
@json_option
def workers(socket: Path | None, as_json: bool) -> None:
    """List the CLI processes."""
    with connected(socket) as client:
        show(client.workers(), as_json, _print_workers)


def _print_status(status: dict[str, Any]) -> None:
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
        return f"{value / _MIB:.0f} MiB"
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return "-" if value is None else str(value)


def _print_workers(answer: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only for people
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for heading, side in (
        ("id", "left"),
        ("profile", "left"),
        ("state", "left"),
        ("tenant", "left"),
        ("pid", "right"),
        ("turns", "right"),
        ("age", "right"),
        ("memory", "right"),
    ):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for row in answer["workers"]:
        table.add_row(
            *(
                row["id"],
                row["profile"],
                row["state"],
                row["tenant"] or "-",
                str(row["pid"] or "-"),
                str(row["turns"]),
            ),
            *(f"{row['age_s']:.0f} s", f"{row['rss_bytes'] / _MIB:.0f} MiB"),
        )
    Console(soft_wrap=True, highlight=False).print(table)
