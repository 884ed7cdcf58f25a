"""Whether a worker has started a process: what is not certain is a yes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_daemon.process import lineage
from ccd_daemon.process.lineage import Origin, Unreadable, ancestors

NO_DAEMON = 2**22 + 1  # no process has this number


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"], env={"CCD_OWNER": "here"}) as process:
        yield process
        process.kill()


def test_ancestors_reach_the_first_process(child: subprocess.Popen[bytes]) -> None:
    found = ancestors(child.pid)
    assert found[:2] == [os.getpid(), os.getppid()]
    assert found[-1] in (0, 1)


@pytest.mark.parametrize("pid", [0, -1, NO_DAEMON])
def test_a_process_that_cannot_be_read_is_not_outside(pid: int) -> None:
    with pytest.raises(Unreadable):
        ancestors(pid)
    assert not Origin(NO_DAEMON).is_outside(pid)


def test_by_ancestors_by_group_and_by_marker(child: subprocess.Popen[bytes]) -> None:
    assert Origin(NO_DAEMON).is_outside(child.pid)
    assert not Origin(os.getpid()).is_outside(child.pid)
    assert not Origin(NO_DAEMON, marker="CCD_OWNER=here").is_outside(child.pid)
    assert Origin(NO_DAEMON, marker="CCD_OWNER=there").is_outside(child.pid)
    names = [
        part for line in Path("/proc/self/cgroup").read_text().split() for part in line.split("/")[1:] if part
    ]
    for name in names:
        assert not Origin(NO_DAEMON, group=name).is_outside(child.pid)
    assert Origin(NO_DAEMON, group="ccd-of-somebody-else-").is_outside(child.pid)


def test_a_chain_that_is_too_long_to_follow_is_not_outside() -> None:
    script = (
        "import os, sys\n"
        "for _ in range(300):\n"
        "    if pid := os.fork():\n"
        "        os.waitpid(pid, 0)\n"
        "        os._exit(0)\n"
        "print(os.getpid(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as deep:
        assert deep.stdout is not None
        pid = int(deep.stdout.readline())
        with pytest.raises(Unreadable):
            ancestors(pid)
        assert not Origin(os.getpid()).is_outside(pid)
        deep.communicate()


def test_ancestors_that_change_while_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = iter([[7, 1], [8, 1], [8, 1]])
    monkeypatch.setattr(lineage, "_walk", lambda pid: next(walks))
    assert ancestors(9) == [8, 1]
    turn = iter(range(1000))
    monkeypatch.setattr(lineage, "_walk", lambda pid: [next(turn), 1])
    with pytest.raises(Unreadable):
        ancestors(9)
