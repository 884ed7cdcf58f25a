"""How everything here is measured: percentiles, one core for both ends, CPU time of another process.

Every figure is set beside a floor that was measured in the same run, interleaved with it, because absolute
times on a shared machine say little. Nothing here passes or fails: a benchmark reports, people judge.
"""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figure:
    """One row of the table. `target` is what the project asks for, `floor` names what it is compared to."""

    group: str
    name: str
    unit: str
    median: float
    p10: float
    p90: float
    count: int
    ratio: float | None = None
    floor: str = ""
    target: str = ""
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what is empty."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the samples lie, interpolated."""
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def figure(group: str, name: str, unit: str, samples: Sequence[float], **more: Any) -> Figure:
    """A figure of samples: median, p10 and p90."""
    low, middle, high = (percentile(samples, share) for share in (0.1, 0.5, 0.9))
    return Figure(group, name, unit, middle, low, high, len(samples), **more)


def single(group: str, name: str, unit: str, value: float, **more: Any) -> Figure:
    """A figure that was measured once."""
    return Figure(group, name, unit, value, value, value, 1, **more)


def median_ratio(samples: Sequence[float], floor: Sequence[float]) -> float:
    """The median of sample/floor over interleaved rounds, which noise that lasts for a round leaves alone."""
    return statistics.median(a / b for a, b in zip(samples, floor, strict=True))


def interleaved(
    rounds: int, runs: Mapping[str, Callable[[], float]], random: Random
) -> dict[str, list[float]]:
    """Run each of `runs` once per round, in an order drawn anew for every round."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            found[name].append(runs[name]())
    return found


# --- processes ---


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def pin(pid: int, where: Iterable[int]) -> None:
    """Bind every thread of a process to some cores."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task), set(where))


@contextlib.contextmanager
def pinned(pids: Mapping[int, int]) -> Iterator[None]:
    """Bind processes to a core each (pid: core; pid 0 is this one) for the length of a with block."""
    usual = cores()
    for pid, core in pids.items():
        pin(pid or os.getpid(), [core])
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(FileNotFoundError):
                pin(pid or os.getpid(), usual)


def cpu_s(pid: int) -> float:
    """User and system CPU time of a process in seconds, all threads.

    From `schedstat` (nanoseconds) where the kernel has it, else `stat` (utime + stime, in ticks of 10 ms).
    """
    total_ns = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            total_ns += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    except FileNotFoundError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S
    return total_ns / 1e9


def memory_bytes(pid: int) -> tuple[int, int]:
    """RSS and PSS of a process; PSS counts a page that n processes share as 1/n."""
    found = {"Rss:": 0, "Pss:": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, rest = line.partition(" ")
        if key in found:
            found[key] = int(rest.split()[0]) * 1024
    return found["Rss:"], found["Pss:"]
