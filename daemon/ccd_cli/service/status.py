"""`ccd service status`: what systemd says of the units."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ccd_cli.ending import EXIT_UNAVAILABLE, stop
from ccd_cli.options import command, json_option
from ccd_cli.service import plan
from ccd_cli.service.units import files, unit_names
from ccd_cli.service.wished import user_option, wished


@command("status", "ccd service status", "ccd service status --user --json")
@user_option
@json_option
def status(for_user: bool, as_json: bool) -> None:
    """Show the units' state, and whether their files are this version's."""
    wish = wished(for_user, "ccd", gateway=True, agents=False, bind=None)
    names = unit_names(wish)
    try:
        states = plan.state_of(names, for_user=for_user)
    except plan.ServiceError as error:
        stop(str(error), EXIT_UNAVAILABLE)
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
    sys.exit(0 if running and len(absent) < len(names) else EXIT_UNAVAILABLE)
