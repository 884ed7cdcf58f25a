"""`ccd config`: the group. Each command stands in the file that has its name."""

from __future__ import annotations

from ccd_cli.config.check import check
from ccd_cli.config.show import show
from ccd_cli.options import group


@group("config", "ccd config check", "ccd config show --changed")
def config() -> None:
    """Check the settings, and show which are in force."""


for _command in (check, show):
    config.add_command(_command)
