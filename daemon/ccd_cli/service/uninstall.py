"""`ccd service uninstall`: the units away, and nothing else."""

from __future__ import annotations

from pathlib import Path

import click

from ccd_cli.options import command, json_option
from ccd_cli.service import plan
from ccd_cli.service.wished import carry_out, user_option, wished


@command("uninstall", "sudo ccd service uninstall --dry-run", "sudo ccd service uninstall --yes")
@user_option
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def uninstall(for_user: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Stop ccd and remove its units. Settings, logins, conversations and the user stay."""
    steps = plan.to_uninstall(wished(for_user, "ccd", gateway=True, agents=True, bind=None), Path.home())
    carry_out(steps, dry_run=dry_run, yes=yes, as_json=as_json)
    if steps and not dry_run and not as_json and not for_user:
        click.echo("Kept: /var/lib/ccd (login, conversations, keys), /etc/ccd (settings), the user ccd.")
