"""`ccd service`: the group. Each command stands in the file that has its name."""

from __future__ import annotations

from ccd_cli.options import group
from ccd_cli.service.install import install
from ccd_cli.service.status import status
from ccd_cli.service.uninstall import uninstall


@group("service", "sudo ccd service install --yes", "ccd service status")
def service() -> None:
    """Run ccd under systemd: install, look at and remove its units."""


for _command in (install, status, uninstall):
    service.add_command(_command)
