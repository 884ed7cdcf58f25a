"""`ccd doctor`: each damage is found and named with what mends it; a sound installation has no fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ccd_cli.root import main
from fakes.stack import clean_environ, real_cli


class Host:
    """A home of its own, and the report of `ccd doctor` in it."""

    def __init__(self, folder: Path, cli: Path) -> None:
        self.home = folder / "home"
        self.environ = clean_environ(
            self.home,
            ANTHROPIC_API_KEY="test-key",
            CCD_CLI__COMMAND=str(cli),
            CCD_DATA__DIR=str(folder / "data"),
            CCD_SOCKET=str(folder / "s"),
            CCD_GATEWAY__BIND="127.0.0.1:1",
        )
        (folder / "data").mkdir(mode=0o700)
        self.data = folder / "data"

    def levels(self, *arguments: str) -> dict[str, tuple[str, str]]:
        """Returns the worst finding of each area: its level, and text with mend."""
        environ = dict.fromkeys(os.environ) | self.environ
        result = CliRunner().invoke(main, ["doctor", "--json", "--no-round-trip", *arguments], env=environ)
        order = ["ok", "note", "warning", "fault"]
        worst: dict[str, tuple[str, str]] = {}
        for found in json.loads(result.stdout)["findings"]:
            if order.index(found["level"]) >= order.index(worst.get(found["area"], ("ok", ""))[0]):
                worst[found["area"]] = (found["level"], f"{found['text']} | {found['mend']}")
        assert (result.exit_code == 0) is all(level != "fault" for level, _ in worst.values())
        return worst


@pytest.fixture
def host(tmp_path: Path, cli: Path) -> Host:
    return Host(tmp_path, cli)


def test_a_sound_installation_has_no_fault(host: Host) -> None:
    found = host.levels()
    assert found["login"][0] == found["cli"][0] == found["settings"][0] == "ok"
    assert found["daemon"][0] == "note" and "ccd up" in found["daemon"][1]


def test_no_login(host: Host) -> None:
    del host.environ["ANTHROPIC_API_KEY"]
    level, text = host.levels()["login"]
    assert level == "fault" and "ccd login" in text


def test_a_damaged_login_file(host: Host) -> None:
    del host.environ["ANTHROPIC_API_KEY"]
    (host.home / ".claude").mkdir()
    (host.home / ".claude" / ".credentials.json").write_text("never read")
    (host.home / ".claude" / ".credentials.json").chmod(0o644)
    (host.home / ".claude.json").write_text('{"half')
    found = host.levels()
    assert found["login"][0] == "fault" and "backups" in found["login"][1]
    assert found["files"][0] == "warning" and "chmod 600" in found["files"][1]


def test_wrong_settings(host: Host) -> None:
    host.environ["CCD_POOL__SPARES"] = "many"
    level, text = host.levels()["settings"]
    assert level == "fault" and "CCD_POOL__SPARES" in text


def test_settings_that_others_may_write(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "ccd.toml"
    file.write_text("")
    file.chmod(0o666)
    host.environ["CCD_CONFIG"] = str(file)
    level, text = host.levels()["settings"]
    assert level == "warning" and f"chmod go-w {file}" in text


def test_no_cli(host: Host) -> None:
    host.environ["CCD_CLI__COMMAND"] = "/nowhere/claude"
    level, text = host.levels()["cli"]
    assert level == "fault" and "ccd cli install" in text


def test_a_file_from_the_future(host: Host) -> None:
    file = host.data / "conversations.db"
    file.touch()
    os.utime(file, (4e9, 4e9))
    level, text = host.levels()["clock"]
    assert level == "warning" and "conversations.db" in text


def test_a_socket_that_nobody_serves(host: Host) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(host.environ["CCD_SOCKET"])
    assert host.levels()["daemon"][0] == "fault"


def test_the_round_trip_uses_nothing_of_the_users(host: Host) -> None:
    command = [sys.executable, "-m", "ccd_cli", "doctor", "--json"]
    done = subprocess.run(command, env=host.environ, capture_output=True, text=True, timeout=110, check=False)
    (found,) = (item for item in json.loads(done.stdout)["findings"] if item["area"] == "round trip")
    assert found["level"] == "ok", found
    assert list(host.home.iterdir()) == [] and list(host.data.iterdir()) == []


def test_the_report_for_people(host: Host) -> None:
    environ = dict.fromkeys(os.environ) | host.environ
    del environ["ANTHROPIC_API_KEY"]
    result = CliRunner().invoke(main, ["doctor", "--no-round-trip"], env=environ)
    assert result.exit_code == 1
    assert "FAIL  login" in result.stdout and "-> ccd login" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("1 fault")
    assert real_cli().name in result.stdout
