"""How much memory workers use, cheaply: one small read per process and second, no scan of the process table.

And what protects the daemon from them: the kernel takes a worker first, and no worker's heap grows without bound.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterable
from pathlib import Path

from ccd_daemon.process.process import descendants

MIN_POLL_S = 0.02
_LEAST_DATA_BYTES = 2 << 30
_LARGE_BLOCK_BYTES = 1 << 20
_M_MMAP_THRESHOLD = -3  # of malloc.h
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def rss_bytes(pid: int) -> int:
    """Returns the resident memory of one process; 0 when it is gone. Source: `/proc/PID/statm`."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:  # noqa: PTH123 - every second, every worker
            return int(file.read(128).split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def tree(pid: int, strays: Iterable[int]) -> list[int]:
    """Returns a process, all its descendants, and those that only its environment or group still tell to be its own."""
    return list({pid, *descendants(pid), *strays})


def tree_rss_bytes(pids: Iterable[int]) -> int:
    """Returns the resident memory of some processes together; shared pages count once per process."""
    return sum(map(rss_bytes, pids))


def excess(rss_bytes: int, processes: int, *, hard_bytes: int, max_processes: int) -> str | None:
    """Returns why a process tree must be killed for its size, in words; None while it may stay."""
    if processes > max_processes:
        return f"it had {processes} processes, more than pool.max_processes"
    if rss_bytes > hard_bytes:
        return f"resident memory of {rss_bytes} bytes is over the hard limit"
    return None


def next_poll_s(poll_s: float, rss_bytes: int, grown_bytes_s: float, hard_bytes: int) -> float:
    """When to look again at a process that grows: in half the time that it needs to reach its limit, if that is sooner.

    At 1 Hz alone, a process that takes 500 MB/s would be that far over its limit before it is noticed.
    """
    if grown_bytes_s <= 0:
        return poll_s
    return min(poll_s, max(MIN_POLL_S, (hard_bytes - rss_bytes) / grown_bytes_s / 2))


def return_large_blocks() -> None:
    """Give large blocks of this process back to the kernel as soon as they are freed.

    By itself the allocator stops doing so once a few of them have been freed, and what one giant line took then stays
    taken, or is cut up by what was allocated meanwhile.
    """
    with contextlib.suppress(AttributeError):  # a C library that has no such setting
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def take_workers_first(pid: int) -> None:
    """When the host runs out of memory, the kernel is to end a worker rather than the daemon or its neighbours."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "wb", buffering=0) as file:  # noqa: PTH123
        file.write(b"500")


def limit_data(pid: int, hard_bytes: int) -> None:
    """A coarse cap on a warm process's heap, for hosts without control groups, where only polling watches.

    On top of what it has reserved so far: the CLI's runtime reserves gigabytes that it does not use, as many as it is
    given, so a limit from the start would either make it abort or leave it a heap of any size.
    """
    limit_bytes = max(_LEAST_DATA_BYTES, _data_bytes(pid) + 2 * hard_bytes)
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def _data_bytes(pid: int) -> int:
    """Returns what counts against RLIMIT_DATA."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[5]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def host_memory() -> dict[str, int]:
    """Returns total and available memory of the host, in bytes, as far as it is told. Source: `/proc/meminfo`."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    told = (("total_bytes", "MemTotal"), ("available_bytes", "MemAvailable"))
    return {name: int(fields[field].split()[0]) * 1024 for name, field in told if field in fields}
