"""What goes on beside the tasks: heartbeats, the work of hosts that died, work that got lost, and forgetting.

A host that finds that it was declared dead leaves everything that it runs, and arrives anew. Work is given away by one
host at a time, the holder of a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ccd_protocol.errors import RpcError
from ccd_tasks.engine.engine import Engine, workflow_id
from ccd_tasks.store import deliveries, files, hosts, tasks

log = logging.getLogger("ccd.tasks")

_LEASE = "look-after"
_LOOK_S = 10.0
_FORGET_S = 600.0
_SETTLED_S = 20.0  # after so long what a restart left has been begun again
_CANCEL_LOOK_S = 2.0
_ABANDONED_S = 3600.0  # a batch whose lines stop coming
_YOUNG_S = 5.0  # DBOS has not begun everything that is this young


class Hosts:
    """The look after one host's engine, and with others' when its turn comes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._id = engine.dbos.host_id
        self._epoch = 0
        self._alone = engine.journal.engine.dialect.name == "sqlite"

    async def arrive(self) -> None:
        """Be known as living.

        Raises:
            RpcError: STORAGE.
        """
        name = socket.gethostname()
        self._epoch = await self._engine.journal.write(lambda c: hosts.arrive(c, self._id, name))

    async def run(self) -> None:
        """Everything, for as long as the process serves."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_every(self._settings.heartbeat_s, self._beat))
            group.create_task(_every(_CANCEL_LOOK_S, self._hear_cancels))
            group.create_task(_every(1.0, self._calm_queues))
            group.create_task(_every(min(_LOOK_S, self._settings.dead_s / 2), self.look_after, at_once=True))
            group.create_task(_every(_FORGET_S, self.forget))
            await asyncio.sleep(_SETTLED_S)
            self._engine.dbos.settle()

    async def _beat(self) -> None:
        if await self._engine.journal.write(lambda c: hosts.beat(c, self._id, self._epoch)):
            return
        log.error("this host was declared dead: its tasks are left to others, and it arrives anew")
        self._engine.abandon_all()
        await self.arrive()

    async def _hear_cancels(self) -> None:
        """Cancellations may come by another host."""
        if self._alone or not self._engine.running:
            return
        ids = list(self._engine.running)
        for task_id in await self._engine.journal.read(lambda c: tasks.to_cancel(c, ids)):
            if task_id in self._engine.running:
                self._engine.running[task_id].end("cancelled")

    async def _calm_queues(self) -> None:
        await self._engine.calm()

    # --- work that got lost ---

    async def look_after(self) -> None:
        """Begin anew what nobody runs: a dead host's work, and what a crash left between two writes."""
        journal, settings = self._engine.journal, self._settings
        if not await journal.write(lambda c: hosts.hold(c, _LEASE, self._id, 3 * _LOOK_S)):
            return
        dead: set[str] = set()
        if not self._alone:
            dead = set(await journal.write(lambda c: hosts.declare_dead(c, settings.dead_s))) - {self._id}
        rows = await journal.read(tasks.unended)
        known = await self._engine.dbos.statuses([workflow_id(row.id, row.generation) for row in rows])
        for row in rows:
            if self._is_lost(row, known.get(workflow_id(row.id, row.generation)), dead):
                await self._begin_anew(row)
        await self._look_after_webhooks(dead)

    def _is_lost(self, row: tasks.Row, dbos_row: Any, dead: set[str]) -> bool:
        if row.id in self._engine.running or (
            time.time() - row.updated_at < _YOUNG_S and row.host not in dead
        ):
            return False
        if dbos_row is None:
            return True
        if dbos_row.app_version not in (None, self._engine.dbos.version):
            return dbos_row.status != "PENDING" or dbos_row.executor_id in (*dead, self._id)
        if dbos_row.status == "PENDING":
            return dbos_row.executor_id in dead or dbos_row.executor_id == self._id
        return dbos_row.status not in ("ENQUEUED", "DELAYED")

    async def _begin_anew(self, row: tasks.Row) -> None:
        found = await self._engine.journal.write(lambda c: tasks.next_generation(c, row.id, row.generation))
        if found is None:
            return
        log.warning("task %s was left by its host, and is begun anew", row.id)
        with contextlib.suppress(Exception):  # it may not know it, and then there is nothing to cancel
            await self._engine.dbos.cancel([workflow_id(row.id, row.generation)])
        await self._engine.begin(row.id, found, row.kind, row.priority)

    async def _look_after_webhooks(self, dead: set[str]) -> None:
        rows = await self._engine.journal.read(deliveries.waiting)
        known = await self._engine.dbos.statuses([workflow_id(row.id, row.generation) for row in rows])
        for row in rows:
            dbos_row = known.get(workflow_id(row.id, row.generation))
            young = time.time() - row.created_at < _YOUNG_S
            if dbos_row is None and not young:
                await self._engine.begin_delivery(row.id, row.generation)
            elif dbos_row is not None and (
                dbos_row.executor_id in dead
                or dbos_row.status not in ("PENDING", "ENQUEUED", "DELAYED")
                or (row.next_at < time.time() - 60)
            ):
                generation = await self._engine.journal.write(
                    lambda c: deliveries.take_over(c, row.id, row.generation)  # noqa: B023
                )
                await self._engine.begin_delivery(row.id, generation)

    # --- forgetting ---

    async def forget(self) -> None:
        """Forget what ended long ago, and batches whose lines stopped coming."""
        journal, now_s = self._engine.journal, time.time()
        for task_id in await journal.read(lambda c: tasks.abandoned(c, now_s - _ABANDONED_S)):
            error = {"code": "abandoned", "message": "its lines stopped coming before it was started"}
            await journal.write(lambda c: tasks.finish(c, task_id, None, "failed", error))  # noqa: B023
        await self.clean(now_s - self._settings.retention_s)
        await journal.write(lambda c: files.forget_expired(c, now_s))

    async def clean(self, before_s: float, tenant: str | None = None) -> int:
        """Forget finished tasks that ended before a moment; returns how many."""
        journal, count = self._engine.journal, 0
        while rows := await journal.read(lambda c: tasks.ended_before(c, before_s, tenant)):
            ids = [row.id for row in rows]
            await journal.write(lambda c: tasks.forget(c, ids))  # noqa: B023
            names = [workflow_id(row.id, n) for row in rows for n in range(row.generation + 1)]
            await self._engine.dbos.delete(names)
            count += len(ids)
        return count


async def _every(period_s: float, work: Callable[[], Awaitable[Any]], *, at_once: bool = False) -> None:
    """Do something again and again, by a clock that does not jump; a failure is logged, and the next time comes."""
    if not at_once:
        await asyncio.sleep(period_s)
    while True:
        try:
            await work()
        except RpcError as error:
            log.warning("%s: %s", getattr(work, "__name__", "work"), error.message)
        except Exception:
            log.exception("%s failed", getattr(work, "__name__", "work"))
        await asyncio.sleep(period_s)
