"""What a service manager hands over and is told, with a socket that plays it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ccd_settings.service_manager import Notifier, credentials, one_line, take_fds, take_socket


class Manager:
    """The other end of `$NOTIFY_SOCKET`."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(10)

    def heard(self) -> tuple[list[str], list[int]]:
        data, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
        return data.decode().split("\n"), fds

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_telling(tmp_path: Path, abstract: bool) -> None:
    name = f"ccd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    environ = {
        "NOTIFY_SOCKET": f"@{name}" if abstract else name,
        "WATCHDOG_USEC": "2500000",
        "OTHER": "stays",
    }
    with Manager(f"\0{name}" if abstract else name) as manager:
        notifier = Notifier(environ)
        assert environ == {"OTHER": "stays"}, "children must not speak for their parent"
        assert notifier.present and notifier.watchdog_s == 2.5
        reading, writing = os.pipe()
        try:
            assert notifier.tell("READY=1", "STATUS=two words", fds=[reading])
            lines, fds = manager.heard()
            assert lines == ["READY=1", "STATUS=two words"] and len(fds) == 1
            os.write(writing, b"x")
            assert os.read(fds[0], 1) == b"x"
            os.close(fds[0])
        finally:
            os.close(reading)
            os.close(writing)


def test_nobody_listens(tmp_path: Path) -> None:
    alone = Notifier({})
    assert not alone.present and alone.watchdog_s == 0 and not alone.tell("READY=1")
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("READY=1")


def test_telling_never_blocks(tmp_path: Path) -> None:
    with Manager(str(tmp_path / "notify")):  # it reads nothing
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert {notifier.tell("WATCHDOG=1") for _ in range(2000)} == {True, False}


@pytest.mark.parametrize(
    ("pid", "expected"), [("", 1.0), (str(os.getpid()), 1.0), ("1", 0.0), ("nonsense", 0.0)]
)
def test_a_watchdog_for_somebody_else(pid: str, expected: float) -> None:
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": pid}).watchdog_s == expected


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "99999999"},
    ],
)
def test_descriptors_that_are_none_of_ours(environ: dict[str, str]) -> None:
    assert take_fds(environ) == [] and environ == {}


def test_the_named_socket_is_taken_and_the_others_are_closed() -> None:
    """In a process of its own: the descriptors have fixed numbers, from 3 on."""
    script = """
import os, socket, sys
from ccd_settings.service_manager import take_socket
listening = [socket.socket(socket.AF_UNIX) for _ in range(3)]
for index, one in enumerate(listening):
    one.bind(f"\\0ccd-{os.getpid()}-{index}"); one.listen()
    os.dup2(one.fileno(), 20 + index)
for index in range(3):
    os.dup2(20 + index, 3 + index, inheritable=True); os.close(20 + index)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "other:ccd:ccd"}
taken = take_socket(environ, "ccd")
print(taken.fileno(), taken.getsockname() == listening[1].getsockname(), taken.get_inheritable(), environ)
for fd in (3, 5):
    try: os.fstat(fd); print("open", fd)
    except OSError: print("closed", fd)
os._exit(0)
"""
    # Numbers 3 to 5 are what `take_socket` expects, so they must be free: nothing is inherited.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["4 True False {}", "closed 3", "closed 5"], done.stderr
    assert take_socket({}, "ccd") is None


def test_credentials(tmp_path: Path) -> None:
    (tmp_path / "KEY").write_text("secret\n")
    (tmp_path / "BINARY").write_bytes(b"\xff")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert credentials(environ, ["KEY", "BINARY", "MISSING"]) == {"KEY": "secret"}
    assert credentials({}, ["KEY"]) == {}


def test_one_line() -> None:
    assert one_line("a\nb\x1b[0m\0c" + "x" * 500) == ("a b [0m c" + "x" * 500)[:200]
