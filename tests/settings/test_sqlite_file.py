"""How ccd's own database files are opened, and the thread that uses one."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ccd_settings.sqlite_file import OneThread, Schema, open_file, transaction

ONE = Schema(1, "CREATE TABLE IF NOT EXISTS word (text TEXT)")
TWO = Schema(
    2,
    "CREATE TABLE IF NOT EXISTS word (text TEXT, language TEXT)",
    {1: "ALTER TABLE word ADD COLUMN language TEXT"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "words.db"


def opened(path: Path, schema: Schema = ONE, *, set_aside: bool = False) -> sqlite3.Connection:
    return open_file(path, schema, durable=False, set_aside=set_aside)


def test_nobody_else_can_read_it_or_what_lies_beside_it(path: Path) -> None:
    umask = os.umask(0)
    try:
        db = opened(path)
    finally:
        os.umask(umask)
    db.execute("INSERT INTO word VALUES ('a')")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("words.db", "words.db-wal", "words.db-shm"), 0o600)
    db.close()


def test_a_file_that_others_can_read_is_closed_to_them(path: Path) -> None:
    opened(path).close()
    path.chmod(0o644)
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 1)])
def test_how_safe_it_is_from_a_power_cut(path: Path, durable: bool, level: int) -> None:
    db = open_file(path, ONE, durable=durable, set_aside=False)
    assert db.execute("PRAGMA synchronous").fetchone() == (level,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_an_older_file_is_upgraded_and_a_newer_one_left_alone(path: Path) -> None:
    db = opened(path, ONE)
    db.execute("INSERT INTO word VALUES ('a')")
    db.close()
    db = opened(path, TWO)
    assert db.execute("SELECT * FROM word").fetchall() == [("a", None)]
    db.close()
    before = path.read_bytes()
    with pytest.raises(sqlite3.DatabaseError, match="another version of ccd \\(2\\)"):
        opened(path, ONE, set_aside=True)
    assert path.read_bytes() == before


def test_a_broken_file_is_set_aside_only_where_its_owner_says_so(path: Path) -> None:
    opened(path).close()
    path.write_bytes(b"no database at all, " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        opened(path)
    assert path.read_bytes().startswith(b"no database")
    db = opened(path, set_aside=True)
    assert db.execute("SELECT * FROM word").fetchall() == []
    db.close()
    [aside] = path.parent.glob("words.broken-*")
    assert aside.read_bytes().startswith(b"no database") and stat.S_IMODE(aside.stat().st_mode) == 0o600


def test_many_processes_may_make_it_at_the_same_time(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ccd_settings.sqlite_file import *;"
        "sys.stdin.read(); db = open_file(Path(sys.argv[1]), Schema(1, 'CREATE TABLE IF NOT EXISTS word (text TEXT)'),"
        " durable=False, set_aside=True); db.execute('INSERT INTO word VALUES (?)', sys.argv[2:])"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", script, str(path), str(n)], stdin=subprocess.PIPE)
        for n in range(6)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    assert [child.wait(60) for child in children] == [0] * 6
    db = opened(path)
    assert db.execute("SELECT count(*) FROM word").fetchone() == (6,)
    db.close()


def test_a_transaction_is_whole_or_nothing(path: Path) -> None:
    db = opened(path)
    with pytest.raises(ZeroDivisionError), transaction(db):
        db.execute("INSERT INTO word VALUES ('a')")
        raise ZeroDivisionError
    with transaction(db):
        db.execute("INSERT INTO word VALUES ('b')")
    assert db.execute("SELECT text FROM word").fetchall() == [("b",)]
    db.close()


def test_all_is_done_in_one_thread_which_ends() -> None:
    seen: list[tuple[str, str]] = []

    def note(what: str) -> str:
        seen.append((what, threading.current_thread().name))
        return what

    thread = OneThread("ccd-test", lambda: note("open"), lambda thing: seen.append(("close", note(thing))))
    thread.close()  # before its first use: nothing was opened
    assert seen == []

    async def use() -> None:
        assert await thread.do(lambda thing, more: thing + more, "ed") == "opened"
        abandoned = thread.do(lambda thing: note("done all the same"))
        abandoned.cancel()

    asyncio.run(use())
    thread.close()
    assert [what for what, _ in seen] == ["open", "done all the same", "open", "close"]
    assert {name for what, name in seen if what != "close"} == {"ccd-test_0"}
    assert not any(living.name.startswith("ccd-test") for living in threading.enumerate())


def test_what_cannot_be_opened_is_tried_again_at_the_next_use() -> None:
    tries: list[int] = []

    def opened() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no room")
        return "open"

    thread = OneThread("ccd-test", opened, lambda thing: None)

    async def use() -> None:
        with pytest.raises(OSError, match="no room"):
            await thread.do(str)
        assert await thread.do(str) == "open"

    asyncio.run(use())
    thread.close()
