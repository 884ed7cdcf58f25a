"""`ccd service install`, `uninstall`, `status` and `sweep`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from ccd_cli.service import plan
from ccd_cli.service.units import Wish, files, unit_names
from ccd_daemon import config
from ccd_daemon.claude import binary
from ccd_gateway.settings import load_settings
from ccd_settings.settings import SettingsError

_EXIT_FAILED, _EXIT_USAGE, _EXIT_UNAVAILABLE = 1, 2, 69
_SYSTEM_CONFIG = Path("/etc/ccd/ccd.toml")

user_option = click.option(
    "--user", "for_user", is_flag=True, help="For your own service manager instead of the system's."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group("service")
def service_group() -> None:
    """Run ccd under systemd: install, look at and remove its units."""


@service_group.command()
@user_option
@click.option(
    "--agents", is_flag=True, help="Let agents work: namespaces for their sandbox, users of their own."
)
@click.option("--bind", metavar="HOST:PORT", help="Where the gateway listens.  [default: gateway.bind]")
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
    """Write the units, enable and start them. What is right already stays as it is.

    \b
    Examples:
      ccd service install --dry-run          # what it would do
      sudo ccd service install --yes         # the system's service, as the user ccd
      ccd service install --user --yes       # your own, with your login
    """
    wish = _wish(for_user, service_user, gateway=not no_gateway, agents=agents, bind=bind)
    refusal = None if for_user else plan.why_not_runnable(wish.program, service_user)
    if refusal is not None:
        _stop(refusal, _EXIT_USAGE)
    try:
        steps = plan.to_install(wish, Path.home(), start=not no_start)
    except plan.ServiceError as error:
        _stop(str(error), _EXIT_FAILED)
    _do(steps, dry_run=dry_run, yes=yes, as_json=as_json)
    if not dry_run and not as_json:
        _say_how_to_log_in(wish)


@service_group.command()
@user_option
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def uninstall(for_user: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Stop ccd and remove its units. Settings, logins, conversations and the user stay.

    \b
    Examples:
      sudo ccd service uninstall --dry-run
      sudo ccd service uninstall --yes
    """
    steps = plan.to_uninstall(_wish(for_user, "ccd", gateway=True, agents=True, bind=None), Path.home())
    _do(steps, dry_run=dry_run, yes=yes, as_json=as_json)
    if steps and not dry_run and not as_json and not for_user:
        click.echo("Kept: /var/lib/ccd (login, conversations, keys), /etc/ccd (settings), the user ccd.")


@service_group.command()
@user_option
@json_option
def status(for_user: bool, as_json: bool) -> None:
    """Show the units' state, and whether their files are this version's.

    \b
    Examples:
      ccd service status
      ccd service status --user --json
    """
    wish = _wish(for_user, "ccd", gateway=True, agents=False, bind=None)
    names = unit_names(wish)
    try:
        states = plan.state_of(names, for_user=for_user)
    except plan.ServiceError as error:
        _stop(str(error), _EXIT_UNAVAILABLE)
    absent = [path.name for path in files(wish, Path.home()) if path.name in names and not path.is_file()]
    if as_json:
        click.echo(json.dumps({"units": states, "not_installed": absent}))
    else:
        for unit in states:
            text = f"  {unit.get('StatusText')}" if unit.get("StatusText") else ""
            restarts = f"  restarts {unit['NRestarts']}" if unit.get("NRestarts", "0") != "0" else ""
            state = f"{unit.get('ActiveState')} ({unit.get('SubState')})"
            click.echo(
                f"{unit.get('Id', '?'):<22}{state:<22}{unit.get('UnitFileState') or '-'}{restarts}{text}"
            )
        if absent:
            click.echo("Not installed: " + ", ".join(absent) + ". Install with: ccd service install")
    running = all(unit.get("ActiveState") == "active" for unit in states if unit.get("Id") not in absent)
    sys.exit(0 if running and len(absent) < len(names) else _EXIT_UNAVAILABLE)


@service_group.command()
@user_option
def sweep(for_user: bool) -> None:
    """End what a daemon that is gone left running; for ExecStopPost of the unit.

    \b
    Examples:
      ccd service sweep
    """
    if plan.job_of("ccd.service", for_user=for_user) != "stop":
        return  # a restart, or a crash that is followed by one: the next daemon takes over or sweeps itself
    from ccd_daemon.process import reaper  # noqa: PLC0415 - the other commands do not need it

    reaper.sweep_leftovers(str(config.read(os.environ).socket))


def _wish(for_user: bool, user: str, *, gateway: bool, agents: bool, bind: str | None) -> Wish:
    environ = dict(os.environ)
    if not for_user and _SYSTEM_CONFIG.is_file():
        environ["CCD_CONFIG"] = str(_SYSTEM_CONFIG)
    try:
        settings = config.read(environ)
        http = load_settings(environ, {"gateway.bind": bind})
    except SettingsError as error:
        _stop(str(error), _EXIT_USAGE)
    program = Path(sys.executable).with_name("ccd")
    cli = binary.find(settings.cli.command, settings.data_dir, environ.get("PATH", os.defpath))
    return Wish(
        program=program,
        user=user,
        bind=http.bind,
        for_user=for_user,
        gateway=gateway,
        agents=agents,
        roots=tuple(settings.sessions.roots),
        processes=settings.max_workers + settings.sessions.max_count,
        read_homes=plan.needs_homes([program, *([cli] if cli else [])]),
    )


def _do(steps: Sequence[plan.Step], *, dry_run: bool, yes: bool, as_json: bool) -> None:
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
            _stop("nothing was done: say --yes, or --dry-run to look only", _EXIT_USAGE)
        click.confirm("Go on?", abort=True)
    for step in steps:
        try:
            step.do()
        except plan.ServiceError as error:
            _stop(str(error), _EXIT_FAILED)


def _say_how_to_log_in(wish: Wish) -> None:
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


def _stop(message: str, status: int) -> NoReturn:
    click.echo(f"ccd: {message}", err=True)
    sys.exit(status)
