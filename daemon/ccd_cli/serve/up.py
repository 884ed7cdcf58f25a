"""`ccd up`: daemon and gateway together, in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ccd_cli.ending import checked
from ccd_cli.options import bind_option, command, config_option, no_auth_option, socket_option
from ccd_cli.serve.environ import chosen


@command(
    "up",
    "ccd up",
    "ccd up --offline --bind 127.0.0.1:9000   # answers are an echo: no login, no network",
)
@click.option(
    "--offline", is_flag=True, help="Answer from a small echo API on loopback: no login, no network."
)
@click.option(
    "--try", "try_it", is_flag=True, help="Offline if no login is found; show one answer when ready."
)
@bind_option
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
    from ccd_cli.cli.ensure import ensure_cli  # noqa: PLC0415
    from ccd_cli.serve.plan import Plan  # noqa: PLC0415 - each command imports only what it needs
    from ccd_cli.serve.unit import run  # noqa: PLC0415

    environ = chosen(config)
    if insecure_no_auth:
        environ["CCD_GATEWAY__INSECURE_NO_AUTH"] = "true"
    plan = checked(lambda: Plan.make(environ, offline=offline, try_it=try_it, bind=bind, socket=socket))
    ensure_cli(plan.settings, environ)
    sys.exit(run(plan))
