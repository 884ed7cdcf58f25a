"""How memory is measured and when it is looked at again."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ccd_daemon.process import memory

MIB = 1 << 20


def test_resident_memory_is_that_of_the_kernel() -> None:
    held = b"x" * (32 * MIB)
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    assert abs(memory.rss_bytes(os.getpid()) - 1024 * int(line.split()[1])) < 8 * MIB
    assert len(held) < memory.rss_bytes(os.getpid()) <= memory.tree_rss_bytes(memory.tree(os.getpid(), ()))
    assert memory.rss_bytes(2**22 - 1) == 0


def test_strays_count_once() -> None:
    assert sorted(memory.tree(os.getpid(), [os.getpid(), 5])).count(os.getpid()) == 1
    assert 5 in memory.tree(os.getpid(), [5])


def test_what_grows_is_looked_at_sooner() -> None:
    assert memory.next_poll_s(1, 100, 0, 200) == 1
    assert memory.next_poll_s(1, 100, -5, 200) == 1
    assert memory.next_poll_s(1, 100, 10, 200) == 1  # ten seconds away
    assert memory.next_poll_s(1, 100, 1000, 200) == 0.05
    assert memory.next_poll_s(1, 500, 1000, 200) == memory.MIN_POLL_S


def test_a_worker_is_taken_first_and_its_heap_is_bounded() -> None:
    script = "import time; print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-ISc", script], stdout=subprocess.PIPE) as child:
        try:
            memory.take_workers_first(child.pid)
            memory.limit_data(child.pid, 100 * MIB)
            assert Path(f"/proc/{child.pid}/oom_score_adj").read_text() == "500\n"
            assert resource.prlimit(child.pid, resource.RLIMIT_DATA)[0] == 2 << 30
        finally:
            child.kill()
    memory.take_workers_first(child.pid)  # gone: nothing happens
    memory.limit_data(child.pid, 100 * MIB)


def test_what_large_blocks_took_is_given_back() -> None:
    """A block of each size is freed before the larger one: by itself the allocator would then keep the next ones."""
    script = """
import os
from ccd_daemon.process import memory
memory.return_large_blocks()
before, fence = memory.rss_bytes(os.getpid()), []
for mib in (1, 4, 20, 24, 24, 24):
    block = bytearray(mib << 20)
    block[:: 4096] = b"x" * len(block[:: 4096])
    fence.append(bytes(5000))  # behind the block: the heap cannot shrink
    del block
print(memory.rss_bytes(os.getpid()) - before)
"""
    said = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert int(said.stdout) < 8 * MIB


@pytest.mark.parametrize(
    ("rss_bytes", "processes", "words"),
    [(100, 8, None), (101, 8, "over the hard limit"), (100, 9, "9 processes"), (101, 9, "9 processes")],
)
def test_what_is_too_large_to_stay(rss_bytes: int, processes: int, words: str | None) -> None:
    found = memory.excess(rss_bytes, processes, hard_bytes=100, max_processes=8)
    assert found is None if words is None else words in (found or "")
