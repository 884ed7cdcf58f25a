"""Starts the gateway from the `ccd` command. The daemon's package never imports the gateway: it is a neighbour."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

from ccd_protocol import foreign

GATEWAY_SERVER = "ccd_gateway.server"
GATEWAY_SETTINGS = "ccd_gateway.settings"


def gateway_settings(environ: Mapping[str, str], flags: Mapping[str, object]) -> Any:
    """The gateway's settings in force.

    Raises:
        SettingsError: one of its section is wrong. ModuleNotFoundError: the extra is not installed.
    """
    return importlib.import_module(GATEWAY_SETTINGS).load_settings(environ, flags)


def serve_gateway(environ: Mapping[str, str], flags: Mapping[str, object]) -> int:
    """Run the gateway in this process; returns its exit status.

    Raises:
        SettingsError: a setting of its section is wrong. ModuleNotFoundError: the extra is not installed.
    """
    server = importlib.import_module(GATEWAY_SERVER)
    settings = gateway_settings(environ, flags)
    for note in foreign.read(environ).notes_for("gateway"):
        print(f"ccd gateway: {note.text}", file=sys.stderr)

    def ready(url: str) -> None:
        print(f"ccd gateway is ready: {url}", flush=True)

    status: int = server.run(settings, ready)
    return status
