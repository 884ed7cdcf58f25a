"""`ccd worker`: durable work alone, in the foreground."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from ccd_cli.ending import EXIT_UNAVAILABLE, EXIT_USAGE, checked, stop
from ccd_cli.options import command, config_option, socket_option
from ccd_cli.serve.environ import chosen


@command("worker", "ccd worker", "ccd worker --socket /run/ccd/ccd.sock")
@socket_option
@config_option
@click.option("--with-parent", is_flag=True, help="Stop when the process that started it ends.")
def worker(socket: Path | None, config: Path | None, with_parent: bool) -> None:
    """Run durable work (tasks, batches, workflows) on the daemon, in the foreground.

    Needs the extra `tasks`. What was accepted is kept in tasks.sqlite3 in the data directory, or in PostgreSQL
    (tasks.database_url), and survives crashes and restarts of every part. It prints one line when it is ready.
    """
    from ccd_settings.parent import die_with_parent, starter  # noqa: PLC0415

    if with_parent:
        die_with_parent(starter(os.environ), signal.SIGTERM)  # before the slow imports
    from ccd_cli.serve.lent import outside  # noqa: PLC0415
    from ccd_daemon.rpc.server import BadSocketPath, SocketError  # noqa: PLC0415
    from ccd_tasks import settings as settings_module  # noqa: PLC0415
    from ccd_tasks import worker as worker_module  # noqa: PLC0415

    environ = chosen(config)
    settings = checked(lambda: settings_module.read(environ, socket=socket))
    lent = checked(lambda: outside(settings, environ))

    def ready() -> None:
        click.echo(f"ccd worker is ready: {settings.socket}")
        sys.stdout.flush()

    try:
        sys.exit(worker_module.serve(settings, lent, ready=ready))
    except BadSocketPath as error:
        stop(str(error), EXIT_USAGE)
    except (worker_module.DatabaseError, SocketError) as error:
        stop(str(error), EXIT_UNAVAILABLE)
