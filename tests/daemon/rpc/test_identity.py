"""Who has connected, as the kernel says: the process itself, alive, and all of its groups."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ccd_daemon.process.lineage import Origin
from ccd_daemon.rpc import identity
from ccd_daemon.rpc.identity import identify

NO_DAEMON = 2**22 + 1
_CONNECT = (
    "import os, socket, sys\n"
    "sock = socket.socket(socket.AF_UNIX)\n"
    "sock.connect(sys.argv[1])\n"
    "print(flush=True)\n"
    "sys.stdin.read()\n"
)


@contextmanager
def connected(folder: Path, prepare: str = "", *, ended: bool = False) -> Iterator[tuple[socket.socket, int]]:
    """A connection of another process, which does `prepare` first, or has `ended` before it is looked at."""
    path = folder / "sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with subprocess.Popen(
            [sys.executable, "-S", "-c", f"import os\n{prepare}\n{_CONNECT}", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if ended:
                process.communicate()
            found, _ = server.accept()
            with found:
                yield found, process.pid
            if not ended:
                process.communicate()


def test_a_living_peer(tmp_path: Path) -> None:
    with connected(tmp_path) as (sock, pid):
        found = identify(sock, Origin(NO_DAEMON))
        assert (found.pid, found.uid, found.gid) == (pid, os.getuid(), os.getgid())
        assert found.outside
        assert not identify(sock, Origin(os.getpid())).outside


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_a_peer_that_has_ended_is_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_pidfd: bool
) -> None:
    if not has_pidfd:
        monkeypatch.setattr(identity, "_SO_PEERPIDFD", 9999)  # as on a kernel that does not know it
    with connected(tmp_path, ended=True) as (sock, _):
        assert not identify(sock, Origin(NO_DAEMON)).outside
    (tmp_path / "sock").unlink()
    with connected(tmp_path) as (sock, _):
        assert identify(sock, Origin(NO_DAEMON)).outside


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a process groups")
@pytest.mark.parametrize("count", [0, 3, 256, 2000])
def test_all_groups_of_a_peer(tmp_path: Path, count: int) -> None:
    groups = set(range(50_000, 50_000 + count))
    with connected(tmp_path, f"os.setgroups(range(50_000, {50_000 + count}))") as (sock, _):
        assert identify(sock, Origin(NO_DAEMON)).groups == groups
