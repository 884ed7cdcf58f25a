"""Where the daemon's socket and files are, decided the same way by every program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_SOCKET = Path("/run/ccd/ccd.sock")


def socket_path(environ: Mapping[str, str] | None = None, *, serving: bool = False) -> Path:
    """Returns the socket to use when none is named.

    `$CCD_SOCKET`, else one in the directory that a service manager made for ccd (`$RUNTIME_DIRECTORY`), else the system
    service's socket where it exists, else one in `$XDG_RUNTIME_DIR`, else one in a directory of this user's own under
    `/tmp`.

    Args:
        environ: this process's by default.
        serving: for the daemon. A client may run in a service of another kind, whose directory is none of ccd's.
    """
    env = os.environ if environ is None else environ
    if env.get("CCD_SOCKET"):
        return Path(env["CCD_SOCKET"])
    managed = env.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if managed.startswith("/") and (serving or _is_of_ccd(Path(managed))):
        return Path(managed) / "ccd.sock"
    if os.path.exists(SYSTEM_SOCKET):  # noqa: PTH110 - Path.exists raises where the directory is closed to the caller
        return SYSTEM_SOCKET
    runtime = env.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "ccd" / "ccd.sock"
    return Path(f"/tmp/ccd-{os.getuid()}") / "ccd.sock"


def _is_of_ccd(folder: Path) -> bool:
    return folder.name == "ccd" or os.path.exists(folder / "ccd.sock")  # noqa: PTH110 - as above


def is_file(path: Path) -> bool:
    """Returns whether there is a file that this process may see: one in a directory that is closed to it is none."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises there


def data_dir(environ: Mapping[str, str]) -> Path:
    """Returns where ccd keeps files when no setting says so; a service manager says it by `$STATE_DIRECTORY`."""
    managed = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if managed.startswith("/"):
        return Path(managed)
    system = Path("/var/lib/ccd")
    if os.access(system, os.W_OK):
        return system
    home = environ.get("XDG_DATA_HOME")
    return (
        Path(home) / "ccd" if home else Path(environ.get("HOME", "/nonexistent")) / ".local" / "share" / "ccd"
    )


def tasks_socket(daemon_socket: Path) -> Path:
    """Returns the socket of `ccd worker`, beside the daemon's: `ccd-tasks.sock` for `ccd.sock`."""
    return daemon_socket.with_name(f"{daemon_socket.stem}-tasks{daemon_socket.suffix}")
