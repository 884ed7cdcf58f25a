"""The tree's own parts around a real process; what processes do is in test_process, what groups do in test_cgroup."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from ccd_daemon.process.cgroup import Group
from ccd_daemon.process.process import WORKER_MARKER
from ccd_daemon.process.tree import ProcessTree, clear_temporary, temporary_of
from fakes.in_loop import in_loop

ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)\n"


class Heard:
    def __init__(self) -> None:
        self.output = b""
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_stdout(self, data: bytes) -> None:
        *lines, self.output = (self.output + data).split(b"\n")
        for line in lines:
            self.lines.put_nowait(line)

    def on_stdout_eof(self) -> None:
        pass

    def on_exit(self, status: int) -> None:
        self.exited.set_result(status)


class Noted(Group):
    """A control group that only remembers."""

    def __init__(self) -> None:
        super().__init__([], caps_memory=True)
        self.joined: list[int] = []
        self.killed = self.removed = 0

    def join(self, pid: int) -> None:
        self.joined.append(pid)

    def pids(self) -> list[int]:
        return self.joined

    def oom_kills(self) -> int:
        return 1

    def kill(self) -> bool:
        self.killed += 1
        return True

    def remove(self) -> None:
        self.removed += 1


async def spawned(heard: Heard, home: Path, group: Group | None) -> ProcessTree:
    tree = ProcessTree(heard)
    env = {WORKER_MARKER: "w1/1"}
    await tree.spawn(Path(sys.executable), ("-c", ECHO), env, home, lambda: group)
    return tree


@in_loop
async def test_it_lives_in_its_directory_and_group_and_both_go_with_it(tmp_path: Path) -> None:
    heard, group, home = Heard(), Noted(), tmp_path / "w1"
    tree = await spawned(heard, home, group)
    assert tree.process is not None
    assert group.joined == [tree.process.pid] == tree.grouped_pids()
    assert tree.caps_memory
    assert tree.killed_by_memory_limit()
    assert tree.marker == "w1/1"
    assert home.stat().st_mode & 0o777 == 0o700
    tree.write(b"hello\n")
    assert await heard.lines.get() == b"hello"
    tree.pause()
    assert tree.paused
    tree.close_stdin()
    assert not tree.paused, "what is not read from could not end"
    assert await heard.exited == 0
    tree.remove()
    async with asyncio.timeout(10):
        while home.exists() or not group.removed:
            await asyncio.sleep(0.01)
    assert group.killed == 1


@in_loop
async def test_without_a_group_its_tree_is_ended_all_the_same(tmp_path: Path) -> None:
    heard = Heard()
    tree = await spawned(heard, tmp_path / "w1", None)
    assert tree.grouped_pids() == []
    assert not tree.caps_memory
    tree.kill()
    assert await heard.exited == -9


@in_loop
async def test_what_could_not_be_started_can_be_ended_and_removed(tmp_path: Path) -> None:
    heard, home = Heard(), tmp_path / "w1"
    home.mkdir()
    tree = ProcessTree(heard)
    with pytest.raises(FileExistsError):
        await tree.spawn(Path(sys.executable), (), {WORKER_MARKER: "w1/1"}, home, lambda: None)
    for end in (tree.pause, tree.resume, tree.close_stdin, tree.terminate, tree.kill):
        end()
    tree.write(b"nobody reads this\n")
    assert not tree.paused
    assert tree.stderr_tail() == ""
    tree.remove()
    async with asyncio.timeout(10):
        while home.exists():
            await asyncio.sleep(0.01)


def test_temporary_files_are_inside_but_for_names_that_no_socket_could_have(tmp_path: Path) -> None:
    assert temporary_of(Path("/run/ccd/ccd.sock.workers/w1")) == Path("/run/ccd/ccd.sock.workers/w1/tmp")
    first, second = temporary_of(Path("/x" * 40) / "w1"), temporary_of(Path("/x" * 40) / "w2")
    assert first.name.startswith("ccd-") and first != second
    assert temporary_of(Path("/x" * 40) / "w1") == first
    other = temporary_of(Path("/y" * 40) / "w1")
    for folder in (first, second, other):
        folder.mkdir()
    clear_temporary(Path("/x" * 40))
    assert not first.exists() and not second.exists() and other.exists()
    clear_temporary(Path("/y" * 40))
    assert not other.exists()
