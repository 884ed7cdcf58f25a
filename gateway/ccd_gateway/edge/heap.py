"""Memory that is not used any more goes back to the system, as far as the C library can be told to."""

from __future__ import annotations

import ctypes
import gc

_M_MMAP_THRESHOLD = -3
_LARGE_BLOCK_BYTES = 256 << 10


def part_large_blocks() -> None:
    """Keep blocks of some size apart, so that each goes back when it is freed.

    By itself the C library raises this limit to the size of the largest block that was ever freed, up to 32 MiB; bodies
    would then lie between small objects that live on.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def give_back() -> None:
    """Give back what is free, and what a refused request has left in a circle of its error and its frames."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the GNU library's alone
    if trim is not None:
        trim(0)
