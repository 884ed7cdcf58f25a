"""What the service's commands share: what is to be installed here, and carrying steps out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click

from ccd_cli.ending import EXIT_FAILED, EXIT_USAGE, stop
from ccd_cli.service import plan
from ccd_cli.service.units import ServiceWish
from ccd_daemon import config
from ccd_daemon.claude import binary
from ccd_gateway.settings import load_settings
from ccd_settings.settings import SettingsError

_SYSTEM_CONFIG = Path("/etc/ccd/ccd.toml")

user_option = click.option(
    "--user", "for_user", is_flag=True, help="For your own service manager instead of the system's."
)


def wished(for_user: bool, user: str, *, gateway: bool, agents: bool, bind: str | None) -> ServiceWish:
    """What is to be installed on this host, by the settings that the service will read; wrong ones end the command."""
    environ = dict(os.environ)
    if not for_user and _SYSTEM_CONFIG.is_file():
        environ["CCD_CONFIG"] = str(_SYSTEM_CONFIG)
    try:
        settings = config.read(environ)
        http = load_settings(environ, {"gateway.bind": bind})
    except SettingsError as error:
        stop(str(error), EXIT_USAGE)
    program = Path(sys.executable).with_name("ccd")
    cli = binary.find(settings.cli.command, settings.data_dir, environ.get("PATH", os.defpath))
    return ServiceWish(
        program=program,
        user=user,
        bind=http.bind,
        for_user=for_user,
        gateway=gateway,
        worker=find_spec("dbos") is not None,
        agents=agents,
        roots=tuple(settings.sessions.roots),
        read_homes=plan.needs_homes([program, *([cli] if cli else [])]),
    )


def carry_out(steps: Sequence[plan.PlanStep], *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Show the steps; then, when asked to, do them. The first that fails ends the command."""
    if as_json:
        click.echo(json.dumps({"steps": [step.what for step in steps], "done": not dry_run and yes}))
    elif not steps:
        click.echo("Nothing to do.")
    else:
        click.echo("\n".join(("Would do:" if dry_run else "To do:", *(f"  {step.what}" for step in steps))))
    if dry_run or not steps:
        return
    if not yes:
        if not sys.stdin.isatty() or as_json:
            stop("nothing was done: say --yes, or --dry-run to look only", EXIT_USAGE)
        click.confirm("Go on?", abort=True)
    for step in steps:
        try:
            step.do()
        except plan.ServiceError as error:
            stop(str(error), EXIT_FAILED)
