"""What the files of the service contain, for one host: the templates of `systemd/` with their places filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

#: First line of every file written here; a file without it is somebody's own and is left alone.
MARK = "# Written by `ccd service install`, which may replace it. Change it with `systemctl edit`, which does not."

_PLACE = re.compile(r"@[A-Z_]+@")


@dataclass(frozen=True)
class ServiceWish:
    """What is to be installed.

    Attributes:
        program: absolute path of the `ccd` command.
        user: the service's user (system service only).
        bind: the gateway's HOST:PORT.
        for_user: True for the service manager of one user, False for the system's.
        gateway: True to install the gateway too.
        worker: True to install the worker for durable work too.
        agents: True to let agents work: the drop-in with namespaces and own users.
        roots: directories in which agents may work.
        read_homes: True when the program, its interpreter or the CLI is in somebody's home directory.
    """

    program: Path
    user: str
    bind: str
    for_user: bool
    gateway: bool
    worker: bool
    agents: bool
    roots: tuple[Path, ...]
    read_homes: bool = False


def files(wish: ServiceWish, home: Path) -> dict[Path, str]:
    """Returns every file of the service with its content.

    Args:
        wish: what is to be installed.
        home: the caller's home, beneath which a user's units are.
    """
    kind, folder = (
        ("user", home / ".config/systemd/user") if wish.for_user else ("system", Path("/etc/systemd/system"))
    )
    values = _values(wish)
    found = {folder / name: _filled(f"{kind}/{name}", values) for name in unit_names(wish)}
    if wish.agents:
        found[folder / "ccd.service.d" / "agents.conf"] = _filled("drop-ins/agents.conf", values)
    if not wish.for_user:
        found[folder / "ccd.slice"] = _filled("system/ccd.slice", values)
        found[Path("/etc/sysusers.d/ccd.conf")] = _filled("ccd.sysusers", values)
        found[Path("/etc/tmpfiles.d/ccd.conf")] = _filled("ccd.tmpfiles", values)
    return found


def unit_names(wish: ServiceWish) -> list[str]:
    """Returns the units to enable, sockets first."""
    names = ["ccd.socket", "ccd.service"]
    if wish.gateway:
        names += ["ccd-gateway.socket", "ccd-gateway.service"]
    return [*names, "ccd-worker.service"] if wish.worker else names


def _values(wish: ServiceWish) -> dict[str, str]:
    login = "ccd login" if wish.for_user else f"sudo -u {wish.user} -H {wish.program} login"
    return {
        "@CCD@": str(wish.program),
        "@USER@": wish.user,
        "@BIND@": wish.bind,
        "@LOGIN@": login,
        "@PROTECT_HOME@": "read-only" if wish.read_homes else "yes",
        "@ROOTS@": "\n".join(_rooms(wish.roots)),
    }


def _rooms(roots: Sequence[Path]) -> list[str]:
    if not roots:
        return ["# No sessions.roots are set: each session works in a directory of its own."]
    return [line for root in roots for line in (f"BindPaths={root}", f"ReadWritePaths={root}")]


def _filled(name: str, values: Mapping[str, str]) -> str:
    text = _PLACE.sub(lambda found: values[found[0]], _template(name))
    return f"{MARK}\n{text}"


def _template(name: str) -> str:
    """Returns a template: from the wheel, else from the checkout that this package is used from."""
    inside = resources.files("ccd_cli.service").joinpath("systemd", *name.split("/"))
    if inside.is_file():
        return inside.read_text()
    return (Path(__file__).parents[3] / "systemd" / name).read_text()
