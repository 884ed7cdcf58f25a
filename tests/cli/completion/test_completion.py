from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_gateway.access import keyfile
from fakes.peer_server import PeerServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PeerServer]:
    with PeerServer(tmp_path / "s") as server:
        yield server


def complete(folder: Path, line: str, **environ: str) -> list[str]:
    """What bash would offer, asked in the way in which its script asks."""
    words = line.split(" ")
    asked = {"_CCD_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    base = {"PATH": os.environ["PATH"], "HOME": str(folder), "CCD_CONFIG": ""}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'ccd'; from ccd_cli.__main__ import main; main()"],
        env={**base, **asked, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [row.partition(",")[2] for row in done.stdout.splitlines() if row]


def test_commands_and_options_complete(tmp_path: Path) -> None:
    assert complete(tmp_path, "ccd ctl sta") == ["status"]
    assert complete(tmp_path, "ccd ask --sch") == ["--schema"]


def test_models_profiles_and_keys_complete(tmp_path: Path, server: PeerServer) -> None:
    server.results["model.list"] = {
        "models": [{"id": "claude-sonnet-5-5", "alias": "sonnet", "display_name": "Sonnet"}],
        "profiles": ["chat", "quick"],
        "default": None,
        "of_profiles": {},
    }
    assert complete(tmp_path, "ccd ask -m s", CCD_SOCKET=str(server.path)) == ["sonnet"]
    assert complete(tmp_path, "ccd ask --profile q", CCD_SOCKET=str(server.path)) == ["quick"]
    key, _ = keyfile.make("laptop")
    with keyfile.changing(tmp_path / "data" / "keys.json") as keys:
        keys[key.id] = key
    assert complete(tmp_path, "ccd ctl keys revoke l", CCD_DATA__DIR=str(tmp_path / "data")) == ["laptop"]


def test_without_a_daemon_there_are_no_words_and_no_complaint(tmp_path: Path) -> None:
    assert complete(tmp_path, "ccd ask -m s", CCD_SOCKET=str(tmp_path / "nobody")) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_of_its_shell(tmp_path: Path, shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ccd_cli", "completion", shell], capture_output=True, text=True, check=True
    )
    assert "_CCD_COMPLETE" in done.stdout and "ccd" in done.stdout
    program = shutil.which(shell)
    if shell == "bash":
        assert program is not None
        subprocess.run([program, "-n"], input=done.stdout, text=True, check=True)
