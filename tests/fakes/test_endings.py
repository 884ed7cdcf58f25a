from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

_SLOW_TO_END = """
import asyncio, time

def test_its_cleanup_waits_for_what_never_comes():
    async def main():
        try:
            await asyncio.sleep(60)
        finally:
            while True:
                await asyncio.sleep(0)
    asyncio.run(main())

def test_the_next_one_runs():
    pass
"""
_ENDLESS = """
def test_it_swallows_everything():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "fakes.endings", "--timeout", "0.5", "test_it.py"]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TESTS)}
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_loop_that_goes_on_in_its_cleanup_fails_one_test(tmp_path: Path) -> None:
    done = run(tmp_path, _SLOW_TO_END)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "Timeout (>0.5s)" in done.stdout


def test_a_test_that_swallows_everything_ends_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, _ENDLESS)
    # The stacks of threads that run are read as they are; Python 3.13.0 may crash over that, which ends the run, too.
    assert done.returncode in (1, -signal.SIGBUS, -signal.SIGSEGV)
    assert "Timeout" in done.stderr and "passed" not in done.stdout
