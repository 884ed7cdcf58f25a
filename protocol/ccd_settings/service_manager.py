"""Speaking with the service manager: what systemd hands over at the start, and what it is told.

Nothing here knows ccd: `sd_listen_fds(3)`, `sd_notify(3)` and `sd_watchdog_enabled(3)` as their manual pages describe
them, for a program that may as well run without any service manager; every call is then without effect.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import MutableMapping, Sequence
from pathlib import Path

_FIRST_FD = 3
_MAX_FDS = 8192  # far above any FileDescriptorStoreMax; a larger number is not systemd's


def take_fds(environ: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """Returns the descriptors that the service manager handed over, as (name, number), in its order.

    The variables are removed, so that nothing which is started from here takes them for its own, and the
    descriptors are closed on exec. Empty when there are none, or when they are meant for another process.
    """
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdigit() or int(count) > _MAX_FDS:
        return []
    said = names.split(":") if names else []
    found = []
    for index in range(int(count)):
        fd = _FIRST_FD + index
        os.set_inheritable(fd, False)
        found.append((said[index] if index < len(said) else "unknown", fd))
    return found


def take_socket(environ: MutableMapping[str, str], name: str) -> socket.socket | None:
    """Returns the one listening socket called `name`, or None; every other descriptor is closed."""
    wanted = None
    for said, fd in take_fds(environ):
        if said == name and wanted is None:
            wanted = socket.socket(fileno=fd)
        else:
            os.close(fd)
    return wanted


class Notifier:
    """Tells the service manager about this process. It remembers `$NOTIFY_SOCKET`, which children must not have."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        watched_us, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        #: Seconds within which `WATCHDOG=1` has to be said; 0 when nobody waits for it.
        self.watchdog_s = 0.0
        if watched_us.isdigit() and pid in ("", str(os.getpid())):
            self.watchdog_s = int(watched_us) / 1e6

    @property
    def present(self) -> bool:
        """Returns True when there is a service manager that listens."""
        return bool(self._address)

    def tell(self, *lines: str, fds: Sequence[int] = ()) -> bool:
        """Send `KEY=value` lines, and descriptors for its store with `FDSTORE=1`.

        Never blocks and never fails: the service must not depend on being heard. Returns whether it was sent.
        """
        if not self._address:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendmsg(["\n".join(lines).encode()], rights, 0, self._address)
        except OSError:
            return False
        return True


def one_line(text: str) -> str:
    """Returns `text` as it may stand in `STATUS=`: one line, no control characters, at most 200 characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:200]


def credentials(environ: MutableMapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Returns what `LoadCredential=` brought for these names: the files' content, without a last newline."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return {}
    found = {}
    for name in names:
        try:
            found[name] = (Path(folder) / name).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError):
            continue
    return found
