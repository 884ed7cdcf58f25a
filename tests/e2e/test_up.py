"""`ccd up`: one supervised unit that anybody can start."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_client import Client
from fakes.stack import Running, alive, clean_environ, free_port, marked_processes, start, wait_until


class Up:
    """A running `ccd up --offline`."""

    def __init__(self, folder: Path, cli: Path, **settings: str) -> None:
        self.socket = folder / "run" / "ccd.sock"
        self.bind = f"127.0.0.1:{free_port()}"
        self.mark = f"CCD_TEST_UNIT={folder}"
        name, value = self.mark.split("=", 1)
        # A real key in the environment must not be used offline.
        environ = clean_environ(
            folder / "home",
            CCD_CLI__COMMAND=str(cli),
            ANTHROPIC_API_KEY="real-key-canary",
            **{name: value},
            **settings,
        )
        arguments = ["-m", "ccd_cli", "up", "--offline", "--bind", self.bind, "--socket", str(self.socket)]
        self.running: Running = start(arguments, environ, folder / "up.log")

    def ask(self, text: str) -> str:
        body = {"model": "sonnet", "messages": [{"role": "user", "content": text}]}
        request = urllib.request.Request(
            f"http://{self.bind}/v1/chat/completions", data=json.dumps(body).encode()
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as response:
            return str(json.load(response)["choices"][0]["message"]["content"])

    def processes(self) -> list[int]:
        """All its processes but itself; workers do not inherit the mark, so theirs is looked for too."""
        found = {*marked_processes(self.mark), *marked_processes(f"CCD_OWNER={self.socket}")}
        return [pid for pid in found if pid != self.running.pid]


def parts_of(mark: str) -> dict[str, int]:
    """The pids of a unit's daemon and gateway, as far as they run."""
    names = {"daemon", "gateway"}
    found = {}
    for pid in marked_processes(mark):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if words[1:3] == ["-m", "ccd_cli"] and words[3] in names and os.getsid(pid) == pid:
            found[words[3]] = pid
    return found


@contextlib.contextmanager
def running_up(tmp_path: Path, cli: Path, **settings: str) -> Iterator[Up]:
    """A unit for the length of a with block; nothing of it is left."""
    unit = Up(tmp_path, cli, **settings)
    yield unit
    if unit.running.process.poll() is None:
        unit.running.stop()
    wait_until(lambda: not unit.processes(), timeout_s=5, what="every process of the unit to be gone")


@pytest.fixture
def up(tmp_path: Path, cli: Path) -> Iterator[Up]:
    unit = Up(tmp_path, cli)
    yield unit
    if unit.running.process.poll() is None:
        unit.running.stop()
    wait_until(lambda: not unit.processes(), timeout_s=5, what="every process of the unit to be gone")


def test_one_line_says_that_it_is_ready_and_it_answers_as_an_echo(up: Up) -> None:
    assert up.bind in up.running.ready_line
    assert str(up.socket) in up.running.ready_line
    assert "offline" in up.running.ready_line
    answer = up.ask("hello world")
    assert "hello world" in answer
    assert "offline" in answer.lower()
    with Client(up.socket) as client:
        assert "hello socket" in client.chat("hello socket").text
    assert "canary" not in up.running.log_text()


def test_a_killed_daemon_is_started_again(up: Up) -> None:
    up.ask("before")
    with Client(up.socket) as client:
        pid = client.ping()["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _answers(up), timeout_s=20, what="the unit to answer again")
    with Client(up.socket) as client:
        assert client.ping()["pid"] != pid


def test_a_request_waits_for_a_daemon_that_comes_back(up: Up) -> None:
    """Nobody listens meanwhile for longer than a daemon takes that is down for good."""
    up.ask("before")
    for _ in range(2):
        os.kill(parts_of(up.mark)["daemon"], signal.SIGKILL)
        assert "after" in up.ask("after")


def test_parts_that_are_killed_before_they_are_ready_are_started_again(tmp_path: Path, cli: Path) -> None:
    left = {"daemon", "gateway"}
    mark = f"CCD_TEST_UNIT={tmp_path}"

    def kill_each_once() -> None:
        until_s = time.monotonic() + 60
        while left and time.monotonic() < until_s:
            for name, pid in parts_of(mark).items():
                if name in left:
                    left.remove(name)
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_each_once)
    killer.start()
    with running_up(tmp_path, cli) as up:
        killer.join()
        assert not left and "hello" in up.ask("hello")
        log = up.running.log_text()
        assert "the daemon was ended by signal 9" in log and "the gateway was ended by signal 9" in log


def test_parts_that_no_longer_answer_are_killed_and_started_again(tmp_path: Path, cli: Path) -> None:
    with running_up(tmp_path, cli, CCD_UP__WATCHDOG_S="6", CCD_LOG__FORMAT="json") as up:
        before = parts_of(up.mark)
        os.kill(before["daemon"], signal.SIGSTOP)
        os.killpg(before["gateway"], signal.SIGSTOP)  # its workers too
        wait_until(
            lambda: (
                set(now := parts_of(up.mark)) == set(before) and not set(now.values()) & set(before.values())
            ),
            timeout_s=60,
            what="both to be replaced",
        )
        wait_until(lambda: _answers(up), timeout_s=30, what="the unit to answer again")
        said = [json.loads(line)["message"] for line in up.running.log_text().splitlines()]
        for name in before:
            assert f"the {name} has missed 3 pings in a row, over 6 s; it is killed" in said
            assert any(
                text.startswith(f"the {name} was ended by signal 9; starting it again") for text in said
            )


def _answers(up: Up) -> bool:
    try:
        return "after" in up.ask("after")
    except OSError:
        return False


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_it_leaves_nothing(up: Up, signum: signal.Signals) -> None:
    up.ask("hello")
    assert len(up.processes()) >= 5
    os.kill(up.running.pid, signum)
    assert up.running.process.wait(30) == 0
    wait_until(lambda: not up.processes(), timeout_s=2, what="every process of the unit to be gone")
    assert not up.socket.exists()
    up.running.stop()


def test_killing_it_leaves_nothing(up: Up) -> None:
    up.ask("hello")
    up.running.kill()
    wait_until(lambda: not up.processes(), timeout_s=10, what="every process of the unit to be gone")


PARTS = {
    "offline API": (["ccd_offline"], signal.SIGKILL),
    "daemon": (["ccd_cli", "daemon", "--with-parent"], signal.SIGTERM),
    "gateway": (["ccd_cli", "gateway", "--bind", "127.0.0.1:0"], signal.SIGTERM),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_whose_unit_was_killed_while_it_started_ends(part: str, tmp_path: Path, cli: Path) -> None:
    """It learns too late who its parent was, so the unit tells it."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    arguments, signum = PARTS[part]
    environ = clean_environ(
        tmp_path,
        CCD_SOCKET=str(tmp_path / "run" / "s"),
        CCD_CLI__COMMAND=str(cli),
        CCD_STARTED_BY=str(gone.pid),
    )
    done = subprocess.run(
        [sys.executable, "-m", *arguments], env=environ, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -signum
    assert not done.stdout


def up_that_fails(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ccd_cli", "up", "--offline", *arguments]
    clean = clean_environ(folder / "other-home", **environ)
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert not marked_processes(f"HOME={folder / 'other-home'}")
    return done


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        ((), {"CCD_POOL__SPARES": "many"}, "CCD_POOL__SPARES"),
        (("--bind", "nowhere"), {}, "gateway: bind"),
        ((), {"CCD_GATEWAY__WORKERS": "0"}, "CCD_GATEWAY__WORKERS"),
    ],
)
def test_a_wrong_setting_is_reported_before_anything_starts(
    tmp_path: Path, cli: Path, arguments: tuple[str, ...], environ: dict[str, str], named: str
) -> None:
    done = up_that_fails(
        tmp_path, *arguments, "--socket", str(tmp_path / "run" / "s"), CCD_CLI__COMMAND=str(cli), **environ
    )
    assert done.returncode == 2
    assert named in done.stderr
    assert not (tmp_path / "run").exists()


def test_its_exit_status_says_why_it_could_not_start(up: Up, tmp_path: Path, cli: Path) -> None:
    bind = ("--bind", f"127.0.0.1:{free_port()}")
    second = up_that_fails(tmp_path, *bind, "--socket", str(up.socket), CCD_CLI__COMMAND=str(cli))
    assert second.returncode == 69
    assert "another ccd daemon" in second.stderr
    socket = str(tmp_path / "second" / "s")
    no_cli = up_that_fails(tmp_path, *bind, "--socket", socket, CCD_CLI__COMMAND=str(tmp_path / "claude"))
    assert no_cli.returncode == 69
    relative = up_that_fails(tmp_path, *bind, "--socket", "ccd.sock", CCD_CLI__COMMAND=str(cli))
    assert relative.returncode == 2
    assert "must be absolute" in relative.stderr
    assert "hello" in up.ask("hello")


def test_what_stands_in_the_way_of_a_daemon_is_told_in_words(tmp_path: Path, cli: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o750)
    (tmp_path / "run" / "s.workers").write_text("somebody's notes")
    command = [sys.executable, "-m", "ccd_cli", "daemon", "--socket", str(tmp_path / "run" / "s")]
    environ = clean_environ(tmp_path / "home", CCD_CLI__COMMAND=str(cli))
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 69
    assert done.stderr.splitlines()[-1] == f"ccd: cannot create {tmp_path}/run/s.workers: File exists"


def test_a_port_in_use_ends_it_with_a_readable_line(up: Up, tmp_path: Path, cli: Path) -> None:
    socket = str(tmp_path / "other" / "ccd.sock")
    done = up_that_fails(tmp_path, "--bind", up.bind, "--socket", socket, CCD_CLI__COMMAND=str(cli))
    assert done.returncode == 1
    assert f"cannot listen on {up.bind}: Address already in use" in done.stderr
    assert alive(up.running.pid)
