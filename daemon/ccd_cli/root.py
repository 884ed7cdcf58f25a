"""The `ccd` command: what people type. Each command only reads its options and calls the module that does the work.

Exit status: 0 done, 1 failed, 2 wrong usage or settings, 69 not available (no daemon, no CLI), 75 try again later.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from ccd_cli.ask import ask as ask_command
from ccd_cli.cli.cli import cli_group
from ccd_cli.ctl.ctl import ctl_group
from ccd_cli.doctor.bugreport import bugreport
from ccd_cli.doctor.doctor import doctor
from ccd_cli.service.service import service_group

EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69

socket_option = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="The daemon's Unix socket.  [default: $CCD_SOCKET or the usual places]",
)
config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (TOML).  [default: $CCD_CONFIG]",
)
no_auth_option = click.option(
    "--insecure-no-auth",
    is_flag=True,
    help="Serve other machines although there is no API key: something else guards the way.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="ccdaemon", prog_name="ccd")
def main() -> None:
    """Claude Code as a host service: a warm pool of CLI processes behind a Unix socket and an OpenAI gateway."""


@main.command()
@click.option(
    "--offline", is_flag=True, help="Answer from a small echo API on loopback: no login, no network."
)
@click.option(
    "--try", "try_it", is_flag=True, help="Offline if no login is found; show one answer when ready."
)
@click.option("--bind", metavar="HOST:PORT", help="Where the gateway listens.  [default: 127.0.0.1:8080]")
@no_auth_option
@socket_option
@config_option
def up(
    offline: bool,
    try_it: bool,
    bind: str | None,
    insecure_no_auth: bool,
    socket: Path | None,
    config: Path | None,
) -> None:
    """Run daemon and gateway together in the foreground; Ctrl-C stops both."""
    from ccd_cli.serve.up import Plan, run  # noqa: PLC0415 - each command imports only what it needs

    environ = _environ(config)
    if insecure_no_auth:
        environ["CCD_GATEWAY__INSECURE_NO_AUTH"] = "true"
    plan = _checked(lambda: Plan.make(environ, offline=offline, try_it=try_it, bind=bind, socket=socket))
    sys.exit(run(plan))


@main.command()
@socket_option
@config_option
@click.option("--with-parent", is_flag=True, help="Stop when the process that started it ends.")
def daemon(socket: Path | None, config: Path | None, with_parent: bool) -> None:
    """Run the daemon alone, in the foreground; prints one line when it is ready."""
    from ccd_settings.parent import die_with_parent, starter  # noqa: PLC0415

    if with_parent:
        die_with_parent(starter(os.environ), signal.SIGTERM)
    from ccd_daemon import app  # noqa: PLC0415
    from ccd_daemon import config as settings_module  # noqa: PLC0415
    from ccd_daemon.claude.binary import CliError  # noqa: PLC0415
    from ccd_daemon.rpc.server import BadSocketPath, SocketError  # noqa: PLC0415

    environ = _environ(config)
    overrides = {"server.socket": str(socket) if socket else None}
    settings = _checked(lambda: settings_module.read(environ, overrides=overrides))

    def ready() -> None:
        click.echo(f"ccd daemon is ready: {settings.socket}")
        sys.stdout.flush()

    try:
        app.serve(settings, environ, ready=ready)
    except BadSocketPath as error:
        _stop(str(error), EXIT_USAGE)
    except (CliError, SocketError) as error:
        _stop(str(error), EXIT_UNAVAILABLE)


@main.command()
@click.option("--bind", metavar="HOST:PORT", help="Where to listen.  [default: 127.0.0.1:8080]")
@click.option("--workers", type=int, help="Gateway processes.  [default: 2]")
@no_auth_option
@socket_option
@config_option
def gateway(
    bind: str | None, workers: int | None, insecure_no_auth: bool, socket: Path | None, config: Path | None
) -> None:
    """Run the HTTP gateway alone, in the foreground; prints one line when it is ready."""
    from ccd_cli.serve.gateway import serve_gateway  # noqa: PLC0415

    environ = _environ(config)
    flags = {
        "gateway.bind": bind,
        "gateway.workers": workers,
        "gateway.insecure_no_auth": insecure_no_auth or None,
        "gateway.socket": str(socket) if socket else None,
    }
    sys.exit(_checked(lambda: serve_gateway(environ, flags)))


main.add_command(ask_command.ask)
main.add_command(ctl_group)
main.add_command(cli_group)
main.add_command(service_group)
main.add_command(doctor)
main.add_command(bugreport)


def _environ(config: Path | None) -> dict[str, str]:
    environ = dict(os.environ)
    if config is not None:
        environ["CCD_CONFIG"] = str(config)
    return environ


def _checked(make: Callable[[], Any]) -> Any:
    """Run something that reads settings; a wrong one ends the command with a readable line."""
    from ccd_settings.settings import SettingsError  # noqa: PLC0415

    try:
        return make()
    except SettingsError as error:
        _stop(str(error), EXIT_USAGE)


def _stop(message: str, status: int) -> NoReturn:
    click.echo(f"ccd: {message}", err=True)
    sys.exit(status)
