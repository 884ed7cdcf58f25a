"""`ccd ctl keys`: the group."""

from __future__ import annotations

from ccd_cli.ctl.keys.create import create
from ccd_cli.ctl.keys.list import list_keys
from ccd_cli.ctl.keys.revoke import revoke
from ccd_cli.ctl.keys.rotate import rotate
from ccd_cli.options import group


@group("keys", "ccd ctl keys create laptop", "ccd ctl keys list")
def keys() -> None:
    """Make, list, revoke and rotate the gateway's API keys; running gateways notice within a second."""


for _command in (create, list_keys, revoke, rotate):
    keys.add_command(_command)
