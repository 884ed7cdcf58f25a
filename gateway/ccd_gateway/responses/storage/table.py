"""Stored responses in one SQLite file, which all gateway processes share.

A row is one response with the input items of its own; a conversation is the chain of rows that name each
other as previous. Events of background responses are kept as they were sent, several in a row of their own.
Bounded by number, bytes and age: what was used longest ago goes first.

A background response belongs to the process that runs it (`owner`), which has to show that it lives (`beat`).
Whoever reads one whose owner has not for `stale_s` marks it as failed. Beats are read from the machine's
monotonic clock, which all processes share, so setting the time does not kill runs; after a reboot a beat
lies in the future, and counts as stale too.

Every method is blocking and must be called by one thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ccd_settings.sqlite_file import Schema, open_file, transaction, wipe

RUNNING = ("queued", "in_progress")
_MAX_CHAIN = 2000
_MAX_CHAIN_BYTES = 64 << 20
_PRUNE_EVERY = 64
_TABLES = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, previous TEXT, status TEXT NOT NULL,
    background INTEGER NOT NULL, body BLOB NOT NULL, input BLOB NOT NULL, bytes INTEGER NOT NULL,
    used_at REAL NOT NULL, owner TEXT, beat_s REAL);
CREATE INDEX IF NOT EXISTS responses_used ON responses (used_at, bytes);
CREATE INDEX IF NOT EXISTS responses_owner ON responses (owner) WHERE owner IS NOT NULL;
CREATE TABLE IF NOT EXISTS items (
    tenant TEXT NOT NULL, id TEXT NOT NULL, response TEXT NOT NULL REFERENCES responses ON DELETE CASCADE,
    PRIMARY KEY (tenant, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_response ON items (response);
CREATE TABLE IF NOT EXISTS events (
    response TEXT NOT NULL REFERENCES responses ON DELETE CASCADE, first INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (response, first)) WITHOUT ROWID;
"""
_SCHEMA = Schema(1, _TABLES)


@dataclass(frozen=True)
class Bounds:
    """How much is kept, and for how long an owner may be silent."""

    max_responses: int = 10_000
    max_bytes: int = 512 << 20
    max_age_s: float = 30 * 86400
    stale_s: float = 15.0


class StoredResponse(NamedTuple):
    """One row. `body` is the response object, `input` the list of its own input items, both as JSON."""

    id: str
    previous: str | None
    status: str
    background: bool
    body: bytes
    input: bytes

    @property
    def running(self) -> bool:
        """Whether it is still to change."""
        return self.status in RUNNING


class BrokenChainError(LookupError):
    """A response of a chain is not stored (any more); `args[0]` is its id."""


class LongChainError(ValueError):
    """A chain is too long to be sent to a model, whatever its context."""


# The body and the event of a response whose process died: made of its last body and the event's number.
Obituary = Callable[[bytes, int], tuple[bytes, bytes]]
_COLUMNS = "id, previous, status, background, body, input"


class ResponseTable:
    """The file, opened.

    Args:
        path: created with mode 0600 where it does not exist.
        bounds: what is kept.
        obituary: see `Obituary`.

    Raises:
        OSError: the file or its directory cannot be made.
        sqlite3.Error: the file is of another version.
    """

    def __init__(self, path: Path, bounds: Bounds, obituary: Obituary) -> None:
        self._bounds = bounds
        self._obituary = obituary
        self._until_prune = 0
        self._db = open_file(path, _SCHEMA, durable=False, set_aside=True)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # --- writing ---

    def put(
        self,
        tenant: str,
        row: StoredResponse,
        item_ids: Sequence[str],
        now: float,
        *,
        owner: str | None = None,
        beat_s: float = 0.0,
        events: bytes = b"",
    ) -> None:
        """Store a response. With an owner it is one that runs, and its first events come along."""
        with transaction(self._db):
            self._db.execute(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(row.id, tenant, row.previous, row.status, row.background, row.body, row.input),
                    *(len(row.body) + len(row.input) + len(events), now, owner, beat_s),
                ),
            )
            self._add_items(tenant, row.id, item_ids)
            if events:
                self._db.execute("INSERT INTO events VALUES (?, 0, ?)", (row.id, events))
        self._until_prune -= 1
        if self._until_prune < 0:
            self._until_prune = _PRUNE_EVERY
            self.prune(now)

    def _add_items(self, tenant: str, response: str, item_ids: Sequence[str]) -> None:
        rows = [(tenant, item_id, response) for item_id in item_ids]
        self._db.executemany("INSERT OR IGNORE INTO items VALUES (?, ?, ?)", rows)

    def append(
        self,
        id: str,
        owner: str,
        first: int,
        events: bytes,
        beat_s: float,
        *,
        status: str = "in_progress",
        body: bytes | None = None,
        item_ids: Sequence[str] = (),
    ) -> bool:
        """Add events to a running response; with a body it gets that, and `status`, too.

        Args:
            id: the response.
            owner: who runs it.
            first: the number of the first of the events.
            events: as they are sent.
            beat_s: the machine's monotonic clock.
            status: what the response now is.
            body: what it now says.
            item_ids: of its output, when it is complete.

        Returns:
            False when it does not run any more: it was cancelled, deleted, or given up.
        """
        with transaction(self._db):
            changed = self._db.execute(
                "UPDATE responses SET bytes = bytes + ?, beat_s = ?, status = ?, body = coalesce(?, body)"
                " WHERE id = ? AND owner = ? AND status IN (?, ?) RETURNING tenant",
                (len(events) + len(body or b""), beat_s, status, body, id, owner, *RUNNING),
            ).fetchone()
            if changed is None:
                return False
            self._db.execute("INSERT INTO events VALUES (?, ?, ?)", (id, first, events))
            self._add_items(changed[0], id, item_ids)
        return True

    def end(self, id: str, tenant: str, status: str, body: bytes) -> bool:
        """Give a running response its end from outside (`cancel`); False when it has ended before."""
        with transaction(self._db):
            done = self._db.execute(
                "UPDATE responses SET status = ?, body = ? WHERE id = ? AND tenant = ? AND status IN (?, ?)",
                (status, body, id, tenant, *RUNNING),
            )
            return done.rowcount > 0

    def beat(self, owner: str, beat_s: float) -> set[str]:
        """Show that the owner lives; the ids that it is still to run."""
        with transaction(self._db):
            rows = self._db.execute(
                "UPDATE responses SET beat_s = ? WHERE owner = ? AND status IN (?, ?) RETURNING id",
                (beat_s, owner, *RUNNING),
            ).fetchall()
        return {row[0] for row in rows}

    def delete(self, tenant: str, id: str) -> bool:
        """Forget a response; False when there is none."""
        with transaction(self._db):
            done = self._db.execute("DELETE FROM responses WHERE id = ? AND tenant = ?", (id, tenant))
        if done.rowcount:
            wipe(self._db)
        return done.rowcount > 0

    def prune(self, now: float) -> int:
        """Delete what is too old or too much; the number of responses that went."""
        oldest = now - self._bounds.max_age_s
        with transaction(self._db):
            gone = self._db.execute("DELETE FROM responses WHERE used_at < ?", (oldest,)).rowcount
            gone += self._db.execute(
                "DELETE FROM responses WHERE id IN (SELECT id FROM (SELECT id,"
                " row_number() OVER newest AS place, sum(bytes) OVER newest AS total FROM responses"
                " WINDOW newest AS (ORDER BY used_at DESC, id ROWS UNBOUNDED PRECEDING))"
                " WHERE place > ? OR total > ?)",
                (self._bounds.max_responses, self._bounds.max_bytes),
            ).rowcount
        if gone:
            self._db.execute("PRAGMA incremental_vacuum").fetchall()
            wipe(self._db)
        return gone

    # --- reading ---

    def ready(self) -> None:
        """Fail as anything else would if the file cannot be used."""
        self._db.execute("SELECT 1 FROM responses LIMIT 0").fetchall()

    def get(self, tenant: str, id: str, beat_s: float) -> StoredResponse | None:
        """A response, after a look whether its owner still lives."""
        row = self._row(tenant, id)
        if row is not None and row.running and self._bury(row, beat_s):
            row = self._row(tenant, id)
        return row

    def _row(self, tenant: str, id: str) -> StoredResponse | None:
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM responses WHERE id = ? AND tenant = ?", (id, tenant)
        ).fetchone()
        return None if found is None else StoredResponse._make((*found[:3], bool(found[3]), *found[4:]))

    def _bury(self, row: StoredResponse, beat_s: float) -> bool:
        """Mark a response as failed if its owner is gone; True when something may have changed."""
        with transaction(self._db):
            found = self._db.execute(
                "SELECT status, body, beat_s FROM responses WHERE id = ?", (row.id,)
            ).fetchone()
            if found is None or found[0] not in RUNNING:
                return True
            if abs(beat_s - found[2]) <= self._bounds.stale_s:
                return False
            last = self._db.execute(
                "SELECT first, data FROM events WHERE response = ? ORDER BY first DESC LIMIT 1", (row.id,)
            ).fetchone()
            first = last[0] + last[1].count(b"\n\n") if last else 0
            body, event = self._obituary(found[1], first)
            self._db.execute("UPDATE responses SET status = 'failed', body = ? WHERE id = ?", (body, row.id))
            self._db.execute("INSERT INTO events VALUES (?, ?, ?)", (row.id, first, event))
        return True

    def chain(self, tenant: str, id: str, now: float) -> list[StoredResponse]:
        """A response and all before it, oldest first; all count as used now.

        Raises:
            BrokenChainError: one of them is not there.
            LongChainError: there are too many, or they are too large.
        """
        found: list[StoredResponse] = []
        size = 0
        wanted: str | None = id
        while wanted is not None:
            row = self._row(tenant, wanted)
            if row is None:
                raise BrokenChainError(wanted)
            size += len(row.body) + len(row.input)
            if len(found) >= _MAX_CHAIN or size > _MAX_CHAIN_BYTES:
                raise LongChainError(id)
            found.append(row)
            wanted = row.previous
        ids = [(now, row.id) for row in found]
        with transaction(self._db):
            self._db.executemany("UPDATE responses SET used_at = ? WHERE id = ?", ids)
        return found[::-1]

    def holder(self, tenant: str, item_id: str) -> StoredResponse | None:
        """The response that an item is of."""
        found = self._db.execute(
            "SELECT response FROM items WHERE tenant = ? AND id = ?", (tenant, item_id)
        ).fetchone()
        return None if found is None else self._row(tenant, found[0])

    def events(self, id: str, after: int) -> bytes:
        """The stored events whose number is larger than `after`."""
        rows = self._db.execute(
            "SELECT first, data FROM events WHERE response = ? AND first >= coalesce("
            "(SELECT max(first) FROM events WHERE response = ? AND first <= ?), 0) ORDER BY first",
            (id, id, after + 1),
        ).fetchall()
        if not rows:
            return b""
        skipped = max(0, after + 1 - rows[0][0])
        head = rows[0][1].split(b"\n\n")[skipped:]  # JSON has no line ends, so this cuts between events only
        return b"\n\n".join(head) + b"".join(row[1] for row in rows[1:])
