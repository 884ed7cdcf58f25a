"""Keeps a signal to stop that arrives while a worker process starts.

Between the fork and the first turn of its loop a worker has its master's handlers, or ones that do nothing: a SIGTERM
then would be lost, and the master would wait out its whole grace period. So the signals are blocked from the fork on
and let through when the loop runs; the kernel keeps the one that came.
"""

from __future__ import annotations

import signal

_STOPPING = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


def hold() -> None:
    """From here on signals to stop wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def release() -> None:
    """The loop runs: let them through."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
