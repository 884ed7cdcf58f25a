"""The first minute of a newcomer: `make run` in a fresh checkout with an empty HOME, and what it prints works."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.stack import ROOT, clean_environ

pytestmark = pytest.mark.timeout(420)  # an environment is made from nothing


def fresh_checkout(folder: Path) -> Path:
    """What a clone has: the files that git knows, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    return folder


class Made:
    """A running `make run`: what it has printed, and the shell that a reader would type into."""

    def __init__(self, folder: Path, environ: dict[str, str], *arguments: str) -> None:
        self.environ = environ
        self.process = subprocess.Popen(
            ["make", "run", *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._last = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if "ctl status" in line:
                self._last.set()
        self._last.set()

    def wait(self) -> str:
        assert self._last.wait(400)
        return "".join(self.said)

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a printed line in another terminal, somewhere else."""
        return subprocess.run(
            ["sh", "-c", line],
            cwd="/",
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def stop(self) -> None:
        self.process.terminate()
        self._reader.join(30)
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def taken() -> Iterator[None]:
    """Somebody has the usual port: this test, unless it is taken already."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", 8080))
            listener.listen()
        except OSError:
            pass
        yield


def test_make_run_shows_an_answer_and_commands_that_work(tmp_path: Path, cli: Path, taken: None) -> None:
    folder = fresh_checkout(tmp_path / "clone of ccd")
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environ = clean_environ(
        tmp_path / "home",
        CCD_CLI__COMMAND=str(cli),
        XDG_RUNTIME_DIR=str(runtime),
        CCD_SOCKET=str(runtime / "ccd.sock"),
        PYTHONDONTWRITEBYTECODE="1",
    )
    environ.pop("PYTHONPATH", None)
    made = Made(folder, environ, f"PYTHON={sys.executable}")
    try:
        said = made.wait()
        assert "Port 8080 is taken by" in said and "offline" in said, said
        assert re.search(r"^ccd \d.*Claude Code \d", said, re.MULTILINE), said
        [curl] = re.findall(r"^\$ (curl .*)\n(.*)$", said, re.MULTILINE)
        again = made.type(curl[0])
        assert again.returncode == 0, again.stderr
        shown, got = json.loads(curl[1]), json.loads(again.stdout)
        assert shown.keys() == got.keys() and shown["choices"] == got["choices"]
        commands = [line.strip() for line in said.splitlines() if line.startswith("    ")]
        assert len(commands) == 3 and said.rstrip().endswith(commands[-1])
        ask, chat, status = commands
        answered = made.type(ask)
        assert answered.returncode == 0 and "sky" in answered.stdout, answered
        assert made.type(status).returncode == 0
        assert made.type(f"{chat} --help").returncode == 0
    finally:
        made.stop()


def test_a_python_that_is_too_old_is_told_at_once(tmp_path: Path) -> None:
    folder = fresh_checkout(tmp_path / "clone")
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\ncase "$2" in *print*) echo 3.10;; *) exit 1;; esac\n')
    old.chmod(0o755)
    made = subprocess.run(
        ["make", "run", f"PYTHON={old}"],
        cwd=folder,
        env=clean_environ(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode != 0
    assert "needs Python 3.11 or newer" in made.stderr and "is Python 3.10" in made.stderr
    assert "make run PYTHON=" in made.stderr
    assert not (folder / ".venv").exists()
    assert os.listdir(tmp_path / "home") == []
