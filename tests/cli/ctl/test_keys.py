"""`ccd ctl keys` and `ccd ctl usage`, without a daemon."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result

from ccd_cli.root import main
from ccd_gateway.access.keyfile import find, read
from ccd_gateway.access.ledger import Ledger, Used


class Ccd:
    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.path = self.data / "keys.json"
        self.environ = {"HOME": str(folder), "CCD_DATA__DIR": str(self.data), "CCD_CONFIG": ""}

    def __call__(self, *arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(main, ["ctl", *arguments], env=self.environ)
        assert result.exit_code == status, result.output
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)


@pytest.fixture
def ccd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ccd:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return Ccd(tmp_path)


def test_the_secret_is_shown_once(ccd: Ccd) -> None:
    made = ccd("keys", "create", "app")
    token = made.stdout.strip()
    assert re.fullmatch(r"ccd_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", token)
    assert find(read(ccd.path), token, time.time()) is not None
    assert ccd.path.stat().st_mode & 0o777 == 0o600
    listed = ccd("keys", "list")
    assert "app" in listed.stdout and token not in listed.output
    assert token not in json.dumps(ccd.json("keys", "list"))


def test_lists_shorten_nothing(ccd: Ccd) -> None:
    name = "n" * 64
    ccd("keys", "create", name, "--scope", "chat", "--scope", "agent", "--model", "claude-haiku-4-5")
    [row] = ccd.json("keys", "list")
    [_, line] = ccd("keys", "list").stdout.splitlines()
    assert line.split()[:7] == [name, row["id"], name, "chat", "agent", "chat", "claude-haiku-4-5"]


def test_everything_that_a_key_may_have(ccd: Ccd) -> None:
    limits = [
        "--requests-per-minute",
        "60",
        "--tokens-per-minute",
        "9000",
        "--concurrent",
        "3",
        "--usd-per-day",
        "2.5",
    ]
    may = [
        "--profile",
        "chat",
        "--profile",
        "agent",
        "--model",
        "claude-*",
        "--scope",
        "chat",
        "--scope",
        "agent",
    ]
    made = ccd.json("keys", "create", "app", "--tenant", "team", *may, *limits, "--expires", "2030-01-31")
    token = made.pop("token")
    [listed] = ccd.json("keys", "list")
    assert listed == made
    assert listed == {
        "name": "app",
        "id": token.split("_")[1],
        "tenant": "team",
        "scopes": ["chat", "agent"],
        "profiles": ["chat", "agent"],
        "models": ["claude-*"],
        "requests_per_minute": 60,
        "tokens_per_minute": 9000,
        "concurrent": 3,
        "usd_per_day": 2.5,
        "created": listed["created"],
        "expires": "2030-02-01T00:00:00+00:00",
    }
    assert find(read(ccd.path), token, time.time()) is not None


def test_a_period_of_validity(ccd: Ccd) -> None:
    ccd("keys", "create", "app", "--expires", "12h")
    [key] = read(ccd.path).values()
    assert key.expires == pytest.approx(time.time() + 12 * 3600, abs=60)


def test_revoking_by_name_and_by_id(ccd: Ccd) -> None:
    ccd("keys", "create", "one")
    ccd("keys", "create", "two")
    assert "last key" not in ccd("keys", "revoke", "one").output
    [key] = read(ccd.path).values()
    assert "last key" in ccd("keys", "revoke", key.id).stderr
    assert read(ccd.path) == {}
    assert "ccd ctl keys create" in ccd("keys", "list").stderr


def test_rotating(ccd: Ccd) -> None:
    old = ccd("keys", "create", "app", "--concurrent", "2").stdout.strip()
    new = ccd("keys", "rotate", "app").stdout.strip()
    keys = read(ccd.path)
    assert find(keys, old, time.time()) is None
    key = find(keys, new, time.time())
    assert key is not None and key.concurrent == 2


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["create", "a b"], 1, "cannot be made"),
        (["create", "app", "--concurrent", "0"], 1, "concurrent"),
        (["create", "app", "--scope", "all"], 1, "there are: chat, agent, stats"),
        (["create", "app", "--expires", "soon"], 2, "2026-11-01"),
        (["revoke", "nobody"], 1, "ccd ctl keys list"),
        (["rotate", "nobody"], 1, "ccd ctl keys list"),
        (["create"], 2, "NAME"),
    ],
)
def test_refusals(ccd: Ccd, arguments: list[str], status: int, says: str) -> None:
    assert says in ccd("keys", *arguments, status=status).stderr
    assert read(ccd.path) == {}


def test_names_are_used_once(ccd: Ccd) -> None:
    ccd("keys", "create", "app")
    assert "rotate" in ccd("keys", "create", "app", status=1).stderr
    assert len(read(ccd.path)) == 1


def test_a_file_that_others_may_read(ccd: Ccd) -> None:
    ccd("keys", "create", "app")
    ccd.path.chmod(0o644)
    for arguments in (["list"], ["create", "b"], ["revoke", "app"]):
        assert "chmod 600" in ccd("keys", *arguments, status=1).stderr


def test_the_setting_and_the_flag_name_the_file(ccd: Ccd, tmp_path: Path) -> None:
    ccd.environ["CCD_GATEWAY__KEYS_FILE"] = str(tmp_path / "elsewhere.json")
    ccd("keys", "create", "one")
    ccd("keys", "create", "two", "--keys-file", str(tmp_path / "third.json"))
    assert [key.name for key in read(tmp_path / "elsewhere.json").values()] == ["one"]
    assert [key.name for key in read(tmp_path / "third.json").values()] == ["two"]


def test_usage(ccd: Ccd) -> None:
    assert ccd.json("usage") == []
    ccd("keys", "create", "app")
    [key] = read(ccd.path).values()
    ledger = Ledger(ccd.data / "usage.sqlite3")
    now = time.time()
    for day in (0, 3):
        ledger.end(key, Used("claude-x", 1000, 50, 200, 2005, 0.25), now - day * 86400)
    assert len(ccd.json("usage")) == 1
    assert len(ccd.json("usage", "--since", "3d")) == 2
    since = datetime.fromtimestamp(now - 3 * 86400, UTC).date().isoformat()
    rows = ccd.json("usage", "--since", since)
    assert rows[0] == {
        "day": since,
        "key": "app",
        "key_id": key.id,
        "tenant": "app",
        "model": "claude-x",
        "requests": 1,
        "input_tokens": 1000,
        "cached_tokens": 50,
        "output_tokens": 200,
        "cost_usd": 0.25,
    }
    table = ccd("usage", "--since", since).stdout
    assert re.search(r"total\s+2\s+2000\s+100\s+400\s+0\.5000", table)
    ledger.close()
    ccd("keys", "revoke", "app")
    assert len(ccd.json("usage", "--since", since)) == 2
    assert "2026-11-01" in ccd("usage", "--since", "yesterday", status=2).stderr


def run_ccd(ccd: Ccd, *arguments: str, stdout: IO[bytes] | int, file_bytes: int = -1) -> tuple[int, str]:
    """The command as a process of its own, whose files may grow to so many bytes."""
    command = [sys.executable, "-m", "ccd_cli", "ctl", "keys", *arguments]
    if file_bytes >= 0:
        command = ["prlimit", f"--fsize={file_bytes}", *command]
    environ = {**ccd.environ, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, env=environ, stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("command", ["create", "rotate"])
def test_a_disk_that_is_full_is_one_line_and_changes_nothing(ccd: Ccd, command: str) -> None:
    ccd("keys", "create", "app")
    before = ccd.path.read_bytes()
    name = "other" if command == "create" else "app"
    status, said = run_ccd(ccd, command, name, stdout=subprocess.PIPE, file_bytes=100)
    assert status == 1
    assert said.startswith(f"ccd: cannot write the keys file {ccd.path}: ") and said.count("\n") == 1
    assert ccd.path.read_bytes() == before
    assert [entry.name for entry in ccd.data.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize("command", ["create", "rotate"])
def test_a_key_that_cannot_be_shown_is_not_made(ccd: Ccd, command: str, more: tuple[str, ...]) -> None:
    ccd("keys", "create", "app")
    before = ccd.path.read_bytes()
    with Path("/dev/full").open("wb") as full:
        status, said = run_ccd(ccd, command, "other" if command == "create" else "app", *more, stdout=full)
    assert status == 1
    assert said == "ccd: the key cannot be shown, so none was made: No space left on device\n"
    assert ccd.path.read_bytes() == before
