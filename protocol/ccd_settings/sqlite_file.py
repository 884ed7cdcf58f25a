"""SQLite files of ccd's own: each is opened the one way, and used by one thread.

A file is 0600 in a directory that is made 0700, in write-ahead mode, and has the version of its schema in it. Several
processes may open it at the same time: one of them makes or upgrades it while the others wait, because SQLite itself
does not wait for others in all that this takes. A file of a newer version is left alone. A broken one is an error, or
is set aside for whoever wants to look and begun anew, as its owner says; a full disk or a lock passes, and says nothing
against a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

log = logging.getLogger("ccd.files")

_WAIT_S = 10.0  # for another process's transaction
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PARTS = ("", "-wal", "-shm")


@dataclass(frozen=True)
class Schema:
    """What is in a file.

    Attributes:
        version: of this code.
        script: makes the tables of an empty file; statements that do no harm to a file that has them.
        upgrades: by version, the statement that makes a file of it one of the next.
    """

    version: int
    script: str
    upgrades: Mapping[int, str] = field(default_factory=dict)


def open_file(path: Path, schema: Schema, *, durable: bool, set_aside: bool) -> sqlite3.Connection:
    """Returns the open file, in which every statement is a transaction unless `transaction` says otherwise.

    Args:
        path: made where it does not exist.
        schema: see `Schema`.
        durable: what was committed survives a power cut. Otherwise the last moments may be lost, the file not.
        set_aside: a broken file is kept under another name, and a new one begun.

    Raises:
        OSError: the file or its directory cannot be made.
        sqlite3.Error: it is broken, or of another version.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone_in(path.parent):
        try:
            return _opened(path, schema, durable=durable)
        except sqlite3.DatabaseError as error:
            if not set_aside or getattr(error, "sqlite_errorcode", 0) & 0xFF not in _BROKEN:
                raise
            _set_aside(path, error)
            return _opened(path, schema, durable=durable)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of the block or nothing of it, and nobody else writes meanwhile."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path, schema: Schema, *, durable: bool) -> sqlite3.Connection:
    # SQLite gives its side files the mode of the file itself.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if path.stat().st_uid == os.geteuid():
        path.chmod(0o600)
    db = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        [version] = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, schema.version, *schema.upgrades):
            raise sqlite3.DatabaseError(f"{path} was written by another version of ccd ({version})")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA secure_delete = ON")  # else what was deleted stays in the file, readable
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        db.execute("PRAGMA foreign_keys = ON")
        with transaction(db):
            _bring_up(db, version, schema)
    except BaseException:
        db.close()
        raise
    return db


def _bring_up(db: sqlite3.Connection, version: int, schema: Schema) -> None:
    for older in range(version or schema.version, schema.version):
        db.execute(schema.upgrades[older])
    for statement in schema.script.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {schema.version}")


def _set_aside(path: Path, error: sqlite3.DatabaseError) -> None:
    aside = path.with_suffix(f".broken-{int(time.time())}")
    log.error("%s is broken (%s); it is kept as %s, and a new one is begun", path, error, aside)
    for end in _PARTS:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{end}").rename(f"{aside}{end}")


def wipe(db: sqlite3.Connection) -> None:
    """What was deleted is also gone from the write-ahead log; outside of a transaction, after one that deletes."""
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class OneThread(Generic[T]):
    """A thread of its own for something that blocks, which is opened in it at the first use.

    Nothing is started before, so one can be made before a fork.

    Args:
        name: of the thread.
        opened: opens it.
        closed: closes it.
    """

    def __init__(self, name: str, opened: Callable[[], T], closed: Callable[[T], None]) -> None:
        self._name = name
        self._open = opened
        self._closed = closed
        self._thread: ThreadPoolExecutor | None = None
        self._thing: T | None = None

    def do(
        self, work: Callable[Concatenate[T, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[R]:
        """Have `work` done in the thread. It is done even when whoever waits for the result is cancelled."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, self._name)

        def run() -> R:
            if self._thing is None:
                self._thing = self._open()
            return work(self._thing, *args, **kwargs)

        # Shielded: a cancelled waiter would otherwise take out of the queue what has not begun yet.
        return asyncio.shield(asyncio.wrap_future(self._thread.submit(run)))

    def close(self) -> None:
        """Finish what was begun, and close what was opened. Blocks."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.submit(self._close).result()
            thread.shutdown()

    def _close(self) -> None:
        thing, self._thing = self._thing, None
        try:
            if thing is not None:
                self._closed(thing)
        except (sqlite3.Error, OSError) as error:
            log.error("%s: cannot be closed in order: %s", self._name, error)
