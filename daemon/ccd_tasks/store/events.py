"""What happened to a task, in order and numbered, so that a reader can go on from anywhere."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from ccd_tasks.store.schema import event, task


class TaskEvent(NamedTuple):
    """One event as it is kept.

    Attributes:
        seq: 1, 2, 3 … for each task.
        at: seconds since 1970.
        type: status, step, text, restart, progress, end.
        data: by type.
    """

    seq: int
    at: float
    type: str
    data: dict[str, Any]


def add(
    connection: sa.Connection, task_id: str, events: Sequence[tuple[str, dict[str, Any]]], now_s: float = 0.0
) -> None:
    """Append events; the task's row gives their numbers, so two writers never give the same."""
    if not events:
        return
    now_s = now_s or time.time()
    last = connection.execute(
        sa.update(task)
        .where(task.c.id == task_id)
        .values(last_seq=task.c.last_seq + len(events), updated_at=now_s)
        .returning(task.c.last_seq)
    ).scalar()
    if last is None:
        return
    first = last - len(events) + 1
    connection.execute(
        event.insert(),
        [
            {"task_id": task_id, "seq": first + place, "at": now_s, "type": kind, "data": json.dumps(data)}
            for place, (kind, data) in enumerate(events)
        ],
    )


def after(connection: sa.Connection, task_id: str, seq: int, limit: int = 500) -> list[TaskEvent]:
    """The next events after one, oldest first."""
    rows = connection.execute(
        sa.select(event.c.seq, event.c.at, event.c.type, event.c.data)
        .where(event.c.task_id == task_id, event.c.seq > seq)
        .order_by(event.c.seq)
        .limit(limit)
    )
    return [TaskEvent(row.seq, row.at, row.type, json.loads(row.data)) for row in rows]
