"""Tasks as rows: accepted, listed, taken, ended. Every function is one piece of a `Journal`'s work."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ccd_protocol.errors import Code, RpcError
from ccd_tasks.store import deliveries, events
from ccd_tasks.store.schema import CANCELLED, FINAL, OPEN, PENDING, RUNNING, delivery, event, item, key, task

Row = Any  # sa.Row: attributes are the table's columns
_CHUNK = 500


def not_found(task_id: str) -> RpcError:
    """The refusal for a task that does not exist, or is another tenant's."""
    return RpcError(Code.NOT_FOUND, f"There is no task {task_id[:80]!r}.", {"param": "task_id"})


def find(connection: sa.Connection, task_id: str, tenant: str) -> Row:
    """One task of a tenant.

    Raises:
        RpcError: NOT_FOUND.
    """
    row = get(connection, task_id)
    if row is None or row.tenant != tenant:
        raise not_found(task_id)
    return row


def get(connection: sa.Connection, task_id: str) -> Row | None:
    """One task, whoever's it is."""
    return connection.execute(sa.select(task).where(task.c.id == task_id)).first()


def same_key(connection: sa.Connection, tenant: str, name: str, digest: str) -> str | None:
    """The id of the task that was accepted under an idempotency key.

    Raises:
        RpcError: CONFLICT, it was another request's.
    """
    row = connection.execute(sa.select(key).where(key.c.tenant == tenant, key.c.name == name)).first()
    if row is None:
        return None
    if row.digest != digest:
        raise RpcError(
            Code.CONFLICT,
            "This idempotency key was used for another request. Use a new key for a new request.",
            {"param": "idempotency_key"},
        )
    return str(row.task_id)


def keep_key(connection: sa.Connection, tenant: str, name: str, digest: str, task_id: str) -> None:
    """Remember which task a key stands for."""
    connection.execute(key.insert().values(tenant=tenant, name=name, digest=digest, task_id=task_id))


def unfinished(connection: sa.Connection, tenant: str) -> int:
    """Tasks of a tenant that have not ended."""
    query = sa.select(sa.func.count()).select_from(task)
    return int(
        connection.execute(query.where(task.c.tenant == tenant, task.c.status.notin_(FINAL))).scalar() or 0
    )


def add(connection: sa.Connection, values: dict[str, Any]) -> None:
    """Accept a task; its items are added by `add_items`."""
    now_s = time.time()
    connection.execute(
        task.insert().values(
            generation=0, cancelling=0, last_seq=0, total=0, created_at=now_s, updated_at=now_s, **values
        )
    )
    events.add(connection, values["id"], [("status", {"status": values["status"]})], now_s)


def add_items(connection: sa.Connection, task_id: str, steps: Sequence[tuple[str, str]], limit: int) -> int:
    """Append steps (name, JSON) to a task; returns how many there are now.

    Raises:
        RpcError: BAD_PARAMS, there would be more than `limit`.
    """
    total = int(connection.execute(sa.select(task.c.total).where(task.c.id == task_id)).scalar() or 0)
    if total + len(steps) > limit:
        raise RpcError(
            Code.BAD_PARAMS, f"A batch has at most {limit} lines (tasks.max_items).", {"param": "steps"}
        )
    if steps:
        connection.execute(
            item.insert(),
            [
                {
                    **{"task_id": task_id, "number": total + place, "name": name, "params": params},
                    **{"status": PENDING, "attempts": 0, "interruptions": 0, "cost_usd": 0.0},
                    **{"input_tokens": 0, "output_tokens": 0},
                }
                for place, (name, params) in enumerate(steps)
            ],
        )
    connection.execute(
        sa.update(task).where(task.c.id == task_id).values(total=total + len(steps), updated_at=time.time())
    )
    return total + len(steps)


def close(connection: sa.Connection, row: Row) -> bool:
    """All lines of a batch are there: it may run; False when it was started before.

    Raises:
        RpcError: BAD_PARAMS, it is empty.
    """
    if row.status != OPEN:
        return False
    if not row.total:
        raise RpcError(Code.BAD_PARAMS, "A batch needs at least one line.", {"param": "steps"})
    connection.execute(sa.update(task).where(task.c.id == row.id).values(status=PENDING))
    events.add(connection, row.id, [("status", {"status": PENDING})])
    return True


# --- looking ---


def listed(
    connection: sa.Connection,
    tenant: str,
    *,
    statuses: Sequence[str] = (),
    kinds: Sequence[str] = (),
    surfaces: Sequence[str] = (),
    after: str | None = None,
    limit: int = 20,
    offset: int = 0,
) -> tuple[list[Row], int]:
    """Tasks of a tenant, newest first, and how many there are.

    Raises:
        RpcError: NOT_FOUND, `after` is no task.
    """
    where = [task.c.tenant == tenant]
    for column, words in ((task.c.status, statuses), (task.c.kind, kinds), (task.c.surface, surfaces)):
        if words:
            where.append(column.in_(words))
    total = connection.execute(sa.select(sa.func.count()).select_from(task).where(*where)).scalar() or 0
    if after is not None:
        last = find(connection, after, tenant)
        older = task.c.created_at < last.created_at
        where.append(older | ((task.c.created_at == last.created_at) & (task.c.id < last.id)))
    query = sa.select(task).where(*where).order_by(task.c.created_at.desc(), task.c.id.desc())
    return list(connection.execute(query.limit(limit).offset(offset))), int(total)


def items(connection: sa.Connection, task_id: str, after: int = -1, limit: int = 1000) -> list[Row]:
    """Items of a task after one number, in order."""
    query = sa.select(item).where(item.c.task_id == task_id, item.c.number > after)
    return list(connection.execute(query.order_by(item.c.number).limit(limit)))


def counts(connection: sa.Connection, task_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By task: items by status, interruptions, tokens and cost so far."""
    found: dict[str, dict[str, Any]] = {}
    query = (
        sa.select(
            item.c.task_id,
            item.c.status,
            sa.func.count().label("n"),
            sa.func.sum(item.c.cost_usd).label("cost_usd"),
            sa.func.sum(item.c.input_tokens).label("input_tokens"),
            sa.func.sum(item.c.output_tokens).label("output_tokens"),
            sa.func.sum(item.c.interruptions).label("interruptions"),
        )
        .where(item.c.task_id.in_(task_ids))
        .group_by(item.c.task_id, item.c.status)
    )
    for row in connection.execute(query):
        entry = found.setdefault(
            row.task_id,
            {"cost_usd": 0.0, "input_tokens": 0, "output_tokens": 0, "interruptions": 0, "items": {}},
        )
        entry["items"][row.status] = int(row.n)
        entry["cost_usd"] += float(row.cost_usd or 0)
        for name in ("input_tokens", "output_tokens", "interruptions"):
            entry[name] += int(getattr(row, name) or 0)
    return found


# --- running ---


class Fenced(Exception):
    """The task runs elsewhere now, or has ended: whoever gets this stops, and writes nothing."""


def take(connection: sa.Connection, task_id: str, generation: int, host: str) -> Row:
    """Begin to run a task, or go on with it after a restart.

    Raises:
        Fenced: it has ended, or this generation is not the newest.
    """
    row = get(connection, task_id)
    if row is None or row.status in FINAL or row.generation != generation:
        raise Fenced
    now_s = time.time()
    values: dict[str, Any] = {"status": RUNNING, "host": host, "updated_at": now_s}
    if row.started_at is None:
        values["started_at"] = now_s
    connection.execute(sa.update(task).where(task.c.id == task_id).values(**values))
    if row.status != RUNNING:
        events.add(connection, task_id, [("status", {"status": RUNNING})], now_s)
    return row


def check(connection: sa.Connection, task_id: str, generation: int) -> Row:
    """The task, if this generation may still write to it.

    Raises:
        Fenced: it may not.
    """
    query = sa.select(task.c.status, task.c.generation, task.c.cancelling, task.c.total)
    row = connection.execute(query.where(task.c.id == task_id)).first()
    if row is None or row.generation != generation or row.status in FINAL:
        raise Fenced
    return row


def finish(
    connection: sa.Connection, task_id: str, generation: int | None, status: str, error: dict[str, Any] | None
) -> bool:
    """End a task once and for all, and note the webhook that says so; False when it had ended.

    Raises:
        Fenced: another generation runs it. A `generation` of None is whoever's.
    """
    row = get(connection, task_id)
    if row is None or row.status in FINAL:
        return False
    if generation is not None and row.generation != generation:
        raise Fenced
    now_s = time.time()
    connection.execute(
        sa.update(task)
        .where(task.c.id == task_id)
        .values(status=status, error=error and json.dumps(error), completed_at=now_s, updated_at=now_s)
    )
    if status != "completed":
        _close_items(
            connection, task_id, error or {"code": status, "message": f"the task is {status}"}, now_s
        )
    events.add(connection, task_id, [("end", {"status": status, "error": error})], now_s)
    deliveries.note_end(connection, row, status, now_s)
    return True


def _close_items(connection: sa.Connection, task_id: str, error: dict[str, Any], now_s: float) -> None:
    connection.execute(
        sa.update(item)
        .where(item.c.task_id == task_id, item.c.status.in_((PENDING, RUNNING)))
        .values(status=CANCELLED, error=json.dumps(error), completed_at=now_s)
    )


def ask_to_cancel(connection: sa.Connection, row: Row) -> str:
    """Cancel: at once what does not run; else note it for who runs it. Returns the status now."""
    if row.status in FINAL:
        return str(row.status)
    if row.status in (PENDING, OPEN):
        finish(connection, row.id, None, CANCELLED, None)
        return CANCELLED
    connection.execute(
        sa.update(task).where(task.c.id == row.id).values(cancelling=1, updated_at=time.time())
    )
    return str(row.status)


def next_generation(connection: sa.Connection, task_id: str, generation: int) -> int | None:
    """Take a task away from whoever runs it; None when somebody else was faster or it has ended."""
    changed = connection.execute(
        sa.update(task)
        .where(task.c.id == task_id, task.c.generation == generation, task.c.status.in_((PENDING, RUNNING)))
        .values(generation=generation + 1, host=None, updated_at=time.time())
    )
    return generation + 1 if changed.rowcount else None


def unended(connection: sa.Connection) -> list[Row]:
    """Every task that has still to be run, without its spec."""
    columns = (task.c.id, task.c.kind, task.c.status, task.c.generation, task.c.host, task.c.priority)
    query = sa.select(*columns, task.c.updated_at)
    return list(connection.execute(query.where(task.c.status.in_((PENDING, RUNNING)))))


def waiting_kinds(connection: sa.Connection) -> set[str]:
    """Kinds of the tasks that wait to be run."""
    query = sa.select(task.c.kind).where(task.c.status == PENDING).distinct()
    return {row.kind for row in connection.execute(query)}


def to_cancel(connection: sa.Connection, task_ids: Sequence[str]) -> list[str]:
    """Those of the tasks that are to be cancelled."""
    query = sa.select(task.c.id).where(task.c.id.in_(task_ids), task.c.cancelling == 1)
    return [row.id for row in connection.execute(query)]


# --- forgetting ---


def forget(connection: sa.Connection, ids: Sequence[str]) -> None:
    """Delete tasks and all that belongs to them."""
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        for table in (item, event, delivery):
            connection.execute(sa.delete(table).where(table.c.task_id.in_(chunk)))
        connection.execute(sa.delete(key).where(key.c.task_id.in_(chunk)))
        connection.execute(sa.delete(task).where(task.c.id.in_(chunk)))


def ended_before(
    connection: sa.Connection, before_s: float, tenant: str | None = None, limit: int = _CHUNK
) -> list[Row]:
    """Finished tasks that ended before a moment: id and generation."""
    where = [task.c.status.in_(FINAL), task.c.completed_at <= before_s]
    if tenant is not None:
        where.append(task.c.tenant == tenant)
    return list(connection.execute(sa.select(task.c.id, task.c.generation).where(*where).limit(limit)))


def abandoned(connection: sa.Connection, before_s: float) -> list[str]:
    """Batches whose lines stopped coming."""
    query = sa.select(task.c.id).where(task.c.status == OPEN, task.c.updated_at < before_s)
    return [row.id for row in connection.execute(query)]


def again(connection: sa.Connection, row: Row) -> int:
    """Run once more what did not succeed of a finished task; returns how many items that are.

    Raises:
        RpcError: CONFLICT, it has not ended, or everything succeeded.
    """
    if row.status not in FINAL:
        raise RpcError(Code.CONFLICT, "This task has not ended; only a finished one can be tried again.")
    reset = connection.execute(
        sa.update(item)
        .where(item.c.task_id == row.id, item.c.status != "completed")
        .values(status=PENDING, error=None, result=None, completed_at=None, interruptions=0)
    ).rowcount
    if not reset:
        raise RpcError(Code.CONFLICT, "Everything in this task succeeded; there is nothing to try again.")
    connection.execute(
        sa.update(task)
        .where(task.c.id == row.id)
        .values(
            **{"status": PENDING, "error": None, "completed_at": None, "cancelling": 0, "host": None},
            generation=row.generation + 1,
        )
    )
    events.add(connection, row.id, [("status", {"status": PENDING})])
    return int(reset)
