"""Installing the CLI with the real pip, from a directory of wheels made here instead of an index."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ccd_cli.cli import progress as cli_progress
from ccd_daemon.claude import binary as cli_binary
from ccd_daemon.claude import install as cli_install
from ccd_daemon.claude.install import InstallFailed, Progress, install

GOOD = b"#!/bin/sh\necho '2.1.330 (Claude Code)'\n"


def wheel(
    directory: Path,
    release: str = "0.2.187",
    binary: bytes | None = GOOD,
    recorded: bytes | None = None,
) -> Path:
    """A wheel as pip accepts it, whose record names the hash of `recorded` (by default of the binary)."""
    directory.mkdir(exist_ok=True)
    path = directory / f"claude_agent_sdk-{release}-py3-none-any.whl"
    info = f"claude_agent_sdk-{release}.dist-info"
    content = GOOD if binary is None else binary
    digest = hashlib.sha256(content if recorded is None else recorded).digest()
    hashed = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if binary is not None:
            archive.writestr(cli_install.MEMBER, binary)
        metadata = f"Metadata-Version: 2.1\nName: claude-agent-sdk\nVersion: {release}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        record = "" if binary is None else f"{cli_install.MEMBER},sha256={hashed},{len(content)}\n"
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes for its index, by pip's own configuration."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def left(data: Path) -> list[str]:
    """What is in the directory of copies, but for the lock."""
    return sorted(path.name for path in (data / "cli").iterdir() if path.name != ".lock")


def test_installs_the_newest_release_and_can_name_one(tmp_path: Path, index: Path) -> None:
    wheel(index)
    wheel(index, "0.2.100", GOOD.replace(b"330", b"250"))
    stages: list[Progress] = []
    done = install(tmp_path, progress=stages.append)
    assert done == (tmp_path / "cli" / "2.1.330" / "claude", "2.1.330")
    assert done.path.read_bytes() == GOOD
    seen = list(dict.fromkeys(progress.stage for progress in stages))
    assert seen == ["downloading", "unpacking", "checking", "done"]
    assert Progress("unpacking", len(GOOD), len(GOOD)) in stages
    assert install(tmp_path, version="0.2.100").version == "2.1.250"
    assert left(tmp_path) == ["2.1.250", "2.1.330"]
    assert cli_binary.find(None, tmp_path, "") == done.path


def test_keeps_two_versions_and_replaces_the_same_one(tmp_path: Path, index: Path) -> None:
    wheel(index)
    for version in ("2.1.300", "2.1.310", "2.1.320", "2.1.330"):
        (tmp_path / "cli" / version).mkdir(parents=True)
        (tmp_path / "cli" / version / "claude").write_bytes(b"#!/bin/sh\n")
        (tmp_path / "cli" / version / "claude").chmod(0o755)
    (tmp_path / "cli" / ".new-killed").mkdir()
    assert install(tmp_path).path.read_bytes() == GOOD
    assert left(tmp_path) == ["2.1.320", "2.1.330"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda index: wheel(index, recorded=b"other"), "does not have the hash that its record names"),
        (lambda index: wheel(index, binary=None), "carries no CLI for this machine"),
        (
            lambda index: wheel(index, binary=b"#!/bin/sh\necho hello\n"),
            "not usable here.*does not tell its version",
        ),
        (lambda index: wheel(index, binary=GOOD.replace(b"2.1.330", b"1.0.99")), "1.0.99; ccd needs"),
        (lambda index: wheel(index, binary=b"\x7fELF" + bytes(64)), "made for this machine"),
        (lambda index: None, "has no claude-agent-sdk for this machine"),
    ],
    ids=["tampered", "no binary", "no cli", "too old", "other machine", "no release"],
)
def test_what_cannot_be_used_leaves_nothing_behind(
    tmp_path: Path, index: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(index)
    with pytest.raises(InstallFailed, match=f"(?s){reason}.*npm install -g @anthropic-ai/claude-code"):
        install(tmp_path)
    assert left(tmp_path) == []


def test_a_damaged_wheel_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path / "w", binary=os.urandom(100_000))
    data = bytearray(path.read_bytes())
    data[50_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InstallFailed, match="is damaged"):
        cli_install.unpack(path, tmp_path / "claude")
    path.write_bytes(b"no zip")
    with pytest.raises(InstallFailed, match="is damaged"):
        cli_install.unpack(path, tmp_path / "claude2")


@pytest.mark.parametrize("version", ["--index-url=x", "", "latest", "1 --pre", "1;rm"])
def test_only_a_release_number_reaches_pip(tmp_path: Path, version: str) -> None:
    with pytest.raises(InstallFailed, match="is no release number"):
        install(tmp_path, version=version)


def pip_that_says(tmp_path: Path, script: str) -> str:
    """A stand-in for the interpreter that runs pip."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("python: No module named pip", "has no pip.*ensurepip"),
        ("ERROR: [Errno 28] No space left on device", "The disk is full"),
        ("NewConnectionError: [Errno -3] Temporary failure in name resolution", "index cannot be reached"),
        ("ProxyError: Tunnel connection failed: 407", "The proxy refused"),
        ("SSLError: CERTIFICATE_VERIFY_FAILED", "certificate is not trusted"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "was thrown away"),
        ("ERROR: something new", "pip could not download the CLI.*something new"),
    ],
)
def test_failures_of_pip_are_explained(tmp_path: Path, says: str, told: str) -> None:
    python = pip_that_says(tmp_path, f"echo '{says}' >&2; exit 1")
    with pytest.raises(InstallFailed, match=f"(?s){told}.*npm install"):
        install(tmp_path / "data", python=python)
    assert left(tmp_path / "data") == []


def test_progress_follows_the_bytes_that_pip_has_fetched(tmp_path: Path) -> None:
    script = """
    echo '  Downloading claude_agent_sdk-1-py3-none-any.whl (3.0 kB)'
    head -c 2000 /dev/zero > $TMPDIR/part
    read -r go < GATE
    exit 1""".replace("GATE", str(tmp_path / "gate"))
    os.mkfifo(tmp_path / "gate")
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress == Progress("downloading", 2000, 3000):
            (tmp_path / "gate").write_text("go\n")

    with pytest.raises(InstallFailed):
        install(tmp_path, python=pip_that_says(tmp_path, script), progress=watch)
    assert Progress("downloading", 2000, 3000) in seen


def test_an_interrupted_installation_ends_pip_and_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while pip runs: pip's group holds the pipe's other end, so its end shows as EOF."""
    os.mkfifo(tmp_path / "alive")
    python = pip_that_says(tmp_path, f"exec 3> {tmp_path / 'alive'}; echo started >&3; sleep 60")
    code = (
        "import signal, sys; from pathlib import Path; from ccd_daemon.claude.install import install;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "install(Path(sys.argv[1]), python=sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data"), python]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process, (tmp_path / "alive").open() as alive:
        assert alive.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
        assert alive.read() == ""
    assert left(tmp_path / "data") == []


def test_two_installations_wait_for_each_other(tmp_path: Path, index: Path) -> None:
    wheel(index)
    waiting = threading.Event()
    results: list[cli_install.Installed] = []

    def second(progress: Progress) -> None:
        if progress.stage == "waiting":
            waiting.set()

    thread = threading.Thread(target=lambda: results.append(install(tmp_path, progress=second)))

    def first(progress: Progress) -> None:
        if progress.stage == "checking":
            thread.start()
            assert waiting.wait(20)

    assert install(tmp_path, progress=first).version == "2.1.330"
    thread.join(60)
    assert [done.version for done in results] == ["2.1.330"]
    assert left(tmp_path) == ["2.1.330"]


def test_a_full_disk_is_told_before_and_meanwhile(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(index)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(InstallFailed, match="the disk is full"):
            install(tmp_path)
    assert left(tmp_path) == []
    monkeypatch.setattr(cli_install, "_LEAST_FREE_BYTES", 10**18)
    with pytest.raises(InstallFailed, match="MB left, and installing the CLI takes about"):
        install(tmp_path)


def test_a_data_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InstallFailed, match="cannot be installed in"):
        install(tmp_path / "file")


def test_progress_is_a_few_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with cli_progress.shown(stream) as show:
        show(Progress("downloading"))
        for done in range(0, 101):
            show(Progress("downloading", done * 10**6, 100 * 10**6))
        show(Progress("done"))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 7
    assert lines[-2:] == ["Downloading the Claude Code CLI (100 MB): 100 %", "Installed"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with cli_progress.shown(stream) as show:
        show(Progress("downloading", 5, 10))
        show(Progress("unpacking", 5, 10))
        show(Progress("unpacking", 10, 10))
    assert "Unpacking" in stream.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with cli_progress.shown(stream) as show:
        show(Progress("done"))
    assert stream.getvalue() == "Installed\n"
