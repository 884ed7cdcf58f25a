"""The file of stored responses: bounds, chains, owners, tenants."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ccd_gateway.responses.runs import obituary
from ccd_gateway.responses.storage.table import (
    Bounds,
    BrokenChainError,
    LongChainError,
    ResponseTable,
    StoredResponse,
)

CREATED = b'event: response.created\ndata: {"sequence_number":0}\n\n'


def row(id: str, previous: str | None = None, status: str = "completed", size: int = 100) -> StoredResponse:
    body = json.dumps({"id": id, "status": status, "output": [], "pad": "x" * size}).encode()
    return StoredResponse(id, previous, status, status != "completed", body, b"[]")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "responses.sqlite3"


@pytest.fixture
def table(path: Path) -> Iterator[ResponseTable]:
    table = ResponseTable(path, Bounds(5, 4000, 1000.0, 15.0), obituary)
    yield table
    table.close()


def ids(table: ResponseTable) -> list[str]:
    return [n for n in "abcdefghij" if table.get("t", n, 0.0) is not None]


def test_files_are_private(path: Path, table: ResponseTable) -> None:
    table.put("t", row("a"), [], 1.0)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_too_many_go_oldest_first(table: ResponseTable) -> None:
    for now, id in enumerate("abcdefg"):
        table.put("t", row(id), [], float(now))
    table.chain("t", "c", 10.0)  # used again
    table.prune(10.0)
    assert ids(table) == ["c", "d", "e", "f", "g"]
    table.put("t", row("h"), [], 11.0)
    table.prune(11.0)
    assert ids(table) == ["c", "e", "f", "g", "h"]


def test_too_many_bytes_go_oldest_first(table: ResponseTable) -> None:
    for now, id in enumerate("abc"):
        table.put("t", row(id, size=1500), [], float(now))
    assert table.prune(3.0) == 1
    assert ids(table) == ["b", "c"]


def test_what_is_too_old_goes(table: ResponseTable) -> None:
    table.put("t", row("a"), ["item"], 0.0)
    table.put("t", row("b"), [], 500.0)
    table.prune(1001.0)
    assert ids(table) == ["b"]
    assert table.holder("t", "item") is None


def test_it_is_pruned_by_itself(path: Path) -> None:
    table = ResponseTable(path, Bounds(3, 1 << 20), obituary)
    for now in range(200):
        table.put("t", row(f"r{now}"), [], float(now))
    with contextlib.closing(sqlite3.connect(path)) as db:
        (count,) = db.execute("SELECT count(*) FROM responses").fetchone()
    table.close()
    assert count < 3 + 70


def test_tenants_see_nothing_of_each_other(table: ResponseTable) -> None:
    table.put("t", row("a"), ["item"], 0.0)
    table.put("u", row("b"), ["item"], 0.0)
    assert table.get("u", "a", 0.0) is None
    assert not table.delete("u", "a")
    assert not table.end("a", "u", "cancelled", b"{}")
    found = table.holder("u", "item")
    assert found is not None and found.id == "b"
    with pytest.raises(BrokenChainError):
        table.chain("u", "a", 0.0)
    table.put("u", row("c", previous="a"), [], 0.0)
    with pytest.raises(BrokenChainError, match="a"):
        table.chain("u", "c", 0.0)


def test_a_chain_is_oldest_first(table: ResponseTable) -> None:
    for id, previous in (("a", None), ("b", "a"), ("c", "b")):
        table.put("t", row(id, previous), [], 0.0)
    assert [found.id for found in table.chain("t", "c", 1.0)] == ["a", "b", "c"]
    table.delete("t", "a")
    with pytest.raises(BrokenChainError) as broken:
        table.chain("t", "c", 1.0)
    assert broken.value.args == ("a",)


def test_a_chain_has_an_end(path: Path) -> None:
    table = ResponseTable(path, Bounds(), obituary)
    table.put("t", row("a", size=33 << 20), [], 0.0)
    table.put("t", row("b", "a", size=33 << 20), [], 0.0)
    assert len(table.chain("t", "a", 1.0)) == 1
    with pytest.raises(LongChainError):
        table.chain("t", "b", 1.0)
    for number in range(2000):
        table.put("t", row(f"n{number}", f"n{number - 1}" if number else None, size=0), [], 0.0)
    assert len(table.chain("t", "n1999", 1.0)) == 2000
    table.put("t", row("last", "n1999"), [], 0.0)
    with pytest.raises(LongChainError):
        table.chain("t", "last", 1.0)
    table.close()


def begin(table: ResponseTable, id: str = "a") -> None:
    table.put("t", row(id, status="queued"), [], 0.0, owner="me", beat_s=100.0, events=CREATED)


def event(number: int) -> bytes:
    return b'event: x\ndata: {"sequence_number":%d}\n\n' % number


def test_events_after_any_number(table: ResponseTable) -> None:
    begin(table)
    assert table.append("a", "me", 1, event(1) + event(2), 100.0)
    assert table.append("a", "me", 3, event(3), 100.0)
    every = [CREATED, event(1), event(2), event(3)]
    for after in range(-1, 6):
        assert table.events("a", after) == b"".join(every[after + 1 :])
    assert table.events("nobody", -1) == b""


def test_only_the_owner_of_what_runs_may_write(table: ResponseTable) -> None:
    begin(table)
    assert not table.append("a", "other", 1, event(1), 100.0)
    assert table.append("a", "me", 1, event(1), 100.0, status="completed", body=b'{"x":1}', item_ids=["i"])
    assert not table.append("a", "me", 2, event(2), 100.0)
    found = table.get("t", "a", 1e9)
    assert found is not None and (found.status, found.body) == ("completed", b'{"x":1}')
    assert table.holder("t", "i") == found
    assert table.events("a", 0) == event(1)


def test_what_was_cancelled_or_deleted_stops(table: ResponseTable) -> None:
    begin(table, "a")
    begin(table, "b")
    assert table.beat("me", 101.0) == {"a", "b"}
    assert table.end("a", "t", "cancelled", b"{}")
    assert not table.end("a", "t", "cancelled", b"{}")
    assert table.delete("t", "b")
    assert table.beat("me", 102.0) == set()
    assert not table.append("a", "me", 1, event(1), 103.0)
    assert not table.append("b", "me", 1, event(1), 103.0)


@pytest.mark.parametrize(("now", "dead"), [(100.0, False), (114.0, False), (116.0, True), (3.0, True)])
def test_an_owner_that_is_silent_has_died(table: ResponseTable, now: float, dead: bool) -> None:
    """A beat that lies in the future is one from before the machine was started again."""
    begin(table)
    table.append("a", "me", 1, event(1) + event(2), 100.0)
    found = table.get("t", "a", now)
    assert found is not None and found.status == ("failed" if dead else "in_progress")
    if dead:
        assert json.loads(found.body)["error"]["code"] == "server_error"
        last = table.events("a", 2)
        assert last.startswith(b"event: error\n") and b'"sequence_number":3' in last
        assert not table.append("a", "me", 3, event(3), now)


def test_a_file_of_another_version_is_left_alone(path: Path, table: ResponseTable) -> None:
    table.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(sqlite3.DatabaseError, match="99"):
        ResponseTable(path, Bounds(), obituary)


def test_many_open_it_at_once(path: Path) -> None:
    def one(number: int) -> None:
        table = ResponseTable(path, Bounds(), obituary)
        for count in range(20):
            table.put("t", row(f"{number}-{count}"), [], 0.0)
        table.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, range(8)))
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM responses").fetchone() == (160,)
    db.close()
