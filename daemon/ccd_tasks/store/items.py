"""Items as rows: begun, ended. Every write is refused to a generation that is not the task's newest."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ccd_tasks.store import events, tasks
from ccd_tasks.store.schema import FINAL, PENDING, RUNNING, item

Row = Any


def get(connection: sa.Connection, task_id: str, number: int) -> Row:
    """One item; None when there is none."""
    return connection.execute(
        sa.select(item).where(item.c.task_id == task_id, item.c.number == number)
    ).first()


def touched(connection: sa.Connection, task_id: str) -> set[int]:
    """Numbers of the items that have been begun, or have ended."""
    query = sa.select(item.c.number).where(
        item.c.task_id == task_id, (item.c.status != PENDING) | (item.c.attempts > 0)
    )
    return {row.number for row in connection.execute(query)}


def begin(connection: sa.Connection, task_id: str, generation: int, number: int, *, tell: bool = True) -> Row:
    """Note that an attempt begins, before anything is asked; returns the row as it was.

    An item that was running already was interrupted: its attempt ended without anybody knowing how.

    Args:
        connection: of the journal.
        task_id: whose.
        generation: of the one that runs it.
        number: which.
        tell: whether it is an event, too; of a batch of thousands it is not.

    Raises:
        Fenced: this generation may not run it.
    """
    tasks.check(connection, task_id, generation)
    row = get(connection, task_id, number)
    if row is None:
        raise tasks.Fenced
    if row.status in FINAL:
        return row
    now_s = time.time()
    again = row.status == RUNNING
    connection.execute(
        sa.update(item)
        .where(item.c.task_id == task_id, item.c.number == number)
        .values(
            status=RUNNING,
            attempts=row.attempts + 1,
            interruptions=row.interruptions + int(again),
            started_at=row.started_at or now_s,
        )
    )
    if not tell and not row.attempts:
        return row
    word = "restart" if row.attempts else "step"
    told = {"number": number, "name": row.name, "status": RUNNING, "attempt": row.attempts + 1}
    events.add(connection, task_id, [(word, told)], now_s)
    return row


def pause(connection: sa.Connection, task_id: str, generation: int, number: int) -> None:
    """An attempt ended in order and another one will follow: a crash meanwhile interrupts nothing.

    Raises:
        Fenced: this generation may not run it.
    """
    tasks.check(connection, task_id, generation)
    connection.execute(
        sa.update(item)
        .where(item.c.task_id == task_id, item.c.number == number, item.c.status == RUNNING)
        .values(status=PENDING)
    )


def end(
    connection: sa.Connection,
    task_id: str,
    generation: int,
    number: int,
    status: str,
    *,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    before: Sequence[tuple[str, dict[str, Any]]] = (),
) -> None:
    """End an item once and for all.

    Args:
        connection: of the journal.
        task_id: whose.
        generation: of the one that ran it.
        number: which.
        status: a final one.
        result: the answer.
        error: code and message.
        before: events that come before its end.

    Raises:
        Fenced: this generation may not end it.
    """
    tasks.check(connection, task_id, generation)
    now_s = time.time()
    usage = (result or {}).get("usage") or {}
    read = sum(
        usage.get(name) or 0
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    cost_usd = float((result or {}).get("cost_usd") or 0.0)
    changed = connection.execute(
        sa.update(item)
        .where(item.c.task_id == task_id, item.c.number == number, item.c.status.notin_(FINAL))
        .values(
            status=status,
            result=result and json.dumps(result),
            error=error and json.dumps(error),
            cost_usd=item.c.cost_usd + cost_usd,
            input_tokens=item.c.input_tokens + read,
            output_tokens=item.c.output_tokens + (usage.get("output_tokens") or 0),
            completed_at=now_s,
        )
    )
    if changed.rowcount:
        told = {"number": number, "status": status, "cost_usd": cost_usd, "error": error}
        events.add(connection, task_id, [*before, ("step", told)], now_s)
