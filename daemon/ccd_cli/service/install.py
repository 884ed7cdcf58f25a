"""`ccd service install`: units, user and directories, so that ccd runs from now on."""

from __future__ import annotations

from pathlib import Path

import click

from ccd_cli.ending import EXIT_FAILED, EXIT_USAGE, stop
from ccd_cli.options import bind_option, command, json_option
from ccd_cli.service import plan
from ccd_cli.service.units import ServiceWish
from ccd_cli.service.wished import carry_out, user_option, wished


@command(
    "install",
    "ccd service install --dry-run          # what it would do",
    "sudo ccd service install --yes         # the system's service, as the user ccd",
    "ccd service install --user --yes       # your own, with your login",
)
@user_option
@click.option(
    "--agents", is_flag=True, help="Let agents work: namespaces for their sandbox, users of their own."
)
@bind_option
@click.option("--no-gateway", is_flag=True, help="The daemon alone, without HTTP.")
@click.option(
    "--service-user", default="ccd", show_default=True, metavar="NAME", help="Who runs the system service."
)
@click.option("--no-start", is_flag=True, help="Enable the units, and start nothing now.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def install(
    for_user: bool,
    agents: bool,
    bind: str | None,
    no_gateway: bool,
    service_user: str,
    no_start: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Write the units, enable and start them. What is right already stays as it is."""
    wish = wished(for_user, service_user, gateway=not no_gateway, agents=agents, bind=bind)
    refusal = None if for_user else plan.why_not_runnable(wish.program, service_user)
    if refusal is not None:
        stop(refusal, EXIT_USAGE)
    try:
        steps = plan.to_install(wish, Path.home(), start=not no_start)
    except plan.ServiceError as error:
        stop(str(error), EXIT_FAILED)
    carry_out(steps, dry_run=dry_run, yes=yes, as_json=as_json)
    if not dry_run and not as_json:
        _say_how_to_log_in(wish)


def _say_how_to_log_in(wish: ServiceWish) -> None:
    if wish.for_user:
        click.echo(
            "ccd uses your own login: ccd login\nTo keep it running when you log out: loginctl enable-linger"
        )
        return
    click.echo(
        f"Log its user in:      sudo -u {wish.user} env HOME=/var/lib/ccd {wish.program} login\n"
        "or put a key there:   /etc/ccd/login.env, mode 0600, with ANTHROPIC_API_KEY=…\n"
        f"Let a user use it:    sudo usermod -aG {wish.user} NAME\n"
        "See how it does:      ccd service status; journalctl -u ccd"
    )
