"""Signals between a master and its worker processes while these start.

Between the fork and the first turn of its loop a worker has its master's handlers, or ones that do nothing: a SIGTERM
then would be lost, and the master would wait out its whole grace period. So the signals are blocked from the fork on
and let through when the loop runs; the kernel keeps the one that came.

The master listens before its workers run, and who connects then waits for them. So it is told when all of them take
requests: each takes a token, and who gets the last one sends the signal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

_STOPPING = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)
_ALL_RUN = signal.SIGRTMIN + 3
_LAST = b"!"
_tokens: int | None = None


def expect(workers: int, all_run: Callable[[], None]) -> None:
    """To be called in the master before it forks.

    Args:
        workers: how many there will be.
        all_run: called once, in the master, when they have all called `release`.
    """
    global _tokens  # inherited by the workers
    _tokens, put = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(put, b"." * (workers - 1) + _LAST)
    os.close(put)
    signal.signal(_ALL_RUN, lambda *_: all_run())


def hold() -> None:
    """From here on signals to stop wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def release() -> None:
    """The loop runs: let them through, and tell the master if it waits for this worker alone."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    with suppress(BlockingIOError):
        if _tokens is not None and os.read(_tokens, 1) == _LAST:
            os.kill(os.getppid(), _ALL_RUN)
