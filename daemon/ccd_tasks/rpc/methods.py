"""`task.*`: what is accepted is written down before it is answered."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from ccd_daemon.rpc.call import Call, Handler
from ccd_daemon.rpc.tenancy import check_kept, tenant_of
from ccd_protocol.errors import Code, RpcError
from ccd_tasks.engine.engine import Engine
from ccd_tasks.engine.hosts import Hosts
from ccd_tasks.rpc import params as p
from ccd_tasks.rpc.view import delivery_view, item_view, task_view
from ccd_tasks.spec import bad, convert, digest, read_step, read_submit
from ccd_tasks.store import deliveries, events, tasks
from ccd_tasks.store.schema import FINAL, OPEN, PENDING, STATUSES

T = TypeVar("T")
log = logging.getLogger("ccd.tasks")

_LOOK_S = 0.5  # what another host writes is noticed after so long
_PAGE_BYTES = 8 << 20
_BUSY_RETRY_MS = 5000


class TaskMethods:
    """The methods over one engine."""

    def __init__(self, engine: Engine, hosts: Hosts, may_name_tenants: Callable[[Call], bool]) -> None:
        self._engine = engine
        self._hosts = hosts
        self._may_name = may_name_tenants

    def handlers(self) -> dict[str, Handler]:
        """By name."""
        return {
            "task.submit": Handler(self.submit),
            "task.append": Handler(self.append),
            "task.start": Handler(self.start),
            "task.get": Handler(self.get),
            "task.list": Handler(self.list),
            "task.items": Handler(self.items),
            "task.wait": Handler(self.wait),
            "task.events": Handler(self.events, streams=True),
            "task.cancel": Handler(self.cancel),
            "task.retry": Handler(self.retry),
            "task.delete": Handler(self.delete),
            "task.cleanup": Handler(self.cleanup),
            "task.webhooks": Handler(self.webhooks),
            "task.resend": Handler(self.resend),
        }

    # --- accepting ---

    async def submit(self, call: Call) -> dict[str, Any]:
        """Accept a task; the same idempotency key gives the task that was accepted before."""
        asked, options = read_submit(call.params)
        tenant = self._tenant(call, asked.tenant)
        settings = self._engine.settings
        if len(asked.steps) > settings.max_items:
            raise bad("steps", f"at most {settings.max_items} (tasks.max_items)")
        steps = [
            read_step(step, f"steps[{number}]", asked.kind, settings.max_item_bytes)
            for number, step in enumerate(asked.steps)
        ]
        if asked.kind == "workflow" and len({name for name, _ in steps}) < len(steps):
            raise bad("steps", "two steps have the same name")
        values: dict[str, Any] = {
            **{"id": f"task_{secrets.token_hex(16)}", "tenant": tenant, "key_id": asked.key_id},
            **{"kind": asked.kind, "surface": asked.surface, "priority": asked.priority},
            **{"status": OPEN if asked.open else PENDING, "spec": msgspec.json.encode(options).decode()},
            "expires_at": options.deadline_s and time.time() + options.deadline_s,
        }
        key, mark = asked.idempotency_key, digest(asked) if asked.idempotency_key else ""

        def accept(connection: sa.Connection) -> str:
            if key is not None and (found := tasks.same_key(connection, tenant, key, mark)) is not None:
                return found
            if tasks.unfinished(connection, tenant) >= settings.max_waiting:
                raise RpcError(
                    Code.BUSY,
                    f"{settings.max_waiting} tasks have not ended, which is the limit (tasks.max_waiting).",
                    {"retry_after_ms": _BUSY_RETRY_MS},
                )
            tasks.add(connection, values)
            tasks.add_items(connection, values["id"], steps, settings.max_items)
            if key is not None:
                tasks.keep_key(connection, tenant, key, mark, values["id"])
            return str(values["id"])

        task_id = await self._engine.journal.write(accept)
        fresh = task_id == values["id"]
        if fresh and not asked.open:
            await self._begin(task_id, 0, asked.kind, asked.priority)
        return {**await self._view(task_id), "created": fresh}

    async def append(self, call: Call) -> dict[str, Any]:
        """Add lines to a batch that is open."""
        asked = convert(call.params, p.Append)
        tenant = self._tenant(call, asked.tenant)
        settings = self._engine.settings
        steps = [
            read_step(step, f"steps[{number}]", "batch", settings.max_item_bytes)
            for number, step in enumerate(asked.steps)
        ]

        def add(connection: sa.Connection) -> int:
            row = tasks.find(connection, asked.task_id, tenant)
            if row.status != OPEN:
                raise RpcError(Code.CONFLICT, "This batch was started already.")
            if asked.at is not None and asked.at != row.total:
                raise RpcError(Code.CONFLICT, f"There are {row.total} lines in this batch, not {asked.at}.")
            return tasks.add_items(connection, row.id, steps, settings.max_items)

        return {"total": await self._engine.journal.write(add)}

    async def start(self, call: Call) -> dict[str, Any]:
        """All lines of an open batch are there: run it."""
        asked = convert(call.params, p.Which)
        tenant = self._tenant(call, asked.tenant)

        def close(connection: sa.Connection) -> tuple[Any, bool]:
            row = tasks.find(connection, asked.task_id, tenant)
            return row, tasks.close(connection, row)

        row, started = await self._engine.journal.write(close)
        if started:
            await self._begin(row.id, row.generation, row.kind, row.priority)
        return await self._view(row.id)

    async def _begin(self, task_id: str, generation: int, kind: str, priority: int) -> None:
        """What was accepted is begun now, or soon by the look after lost work."""
        try:
            await self._engine.begin(task_id, generation, kind, priority)
        except Exception as error:
            log.warning("task %s is accepted and will be begun later: %s", task_id, error)

    # --- looking ---

    async def get(self, call: Call) -> dict[str, Any]:
        """One task."""
        return await self._view((await self._row(call, p.Which))[1].id)

    async def list(self, call: Call) -> dict[str, Any]:
        """Tasks of the caller, newest first."""
        asked = convert(call.params, p.Listed)
        tenant = self._tenant(call, asked.tenant)
        for status in asked.statuses:
            if status not in (*STATUSES, OPEN):
                raise bad("statuses", f"expected one of {', '.join(STATUSES)}")

        def look(connection: sa.Connection) -> dict[str, Any]:
            rows, total = tasks.listed(
                connection,
                tenant,
                statuses=asked.statuses,
                kinds=asked.kinds,
                surfaces=asked.surfaces,
                after=asked.after,
                limit=asked.limit + 1,
                offset=asked.offset,
            )
            counted = tasks.counts(connection, [row.id for row in rows])
            shown = [task_view(row, counted.get(row.id)) for row in rows[: asked.limit]]
            return {"tasks": shown, "total": total, "has_more": len(rows) > asked.limit}

        return await self._engine.journal.read(look)

    async def items(self, call: Call) -> dict[str, Any]:
        """Items of a task, a page at a time."""
        asked, row = await self._row(call, p.Items)

        def look(connection: sa.Connection) -> dict[str, Any]:
            rows = tasks.items(connection, row.id, asked.after, asked.limit)
            shown: list[dict[str, Any]] = []
            size = 0
            for item in rows:
                size += len(item.result or "")
                if shown and size > _PAGE_BYTES:
                    break
                shown.append(item_view(item))
            last = shown[-1]["number"] if shown else asked.after
            return {"items": shown, "has_more": last + 1 < row.total and bool(shown)}

        return await self._engine.journal.read(look)

    async def wait(self, call: Call) -> dict[str, Any]:
        """The task when it has ended, or as it is when the time is over."""
        asked, row = await self._row(call, p.Wait)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + asked.timeout_s
        news = _News(self._engine, row.id)
        try:
            while row is not None and row.status not in FINAL:
                left_s = until_s - loop.time()
                if left_s <= 0:
                    break
                await news.within(min(left_s, _LOOK_S))
                row = await self._engine.journal.read(lambda c: tasks.get(c, asked.task_id))
        finally:
            news.close()
        return await self._view(asked.task_id)

    async def events(self, call: Call) -> dict[str, Any]:
        """Events of a task as JSON lines, from any point on, until it has ended."""
        asked, row = await self._row(call, p.Events)
        journal, seq = self._engine.journal, asked.after
        news, gate = _News(self._engine, row.id), _Gate()
        call.feed_from(gate)
        try:
            while True:
                found = await journal.read(lambda c: events.after(c, asked.task_id, seq))  # noqa: B023
                for event in found:
                    await gate.opened.wait()
                    call.send(json.dumps(event._asdict()).encode() + b"\n")
                    seq = event.seq
                now = None if found else await journal.read(lambda c: tasks.get(c, asked.task_id))
                if not found and (now is None or (now.status in FINAL and now.last_seq <= seq)):
                    return {"status": now.status if now is not None else "deleted", "last_seq": seq}
                if not found:
                    await news.within(_LOOK_S)
        finally:
            news.close()

    # --- acting ---

    async def cancel(self, call: Call) -> dict[str, Any]:
        """End a task; what has ended stays as it is."""
        _, row = await self._row(call, p.Which)
        await self._engine.cancel(row)
        return await self._view(row.id)

    async def retry(self, call: Call) -> dict[str, Any]:
        """Run once more what did not succeed."""
        _, row = await self._row(call, p.Which)
        await self._engine.journal.write(lambda c: tasks.again(c, row))
        await self._begin(row.id, row.generation + 1, row.kind, row.priority)
        return await self._view(row.id)

    async def delete(self, call: Call) -> dict[str, Any]:
        """Forget a task that has ended."""
        _, row = await self._row(call, p.Which)
        if row.status not in FINAL:
            raise RpcError(Code.CONFLICT, "This task has not ended; cancel it first.")
        await self._engine.journal.write(lambda c: tasks.forget(c, [row.id]))
        return {}

    async def cleanup(self, call: Call) -> dict[str, Any]:
        """Forget tasks of the caller that ended long ago."""
        asked = convert(call.params, p.Cleanup)
        tenant = self._tenant(call, asked.tenant)
        return {"deleted": await self._hosts.clean(time.time() - asked.older_than_s, tenant)}

    async def webhooks(self, call: Call) -> dict[str, Any]:
        """Webhooks of a task, and how their delivery went."""
        _, row = await self._row(call, p.Which)
        found = await self._engine.journal.read(lambda c: deliveries.of_task(c, row.id))
        return {"webhooks": [delivery_view(delivery) for delivery in found]}

    async def resend(self, call: Call) -> dict[str, Any]:
        """Deliver webhooks of a task once more."""
        asked, row = await self._row(call, p.Resend)
        again = await self._engine.journal.write(lambda c: deliveries.again(c, row.id, asked.webhook_ids))
        for delivery_id, generation in again:
            await self._engine.begin_delivery(delivery_id, generation)
        return {"resent": len(again)}

    # --- what they share ---

    def _tenant(self, call: Call, named: str | None) -> str:
        check_kept(call, "steps")
        return tenant_of(call, named, may_name=self._may_name(call))

    async def _row(self, call: Call, kind: type[T]) -> tuple[T, Any]:
        asked: Any = convert(call.params, kind)
        tenant = self._tenant(call, asked.tenant)
        return asked, await self._engine.journal.read(lambda c: tasks.find(c, asked.task_id, tenant))

    async def _view(self, task_id: str) -> dict[str, Any]:
        def look(connection: sa.Connection) -> dict[str, Any]:
            row = tasks.get(connection, task_id)
            if row is None:
                raise tasks.not_found(task_id)
            return task_view(row, tasks.counts(connection, [task_id]).get(task_id))

        return await self._engine.journal.read(look)


class _News:
    """Waits for news of one task, from this host at once, from others with the next look."""

    def __init__(self, engine: Engine, task_id: str) -> None:
        self._engine, self._task_id = engine, task_id
        self._rung = asyncio.Event()
        engine.bells.listen(task_id, self._rung.set)

    async def within(self, wait_s: float) -> None:
        """Return at news, or when the time is over."""
        try:
            async with asyncio.timeout(wait_s):
                await self._rung.wait()
        except TimeoutError:
            pass
        self._rung.clear()

    def close(self) -> None:
        self._engine.bells.ignore(self._task_id, self._rung.set)


class _Gate:
    """Holds a stream back while its reader takes nothing."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.opened.set()

    def pause(self) -> None:
        """Produce nothing more."""
        self.opened.clear()

    def resume(self) -> None:
        """Go on."""
        self.opened.set()
