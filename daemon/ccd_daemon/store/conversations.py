"""Named conversations, kept in SQLite so that they survive restarts.

Theory of operation. One thread owns the database; the event loop only waits for it. Every row belongs to a tenant, and
a conversation of another tenant is the same as one that does not exist. The turns of one conversation are put in
order by a lock each: a turn reads the history, asks the model, and appends question and answer in one transaction, so
that a crash leaves the conversation as it was before the turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from ccd_daemon.config import ConversationSettings
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ConversationInfo, Message
from ccd_settings.sqlite_file import OneThread, Schema, open_file, transaction, wipe

T = TypeVar("T")
log = logging.getLogger("ccd.conversations")

_TABLES = """
CREATE TABLE IF NOT EXISTS conversation (
    number INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    system TEXT,
    metadata TEXT NOT NULL,
    total_tokens INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, id)
);
CREATE INDEX IF NOT EXISTS conversation_by_age ON conversation (updated_at);
CREATE TABLE IF NOT EXISTS message (
    conversation INTEGER NOT NULL REFERENCES conversation (number) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (conversation, seq)
);
"""
_SCHEMA = Schema(
    2, _TABLES, {1: "ALTER TABLE conversation ADD COLUMN total_tokens INTEGER NOT NULL DEFAULT 0"}
)


class History:
    """What is known of a conversation when a turn of it begins."""

    def __init__(self, messages: list[Message], system: Any) -> None:
        self.messages = messages
        self.system = system


class ConversationStore:
    """All conversations of the daemon. Call `close` at the end."""

    def __init__(
        self, path: Path, settings: ConversationSettings, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock
        self._deleted = 0  # rows, by what the thread is doing
        self._file = OneThread("ccd-conversations", self._open, sqlite3.Connection.close)
        self._locks: dict[tuple[str, str], _Turns] = {}

    # --- for the chat methods ---

    @contextlib.asynccontextmanager
    async def turn(self, tenant: str, conversation_id: str) -> AsyncIterator[History]:
        """Wait for the turn's place in its conversation, and give the history; created at first use."""
        key = (tenant, conversation_id)
        turns = self._locks.setdefault(key, _Turns())
        turns.users += 1
        try:
            async with turns.lock:
                yield await self._do(self._history, tenant, conversation_id)
        finally:
            turns.users -= 1
            if not turns.users:
                self._locks.pop(key, None)

    async def append(
        self,
        tenant: str,
        conversation_id: str,
        messages: list[Message],
        system: Any,
        model: str | None = None,
        tokens: int = 0,
    ) -> None:
        """Store a finished turn: what was asked and what was answered, or nothing of it.

        `model` is noted as the conversation's own if this turn begins it; `tokens` is what the turn took in all.
        """
        await self._do(self._append, tenant, conversation_id, messages, system, model, tokens)

    # --- for the conversation methods ---

    async def create(
        self, tenant: str, metadata: dict[str, Any], conversation_id: str | None = None
    ) -> ConversationInfo:
        """Returns a new, empty conversation."""
        return await self._do(self._create, tenant, conversation_id or str(uuid.uuid4()), metadata)

    async def get(self, tenant: str, conversation_id: str) -> ConversationInfo:
        """Returns one conversation.

        Raises:
            RpcError: NOT_FOUND, also when it is another tenant's.
        """
        return await self._do(self._get, tenant, conversation_id)

    async def all_of(self, tenant: str) -> list[ConversationInfo]:
        """Returns the tenant's conversations, the last used first."""
        return await self._do(self._list, tenant)

    async def messages(self, tenant: str, conversation_id: str) -> list[Message]:
        """Returns everything said in one conversation, oldest first."""
        await self.get(tenant, conversation_id)
        return (await self._do(self._history, tenant, conversation_id)).messages

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """Forget one conversation.

        Raises:
            RpcError: NOT_FOUND.
        """
        await self._do(self._delete, tenant, conversation_id)

    def close(self) -> None:
        """Finish what is being written and close the database."""
        self._file.close()

    # --- in the thread ---

    async def _do(self, work: Callable[..., T], *args: Any) -> T:
        def run(db: sqlite3.Connection) -> T:
            self._deleted = 0
            with transaction(db):
                result = work(db, *args)
            if self._deleted:
                wipe(db)
            return result

        try:
            return await self._file.do(run)
        except (sqlite3.Error, OSError) as error:
            log.error("%s cannot be used: %s", self._path, error)
            raise RpcError(
                Code.STORAGE, "conversations cannot be stored or read; the daemon's log says why"
            ) from error

    def _open(self) -> sqlite3.Connection:
        db = open_file(self._path, _SCHEMA, durable=True, set_aside=True)
        db.row_factory = sqlite3.Row
        return db

    def _find(self, db: sqlite3.Connection, tenant: str, conversation_id: str) -> sqlite3.Row:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM conversation WHERE tenant = ? AND id = ?", (tenant, conversation_id)
        ).fetchone()
        if row is None:
            raise RpcError(Code.NOT_FOUND, f"there is no conversation {conversation_id!r}")
        return row

    def _history(self, db: sqlite3.Connection, tenant: str, conversation_id: str) -> History:
        try:
            row = self._find(db, tenant, conversation_id)
        except RpcError:
            return History([], None)
        rows = db.execute(
            "SELECT role, content FROM message WHERE conversation = ? ORDER BY seq", (row["number"],)
        )
        messages = [Message(role=role, content=json.loads(content)) for role, content in rows]
        return History(messages, json.loads(row["system"]) if row["system"] else None)

    def _append(
        self,
        db: sqlite3.Connection,
        tenant: str,
        conversation_id: str,
        messages: list[Message],
        system: Any,
        model: str | None,
        tokens: int,
    ) -> None:
        now = self._clock()
        metadata = json.dumps({} if model is None else {"model": model})
        db.execute(
            "INSERT INTO conversation (tenant, id, created_at, updated_at, metadata, total_tokens)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, id) DO UPDATE SET"
            " updated_at = excluded.updated_at, total_tokens = total_tokens + excluded.total_tokens",
            (tenant, conversation_id, now, now, metadata, tokens),
        )
        row = self._find(db, tenant, conversation_id)
        if system is not None:
            db.execute(
                "UPDATE conversation SET system = ? WHERE number = ?", (json.dumps(system), row["number"])
            )
        start = db.execute(
            "SELECT COALESCE(MAX(seq), 0) FROM message WHERE conversation = ?", (row["number"],)
        )
        first: int = start.fetchone()[0] + 1
        for seq, message in enumerate(messages, first):
            content = json.dumps(message["content"], ensure_ascii=False)
            values = (row["number"], seq, message["role"], content, len(content))
            db.execute("INSERT INTO message VALUES (?, ?, ?, ?, ?)", values)
        self._shorten(db, row["number"])
        self._forget_old(db)

    def _shorten(self, db: sqlite3.Connection, number: int) -> None:
        """Drop the oldest turns of a conversation that is over its limits; what is left begins with the user."""
        rows = db.execute(
            "SELECT seq, role, bytes FROM message WHERE conversation = ? ORDER BY seq DESC", (number,)
        )
        kept_bytes, cut = 0, 0
        for count, (seq, _, size) in enumerate(rows.fetchall(), 1):
            kept_bytes += size
            if kept_bytes > self._settings.max_bytes or count > self._settings.max_messages:
                cut = seq
                break
        if not cut:
            return
        following = db.execute(
            "SELECT MIN(seq) FROM message WHERE conversation = ? AND seq > ? AND role = 'user'"
            " AND content NOT LIKE '%\"tool_result\"%'",
            (number, cut),
        ).fetchone()[0]
        # A single turn over the limit leaves nothing: a history cannot begin with an answer.
        self._deleted += db.execute(
            "DELETE FROM message WHERE conversation = :number AND (:following IS NULL OR seq < :following)",
            {"number": number, "following": following},
        ).rowcount

    def _forget_old(self, db: sqlite3.Connection) -> None:
        self._deleted += db.execute(
            "DELETE FROM conversation WHERE updated_at < ?", (self._clock() - self._settings.retention_s,)
        ).rowcount
        self._deleted += db.execute(
            "DELETE FROM conversation WHERE number IN (SELECT number FROM conversation"
            " ORDER BY updated_at DESC LIMIT -1 OFFSET ?)",
            (self._settings.max_count,),
        ).rowcount

    def _create(
        self, db: sqlite3.Connection, tenant: str, conversation_id: str, metadata: dict[str, Any]
    ) -> ConversationInfo:
        now = self._clock()
        try:
            db.execute(
                "INSERT INTO conversation (tenant, id, created_at, updated_at, metadata) VALUES (?, ?, ?, ?, ?)",
                (tenant, conversation_id, now, now, json.dumps(metadata)),
            )
        except sqlite3.IntegrityError:
            raise RpcError(Code.CONFLICT, f"there is already a conversation {conversation_id!r}") from None
        self._forget_old(db)
        return self._get(db, tenant, conversation_id)

    def _get(self, db: sqlite3.Connection, tenant: str, conversation_id: str) -> ConversationInfo:
        return _conversation(db, self._find(db, tenant, conversation_id))

    def _list(self, db: sqlite3.Connection, tenant: str) -> list[ConversationInfo]:
        rows = db.execute(
            "SELECT * FROM conversation WHERE tenant = ? ORDER BY updated_at DESC LIMIT 10000", (tenant,)
        )
        return [_conversation(db, row) for row in rows.fetchall()]

    def _delete(self, db: sqlite3.Connection, tenant: str, conversation_id: str) -> None:
        row = self._find(db, tenant, conversation_id)
        self._deleted += db.execute("DELETE FROM conversation WHERE number = ?", (row["number"],)).rowcount


class _Turns:
    """The lock that puts a conversation's turns in order, and how many hold or await it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


def _conversation(db: sqlite3.Connection, row: sqlite3.Row) -> ConversationInfo:
    count: int = db.execute(
        "SELECT COUNT(*) FROM message WHERE conversation = ?", (row["number"],)
    ).fetchone()[0]
    return ConversationInfo(
        id=row["id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        message_count=count,
        total_tokens=row["total_tokens"],
        metadata=json.loads(row["metadata"]),
    )
