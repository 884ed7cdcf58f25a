"""Whether a worker has started a process: by its ancestors, its control group, and the marker in its environment.

It fails closed: a process that cannot be read, or whose ancestors change as fast as they are read, counts as started by
a worker. What no reading can tell, a process that somebody else starts for a worker, is in docs/security.md.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ccd_daemon.process.process import has_marker

_MAX_ANCESTORS = 256
_TRIES = 8  # a parent that ends between two looks changes the answer


class Unreadable(Exception):
    """The process is gone, is not of this PID namespace, or hides its ancestors."""


def ancestors(pid: int) -> list[int]:
    """Returns a process's parent, grandparent and so on, up to the first process of the host or the container.

    Raises:
        Unreadable: nothing certain can be said.
    """
    before = None
    for _ in range(_TRIES):
        with contextlib.suppress(OSError, ValueError):
            found = _walk(pid)
            # A parent that has ended meanwhile, and whose number is somebody else's now, would make them differ.
            if found == before:
                return found
            before = found
    raise Unreadable


def _walk(pid: int) -> list[int]:
    if pid <= 0:
        raise Unreadable  # it lives in another PID namespace
    found: list[int] = []
    while pid > 1:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        pid = int(stat.rpartition(b")")[2].split()[1])  # the name in parentheses may itself contain one
        found.append(pid)
        if len(found) > _MAX_ANCESTORS:
            raise Unreadable
    return found


class Origin:
    """Tells what the workers of one daemon have started from everything else.

    Args:
        daemon_pid: the daemon, which is the ancestor of its workers and the reaper of what they leave behind.
        group: what the names of its workers' control groups begin with; empty where it has none.
        marker: `NAME=value` in the environment of all that its workers start; empty: none.
    """

    def __init__(self, daemon_pid: int, *, group: str = "", marker: str = "") -> None:
        self._daemon_pid = daemon_pid
        self._group = group
        self._marker = marker

    def is_outside(self, pid: int) -> bool:
        """Whether it is certain that no worker has started a process; the process must be alive before and after."""
        try:
            if self._daemon_pid in ancestors(pid):
                return False
            if self._group and self._in_group(Path(f"/proc/{pid}/cgroup").read_text()):
                return False
        except (Unreadable, OSError, ValueError):
            return False
        return not (self._marker and has_marker(pid, self._marker))

    def _in_group(self, cgroups: str) -> bool:
        folders = (line.split(":", 2)[2].split("/") for line in cgroups.splitlines())
        return any(part.startswith(self._group) for folder in folders for part in folder)
