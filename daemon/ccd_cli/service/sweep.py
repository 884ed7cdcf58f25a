"""`ccd service sweep`: for the unit's ExecStopPost."""

from __future__ import annotations

import os

from ccd_cli.options import command
from ccd_cli.service import plan
from ccd_cli.service.wished import user_option
from ccd_daemon import config


@command("sweep", "ccd service sweep")
@user_option
def sweep(for_user: bool) -> None:
    """End what a daemon that is gone left running; for ExecStopPost of the unit."""
    if plan.job_of("ccd.service", for_user=for_user) != "stop":
        return  # a restart, or a crash that is followed by one: the next daemon takes over or sweeps itself
    from ccd_daemon.process import reaper  # noqa: PLC0415 - the other commands do not need it

    reaper.sweep_leftovers(str(config.read(os.environ).socket))
