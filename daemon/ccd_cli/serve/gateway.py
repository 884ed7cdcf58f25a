"""`ccd gateway`: the HTTP gateway alone, in the foreground."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from ccd_cli.ending import checked
from ccd_cli.options import bind_option, command, config_option, no_auth_option, socket_option
from ccd_cli.serve.environ import chosen


@command(
    "gateway",
    "ccd gateway",
    "ccd gateway --bind 0.0.0.0:8080 --workers 4   # needs keys: ccd ctl keys create",
)
@bind_option
@click.option("--workers", type=int, help="Gateway processes.  [default: 2]")
@no_auth_option
@socket_option
@config_option
def gateway(
    bind: str | None, workers: int | None, insecure_no_auth: bool, socket: Path | None, config: Path | None
) -> None:
    """Run the HTTP gateway alone, in the foreground; it prints one line when it is ready."""
    environ = chosen(config)
    flags = {
        "gateway.bind": bind,
        "gateway.workers": workers,
        "gateway.insecure_no_auth": insecure_no_auth or None,
        "gateway.socket": str(socket) if socket else None,
    }
    sys.exit(checked(lambda: _serve(environ, flags)))


def _serve(environ: Mapping[str, str], flags: Mapping[str, object]) -> int:
    """Run the gateway in this process; returns its exit status.

    Raises:
        SettingsError: a setting of its section is wrong.
        ModuleNotFoundError: the extra is not installed.
    """
    from ccd_gateway.server import server  # noqa: PLC0415 - falcon and gunicorn, which a daemon alone does not have
    from ccd_gateway.settings import json_log, load_settings  # noqa: PLC0415
    from ccd_settings import compat, logs  # noqa: PLC0415

    settings = load_settings(environ, flags)
    for note in compat.read(environ).notes_for("gateway"):
        logs.say("ccd gateway", note.text, as_json=json_log(environ))

    def ready(url: str) -> None:
        print(f"ccd gateway is ready: {url}", flush=True)

    return server.run(settings, ready)
