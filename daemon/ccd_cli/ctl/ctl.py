"""`ccd ctl`: the group. Each command stands in the file that has its name."""

from __future__ import annotations

from ccd_cli.ctl.keys.keys import keys
from ccd_cli.ctl.kill import kill
from ccd_cli.ctl.ping import ping
from ccd_cli.ctl.recycle import recycle
from ccd_cli.ctl.reload import reload
from ccd_cli.ctl.status import status
from ccd_cli.ctl.usage import usage
from ccd_cli.ctl.workers import workers
from ccd_cli.options import group


@group("ctl", "ccd ctl status", "ccd ctl keys list")
def ctl() -> None:
    """Ask a running daemon; manage the gateway's keys."""


for _command in (ping, status, workers, reload, recycle, kill, keys, usage):
    ctl.add_command(_command)
