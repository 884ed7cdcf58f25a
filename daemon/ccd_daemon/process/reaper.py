"""Nothing outlives its owner: adopt what workers leave behind, and sweep what an earlier daemon left.

The daemon is the reaper of its subtree (PR_SET_CHILD_SUBREAPER), so a grandchild that left its process group and
session becomes the daemon's own child when its parent ends, and is found here. After a crash of the daemon itself,
the next one on the same socket finds the leftovers by the marker in their environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from ccd_daemon.process.process import WORKER_MARKER, children, marked, signal_each

log = logging.getLogger("ccd.reaper")

DAEMON_MARKER = "CCD_OWNER"  # =<socket path>: which daemon started it

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans of this process's descendants become its own children."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def sweep_leftovers(owner: str, *, grace_s: float = 2.0) -> int:
    """Kill what an earlier daemon of this socket left running; call only while holding the socket's lock.

    Returns how many processes there were.
    """
    marker = f"{DAEMON_MARKER}={owner}"
    leftovers = [pid for pid in marked(marker) if pid != os.getpid()]
    if not leftovers:
        return 0
    log.warning("killing %d process(es) that an earlier ccd left behind", len(leftovers))
    signal_each(leftovers, signal.SIGKILL, marker)
    deadline = time.monotonic() + grace_s
    while marked(marker) and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(leftovers)


class Strays(NamedTuple):
    """What a sweep found among the daemon's adopted children."""

    dying: int  # killed, but not yet reaped
    living: dict[str, list[int]]  # background processes of running workers, by the worker's marker


def sweep_strays(known: Collection[int], live_workers: Mapping[str, Callable[[], Collection[int]]]) -> Strays:
    """Reap adopted children, and kill those whose worker is gone.

    Args:
        known: pids of running workers, which are reaped by their own `Process`.
        live_workers: markers of workers that still run, whose background processes may live, each with a function
            that lists its control group (for those that have cleared their environment).
    """
    dying, living = 0, dict[str, list[int]]()
    for pid in children(os.getpid()):
        if pid in known:
            continue
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                continue
        marker = _worker_of(pid)
        if marker not in live_workers:
            marker = next((marker for marker, group in live_workers.items() if pid in group()), None)
        if marker is None:
            signal_each([pid], signal.SIGKILL)
            dying += 1
        else:
            living.setdefault(marker, []).append(pid)
    return Strays(dying, living)


def _worker_of(pid: int) -> str | None:
    prefix = f"{WORKER_MARKER}=".encode()
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            entries = file.read().split(b"\0")
    except OSError:
        return None
    return next((entry[len(prefix) :].decode() for entry in entries if entry.startswith(prefix)), None)
