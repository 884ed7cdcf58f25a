"""Opening the database, and telling which of its failures is what.

SQLite: write-ahead log, and a sync for every commit, because what was accepted must outlive a power cut. A file that
is damaged is set aside under another name, loudly, and a new one begun: the rest of ccd goes on.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event as sa_event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ccd_protocol.errors import Code, RpcError
from ccd_tasks.store.schema import SCHEMA_VERSION, about, metadata

log = logging.getLogger("ccd.tasks")

_BUSY_MS = 30_000
_DAMAGED = ("malformed", "not a database", "file is encrypted")
_CHECKED_BYTES = 64 << 20  # a larger file is not read through at the start


class DatabaseError(Exception):
    """The database cannot be used; the message says what to do."""


def open_database(url: str) -> sa.Engine:
    """Open it, with tables; a damaged SQLite file is set aside first.

    Raises:
        DatabaseError: it cannot be had, or is of a later version of ccd.
    """
    place = sa.make_url(url)
    if place.get_backend_name() == "sqlite" and place.database:
        _prepare_file(Path(place.database))
    engine = sa.create_engine(place, pool_pre_ping=place.get_backend_name() != "sqlite")
    if engine.dialect.name == "sqlite":
        sa_event.listen(engine, "connect", _configure_sqlite)
    try:
        with engine.begin() as connection:
            _migrate(connection)
    except DatabaseError:
        engine.dispose()
        raise
    except SQLAlchemyError as error:
        engine.dispose()
        raise DatabaseError(f"the tasks database cannot be used: {reason(error)}") from None
    return engine


def _migrate(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7237117)"))  # hosts that start together
    metadata.create_all(connection)
    version = connection.execute(sa.select(about.c.version)).scalar()
    if version is None:
        connection.execute(about.insert().values(version=SCHEMA_VERSION))
    elif version != SCHEMA_VERSION:
        raise DatabaseError(f"the tasks database is of another version of ccd ({version}); use that one")


def _configure_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = "IMMEDIATE"
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")


def _prepare_file(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)
        elif _damaged(path):
            set_aside(path)
    except OSError as error:
        raise DatabaseError(f"cannot use {path}: {error.strerror}") from None


def _damaged(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_MS / 1000)) as connection:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if path.stat().st_size > _CHECKED_BYTES:
                return False
            found = connection.execute("PRAGMA quick_check(1)").fetchone()
            return bool(found and found[0] != "ok")
        except sqlite3.DatabaseError as error:
            return any(word in str(error) for word in _DAMAGED)


def set_aside(path: Path) -> None:
    """Move a damaged file, with what belongs to it, out of the way; nothing is deleted."""
    mark = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for suffix in ("", "-wal", "-shm"):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(path.with_name(f"{path.name}.damaged-{mark}{suffix}"))
    log.error(
        "%s is damaged. It was kept as %s.damaged-%s, and a new one begun: the tasks in it are not run.",
        path,
        path.name,
        mark,
    )
    path.touch(mode=0o600)


def is_damage(error: BaseException) -> bool:
    """Whether a failure says that the file itself is broken."""
    return isinstance(error, DBAPIError) and any(word in str(error.orig) for word in _DAMAGED)


def reason(error: SQLAlchemyError) -> str:
    """What the database said, in one line and without the statement."""
    said = str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__
    return said.strip().splitlines()[0][:300] if said.strip() else type(error).__name__


def storage_error(error: SQLAlchemyError) -> RpcError:
    """The failure of a call that could not be written down, or read: 503 for a server that is away, else 507."""
    if isinstance(error, DBAPIError) and (error.connection_invalidated or "connection" in str(error.orig)):
        return RpcError(
            Code.DRAINING,
            f"The tasks database is away ({reason(error)}). Try again.",
            {"retry_after_ms": 2000},
        )
    return RpcError(
        Code.STORAGE,
        f"The tasks database cannot be used now ({reason(error)}). Nothing was accepted; try later.",
    )
