"""`ccd ctl workers`: the CLI processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ccd_cli.connection import connected
from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import MIB, show, table


@command("workers", "ccd ctl workers", "ccd ctl workers --json")
@socket_option
@json_option
def workers(socket: Path | None, as_json: bool) -> None:
    """List the CLI processes."""
    with connected(socket) as client:
        show(client.workers(), as_json, _print)


def _print(answer: dict[str, Any]) -> None:
    numbers = ("pid", "turns", "age", "memory")
    table(
        ["id", "profile", "state", "tenant", *numbers],
        [
            [
                row["id"],
                row["profile"],
                row["state"],
                row["tenant"] or "-",
                str(row["pid"] or "-"),
                str(row["turns"]),
                f"{row['age_s']:.0f} s",
                f"{row['rss_bytes'] / MIB:.0f} MiB",
            ]
            for row in answer["workers"]
        ],
        right=numbers,
    )
