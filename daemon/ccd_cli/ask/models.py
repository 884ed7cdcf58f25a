"""`ccd models`: what can be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ccd_cli.connection import connected
from ccd_cli.options import command, json_option, socket_option
from ccd_cli.output import show, table


@command("models", "ccd models", "ccd models --json")
@socket_option
@json_option
def models(socket: Path | None, as_json: bool) -> None:
    """List the models and profiles that can be asked for."""
    with connected(socket) as client:
        show(client.models(), as_json, _print)


def _print(answer: dict[str, Any]) -> None:
    table(
        ["model", "alias", "name", ""],
        [
            [
                row["id"],
                row["alias"] or "-",
                row["display_name"],
                "default" if row["id"] == answer["default"] else "",
            ]
            for row in answer["models"]
        ],
    )
    table(
        ["\nprofile", "\nmodel"],
        [[name, answer["of_profiles"].get(name, {}).get("model") or "-"] for name in answer["profiles"]],
    )
