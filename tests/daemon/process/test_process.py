"""A process's end: seen although others hold its pipes, with all that it wrote, and without touching anybody else."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from ccd_daemon.process import process as module
from ccd_daemon.process.process import (
    Process,
    death_wrapper,
    descendants,
    exit_words,
    has_marker,
    signal_each,
)
from fakes.stack import alive, wait_until

BOUND_S = 10


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.stdout = b""
        self.eof = False
        self.status: int | None = None
        self.exited = asyncio.Event()

    def on_stdout(self, data: bytes) -> None:
        assert self.status is None, "output after the exit was told"
        self.stdout += data

    def on_stdout_eof(self) -> None:
        self.eof = True

    def on_exit(self, status: int) -> None:
        assert self.status is None, "told twice"
        self.status = status
        self.exited.set()


async def run(script: str, tmp_path: Path, *, marker: str = "T=1") -> tuple[Process, Heard]:
    heard = Heard()
    name, _, value = marker.partition("=")
    env = {"PATH": os.environ["PATH"], name: value}
    process = Process([sys.executable, "-ISc", script], env=env, cwd=tmp_path, listener=heard)
    await process.connect()
    return process, heard


async def ended(heard: Heard) -> int:
    async with asyncio.timeout(BOUND_S):
        await heard.exited.wait()
    assert heard.status is not None
    return heard.status


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


ORPHAN = """
import os, sys, time
if os.fork() == 0:
    os.setsid() if {session} else None
    print(os.getpid(), flush=True)
    time.sleep(600)
sys.stdin.readline()
os.write(1, b"last words")
os.write(2, b"last complaint")
os._exit(7)
"""


@pytest.mark.parametrize("session", [True, False])
def test_an_exit_is_seen_although_a_grandchild_holds_the_pipes(tmp_path: Path, session: bool) -> None:
    async def main() -> None:
        before = open_files()
        process, heard = await run(ORPHAN.format(session=session), tmp_path)
        async with asyncio.timeout(BOUND_S):
            while b"\n" not in heard.stdout:
                await asyncio.sleep(0.005)
        orphan = int(heard.stdout.split()[0])
        process.write(b"go\n")
        assert await ended(heard) == 7
        assert heard.stdout.endswith(b"last words")
        assert process.stderr_tail() == "last complaint"
        if session:  # who left the group is found by control group or sweep, not here
            assert alive(orphan)
            os.kill(orphan, signal.SIGKILL)
        wait_until(lambda: not alive(orphan))
        await asyncio.sleep(0)  # closed transports let go of their files in the next turn of the loop
        await asyncio.sleep(0)
        assert open_files() <= before + 1

    asyncio.run(main())


def test_no_file_of_another_thread_is_closed(tmp_path: Path) -> None:
    """uvloop closes a pipe's descriptor and then its file; by then the number may be that of a database."""

    async def main() -> None:
        process, heard = await run("pass", tmp_path)
        pipes = (process._popen.stdin, process._popen.stdout, process._popen.stderr)
        assert all(isinstance(pipe, io.FileIO) and not pipe.closefd for pipe in pipes)
        assert await ended(heard) == 0
        read, write = os.pipe()
        given = module._given_to(asyncio.get_running_loop(), os.fdopen(read, "rb", 0), "rb")
        taken = given.fileno()
        os.dup2(write, taken)  # the loop has closed it, and the number belongs to something else now
        given.close()
        os.fstat(taken)
        os.close(taken)
        os.close(write)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_every_file_of_a_process_is_closed(tmp_path: Path, factory: Callable[[], Any]) -> None:
    async def main() -> tuple[int, int]:
        await ended((await run("pass", tmp_path))[1])  # whatever is opened once
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        before = open_files()
        for _ in range(5):
            await ended((await run("pass", tmp_path))[1])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()
        return before, open_files()

    with asyncio.Runner(loop_factory=factory) as runner:
        before, after = runner.run(main())
    assert after == before


def test_a_recycled_pid_is_never_signalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        process, heard = await run("pass", tmp_path)
        await ended(heard)
        hit: list[object] = []
        monkeypatch.setattr(module.os, "killpg", lambda *aimed: hit.append(aimed))
        monkeypatch.setattr(module, "signal_each", lambda *aimed: hit.append(aimed))
        process.kill("T=1")
        process.terminate("T=1")
        assert not hit

    asyncio.run(main())


def test_only_processes_with_the_mark_are_hit() -> None:
    assert not has_marker(os.getpid(), "CCD_NO_SUCH=1")
    assert signal_each([os.getpid()], signal.SIGKILL, "CCD_NO_SUCH=1") == 0
    assert signal_each([2**22 - 1], signal.SIGKILL) == 0


def test_a_process_that_nobody_can_listen_to_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        before = open_files()

        def refuse(pid: int) -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(module.os, "pidfd_open", refuse)
        heard = Heard()
        process = Process(
            [sys.executable, "-ISc", "import time; time.sleep(600)"], env={}, cwd=tmp_path, listener=heard
        )
        with pytest.raises(OSError, match="Too many"):
            await process.connect()
        assert not Path(f"/proc/{process.pid}").exists(), "killed and reaped"
        assert heard.status is None
        assert open_files() <= before + 1

    asyncio.run(main())


def test_terminate_then_kill_ends_the_whole_tree(tmp_path: Path) -> None:
    script = "import os,signal,time\nsignal.signal(15, 1)\nos.fork()\nprint(1, flush=True)\ntime.sleep(600)"

    async def main() -> None:
        process, heard = await run(script, tmp_path)
        async with asyncio.timeout(BOUND_S):
            while heard.stdout.count(b"1") < 2:
                await asyncio.sleep(0.005)
        (child,) = descendants(process.pid)
        process.terminate("T=1")
        assert alive(child)
        process.kill("T=1")
        assert await ended(heard) == -signal.SIGKILL
        wait_until(lambda: not alive(child))

    asyncio.run(main())


def test_a_paused_pipe_hides_no_death_and_loses_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        process, heard = await run("import sys; sys.stdin.readline(); print('x' * 100000)", tmp_path)
        process.pause()
        assert process.paused
        process.write(b"go\n")
        assert await ended(heard) == 0
        assert heard.stdout == b"x" * 100000 + b"\n"

    asyncio.run(main())


def test_the_kernel_ends_it_with_the_daemon() -> None:
    assert death_wrapper()[0]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0
    assert exit_words(-9) == "killed by SIGKILL"
    assert exit_words(3) == "exit status 3"
    assert exit_words(-200) == "killed by signal 200"
