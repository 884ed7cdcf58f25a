"""`ccd daemon`: the daemon alone, in the foreground."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from ccd_cli.ending import EXIT_UNAVAILABLE, EXIT_USAGE, checked, stop
from ccd_cli.options import command, config_option, socket_option
from ccd_cli.serve.environ import chosen


@command("daemon", "ccd daemon", "ccd daemon --config /etc/ccd/ccd.toml --socket /run/ccd/ccd.sock")
@socket_option
@config_option
@click.option("--with-parent", is_flag=True, help="Stop when the process that started it ends.")
def daemon(socket: Path | None, config: Path | None, with_parent: bool) -> None:
    """Run the daemon alone, in the foreground; it prints one line when it is ready."""
    from ccd_settings.parent import die_with_parent, starter  # noqa: PLC0415

    if with_parent:
        die_with_parent(starter(os.environ), signal.SIGTERM)  # before the slow imports
    from ccd_daemon import app  # noqa: PLC0415
    from ccd_daemon import config as settings_module  # noqa: PLC0415
    from ccd_daemon.claude.binary import CliError  # noqa: PLC0415
    from ccd_daemon.rpc.server import BadSocketPath, SocketError  # noqa: PLC0415

    environ = chosen(config)
    overrides = {"server.socket": str(socket) if socket else None}

    def read() -> settings_module.Settings:
        return settings_module.read(environ, overrides=overrides)

    settings = checked(read)

    checked(lambda: settings_module.check_places(settings))
    if settings.cli.auto_install:
        from ccd_cli.cli.ensure import ensure_cli  # noqa: PLC0415

        ensure_cli(settings, environ)

    def ready() -> None:
        click.echo(f"ccd daemon is ready: {settings.socket}")
        sys.stdout.flush()

    try:
        app.serve(settings, environ, ready=ready, reread=read)
    except BadSocketPath as error:
        stop(str(error), EXIT_USAGE)
    except (CliError, SocketError) as error:
        stop(str(error), EXIT_UNAVAILABLE)
