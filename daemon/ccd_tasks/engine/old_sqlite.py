"""What DBOS asks of SQLite and one older than 3.42 does not have: `unixepoch('subsec')`.

With Python 3.12 and newer DBOS takes it for granted; the library that Python is linked with may be older all the same
(Debian 12 has 3.40), and would give NULL. The function is then given to every connection of this process.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

_HAS_SUBSEC = (3, 42)


def teach() -> None:
    """Give what is missing to connections that are opened from now on; calling it again does nothing more."""
    if sqlite3.sqlite_version_info < _HAS_SUBSEC and not event.contains(Engine, "connect", _add_function):
        event.listen(Engine, "connect", _add_function)


def _add_function(connection: Any, record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.create_function("unixepoch", 1, _unixepoch)


def _unixepoch(when: object) -> float | int | None:
    """Seconds since the epoch, by the millisecond as SQLite has them."""
    now_s = time.time()
    if when == "subsec":
        return round(now_s, 3)
    return int(now_s) if when == "now" else None
