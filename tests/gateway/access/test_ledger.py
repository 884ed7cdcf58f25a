"""The ledger: what holds across processes, restarts and kills, and what is booked."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ccd_gateway.access.keyfile import Key, make
from ccd_gateway.access.ledger import Ledger, Used, day_of, read_usage

NOON = 1_793_534_400.0  # 2026-11-01 12:00 UTC
USED = Used("claude-x", 100, 10, 20, 201.0, 0.002)


def key_with(**limits: object) -> Key:
    return make("app", **limits)[0]  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.sqlite3"


def test_the_file_is_its_owners_alone(path: Path) -> None:
    ledger = Ledger(path)
    ledger.end(key_with(), USED, NOON)
    assert {entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()} == {0o600}
    ledger.close()


def test_two_processes_share_a_limit(path: Path) -> None:
    key = key_with(requests_per_minute=3)
    one, two = Ledger(path), Ledger(path)
    assert [ledger.begin(key, NOON).refused for ledger in (one, two, one, two)] == [
        None,
        None,
        None,
        "requests",
    ]
    verdict = one.begin(key, NOON)
    assert verdict.wait_s == pytest.approx(20)
    assert dict(verdict.headers)[b"x-ratelimit-remaining-requests"] == b"0"
    assert two.begin(key, NOON + 20).refused is None
    one.close()
    two.close()


def test_limits_outlive_a_restart(path: Path) -> None:
    key = key_with(requests_per_minute=1, usd_per_day=0.003)
    ledger = Ledger(path)
    assert ledger.begin(key, NOON).refused is None
    ledger.end(key, USED, NOON)
    ledger.close()
    ledger = Ledger(path)
    assert ledger.begin(key, NOON + 1).refused == "requests"
    assert ledger.begin(key, NOON + 60).refused is None
    ledger.end(key, USED, NOON + 60)
    assert ledger.begin(key, NOON + 120).refused == "budget"
    assert ledger.begin(key, NOON + 12 * 3600).refused is None
    ledger.close()


def test_tokens_are_paid_afterwards(path: Path) -> None:
    key = key_with(tokens_per_minute=100)
    ledger = Ledger(path)
    assert ledger.begin(key, NOON).refused is None
    ledger.end(key, USED, NOON)  # 120 of 100
    verdict = ledger.begin(key, NOON)
    assert verdict.refused == "tokens" and verdict.wait_s == pytest.approx(12.6)
    assert ledger.begin(key, NOON + 13).refused is None
    ledger.close()


def test_answers_that_are_open_at_a_time(path: Path) -> None:
    key = key_with(concurrent=2)
    one, two = Ledger(path), Ledger(path)
    assert [one.begin(key, NOON).refused, two.begin(key, NOON).refused] == [None, None]
    assert one.begin(key, NOON).refused == "concurrent"
    two.end(key, None, NOON)
    assert one.begin(key, NOON).refused is None
    one.close()
    two.close()
    ledger = Ledger(path)
    assert ledger.begin(key, NOON).refused is None
    ledger.close()


def other_process(path: Path, key: Key, call: str) -> subprocess.Popen[bytes]:
    """Another process that does something with the ledger, prints what comes of it, and then waits."""
    script = (
        "import os, sys; from pathlib import Path; import msgspec;"
        "from ccd_gateway.access.keyfile import Key; from ccd_gateway.access.ledger import Ledger;"
        "key = msgspec.json.decode(sys.argv[2], type=Key);"
        f"print(Ledger(Path(sys.argv[1])).{call}, flush=True); sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path), msgspec.json.encode(key).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_answers_of_a_killed_process_stop_to_count(path: Path) -> None:
    key = key_with(concurrent=1)
    child = other_process(path, key, "begin(key, 1.0).refused")
    assert child.stdout is not None and child.stdout.readline() == b"None\n"
    ledger = Ledger(path)
    assert ledger.begin(key, NOON).refused == "concurrent"
    child.kill()
    child.communicate()
    assert ledger.begin(key, NOON).refused is None
    ledger.close()


def test_what_runs_in_another_process_counts_until_that_is_killed(path: Path) -> None:
    key = key_with(usd_per_day=0.5)
    child = other_process(path, key, f"spent(key, {NOON}, 0.4)")
    assert child.stdout is not None and child.stdout.readline() == b"0.0\n"
    ledger = Ledger(path)
    assert ledger.spent(key, NOON) == pytest.approx(0.4)
    assert ledger.begin(key, NOON, 0.05).refused is None
    assert ledger.begin(key, NOON, 0.1).refused == "budget"
    child.kill()
    child.communicate()
    assert ledger.spent(key, NOON) == 0
    ledger.close()


def test_a_file_from_before_running_answers_were_counted(path: Path) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE running")
    db.close()
    ledger = Ledger(path)
    assert ledger.spent(key_with(usd_per_day=1.0), NOON, 0.5) == 0
    ledger.close()


def test_usage_is_booked_by_day_key_and_model(path: Path) -> None:
    key, other = key_with(), make("other", tenant="team")[0]
    ledger = Ledger(path)
    ledger.end(key, USED, NOON)
    ledger.end(key, USED, NOON)
    ledger.end(key, USED._replace(model="claude-y"), NOON)
    ledger.end(other, USED, NOON + 86400)
    ledger.end(other, None, NOON + 86400)
    rows = read_usage(path, "2026-11-01")
    assert [(row.day, row.key, row.tenant, row.model, row.requests) for row in rows] == [
        ("2026-11-01", "app", "app", "claude-x", 2),
        ("2026-11-01", "app", "app", "claude-y", 1),
        ("2026-11-02", "other", "team", "claude-x", 1),
    ]
    assert rows[0][6:] == (200, 20, 40, 0.004)
    assert len(read_usage(path, "2026-11-02")) == 1
    assert ledger.spent(key, NOON) == pytest.approx(0.006) and ledger.spent(other, NOON) == 0
    ledger.close()


def test_prices_are_learned(path: Path) -> None:
    ledger = Ledger(path)
    assert ledger.prices(NOON) == {}
    ledger.end(key_with(), USED, NOON)
    assert ledger.prices(NOON) == {"claude-x": pytest.approx(0.002 / 201)}
    assert ledger.prices(NOON + 40 * 86400) == {}
    ledger.close()


def test_a_file_of_another_version_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(sqlite3.DatabaseError, match="another version"):
        Ledger(path)


def test_no_file_no_usage(path: Path) -> None:
    assert read_usage(path, "2026-11-01") == []


def test_days_are_utc() -> None:
    assert day_of(NOON) == "2026-11-01" and day_of(NOON + 12 * 3600) == "2026-11-02"
