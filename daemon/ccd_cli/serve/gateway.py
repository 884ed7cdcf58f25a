"""Starts the gateway from the `ccd` command."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from ccd_gateway.settings import GatewaySettings, load_settings
from ccd_settings import compat


def gateway_settings(environ: Mapping[str, str], flags: Mapping[str, object]) -> GatewaySettings:
    """The gateway's settings in force.

    Raises:
        SettingsError: one of its section is wrong. ModuleNotFoundError: the extra is not installed.
    """
    return load_settings(environ, flags)


def serve_gateway(environ: Mapping[str, str], flags: Mapping[str, object]) -> int:
    """Run the gateway in this process; returns its exit status.

    Raises:
        SettingsError: a setting of its section is wrong. ModuleNotFoundError: the extra is not installed.
    """
    from ccd_gateway.server import server  # noqa: PLC0415 - falcon and gunicorn, which a daemon alone does not have

    settings = gateway_settings(environ, flags)
    for note in compat.read(environ).notes_for("gateway"):
        print(f"ccd gateway: {note.text}", file=sys.stderr)

    def ready(url: str) -> None:
        print(f"ccd gateway is ready: {url}", flush=True)

    status: int = server.run(settings, ready)
    return status
