"""Starts the gateway from the `ccd` command. The daemon's package never imports the gateway: it is a neighbour."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

GATEWAY_SERVER = "ccd_gateway.server"
GATEWAY_SETTINGS = "ccd_gateway.settings"


def serve_gateway(environ: Mapping[str, str], flags: Mapping[str, object]) -> int:
    """Run the gateway in this process; returns its exit status.

    Raises:
        SettingsError: a setting of its section is wrong. ModuleNotFoundError: the extra is not installed.
    """
    server = importlib.import_module(GATEWAY_SERVER)
    settings = importlib.import_module(GATEWAY_SETTINGS).load_settings(environ, flags)

    def ready(url: str) -> None:
        print(f"ccd gateway is ready: {url}", flush=True)

    status: int = server.run(settings, ready)
    return status
