"""Ending with the process that started this one, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Mapping

#: Names the starter's pid to a process that may not have begun to run Python when the starter ends.
STARTED_BY = "CCD_STARTED_BY"

_PR_SET_PDEATHSIG = 1


def starter(environ: Mapping[str, str]) -> int:
    """Returns the pid of the process that started this one, as that one said, else as it is now."""
    told = environ.get(STARTED_BY, "")
    return int(told) if told.isascii() and told.isdigit() else os.getppid()


def is_supervised(environ: Mapping[str, str]) -> bool:
    """Whether somebody starts again what has ended: `ccd up`, or a service manager that started this very process."""
    return STARTED_BY in environ or environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def die_with_parent(expected_parent: int, signum: signal.Signals) -> None:
    """Have the kernel send `signum` to this process when its parent ends.

    Args:
        expected_parent: the parent's pid as it was before the call; if the parent ended in between, the
            signal is sent at once, for the kernel would not.
        signum: what to send.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    if os.getppid() != expected_parent:
        os.kill(os.getpid(), signum)
