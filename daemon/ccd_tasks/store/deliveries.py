"""Webhooks as rows: one for each event that a task's owner wants to hear of."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ccd_protocol.errors import Code, RpcError
from ccd_tasks.store.schema import delivery

Row = Any
DELIVERED, FAILED, PENDING = "delivered", "failed", "pending"


def note_end(connection: sa.Connection, row: Row, status: str, now_s: float) -> None:
    """A task has ended: note what is to be delivered, in the same transaction."""
    try:
        webhook = json.loads(row.spec).get("webhook")
    except ValueError:  # a record that cannot be read has nobody to tell
        return
    if not webhook:
        return
    kind = f"{row.kind}.{status}"
    created = int(now_s)
    event_id = f"evt_{secrets.token_hex(16)}"
    payload = {
        **{"id": event_id, "object": "event", "type": kind, "created_at": created},
        **{"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))},
        "data": {"id": _public_id(row), "type": row.kind, "status": status},
    }
    connection.execute(
        delivery.insert().values(
            **{"id": event_id, "task_id": row.id, "tenant": row.tenant, "url": webhook["url"]},
            **{"secret": webhook.get("secret") or "", "payload": json.dumps(payload)},
            **{"status": PENDING, "attempts": 0, "generation": 0},
            **{"created_at": now_s, "next_at": now_s},
        )
    )


def _public_id(row: Row) -> str:
    """The id under which its surface knows a task."""
    prefix = {"openai": "batch_", "anthropic": "msgbatch_"}.get(row.surface)
    task_id = str(row.id)
    return task_id if prefix is None else prefix + task_id.removeprefix("task_")


def get(connection: sa.Connection, delivery_id: str) -> Row:
    """One; None when there is none."""
    return connection.execute(sa.select(delivery).where(delivery.c.id == delivery_id)).first()


def of_task(connection: sa.Connection, task_id: str) -> list[Row]:
    """All of a task, oldest first."""
    query = sa.select(delivery).where(delivery.c.task_id == task_id)
    return list(connection.execute(query.order_by(delivery.c.created_at)))


def waiting(connection: sa.Connection) -> list[Row]:
    """All that are still to be delivered."""
    return list(connection.execute(sa.select(delivery).where(delivery.c.status == PENDING)))


def note_attempt(
    connection: sa.Connection,
    delivery_id: str,
    *,
    status: str,
    http_status: int | None,
    error: str | None,
    next_at: float,
) -> None:
    """Write down how an attempt went."""
    connection.execute(
        sa.update(delivery)
        .where(delivery.c.id == delivery_id)
        .values(
            attempts=delivery.c.attempts + 1,
            status=status,
            http_status=http_status,
            error=error,
            next_at=next_at,
        )
    )


def again(connection: sa.Connection, task_id: str, ids: Sequence[str]) -> list[tuple[str, int]]:
    """Deliver once more: these, or all of a task; returns ids and generations.

    Raises:
        RpcError: NOT_FOUND, there is no such one.
    """
    rows = [row for row in of_task(connection, task_id) if not ids or row.id in ids]
    if not rows or (ids and len(rows) < len(set(ids))):
        raise RpcError(Code.NOT_FOUND, "There is no such webhook of this task.", {"param": "webhook_id"})
    for row in rows:
        connection.execute(
            sa.update(delivery)
            .where(delivery.c.id == row.id)
            .values(
                **{"status": PENDING, "attempts": 0, "error": None},
                **{"generation": row.generation + 1, "next_at": time.time()},
            )
        )
    return [(row.id, row.generation + 1) for row in rows]


def take_over(connection: sa.Connection, delivery_id: str, generation: int) -> int:
    """Go on with one that another host left; returns its new generation."""
    connection.execute(
        sa.update(delivery)
        .where(delivery.c.id == delivery_id, delivery.c.generation == generation)
        .values(generation=generation + 1)
    )
    return generation + 1
