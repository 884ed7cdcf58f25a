"""The engine: starts tasks, runs them by the rules of their kind, and ends them once.

A task is begun here at once where there is room, else it goes into DBOS's queue, where any host finds it. Every run of
a task is a DBOS workflow of its own, named by the task and its generation; taking a task away from a host is nothing
but a new generation, because what an older one writes is refused.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from ccd_client import AsyncClient
from ccd_tasks.engine import durable
from ccd_tasks.engine.dbos_process import BATCHES, TASKS, DbosProcess
from ccd_tasks.settings import TasksSettings
from ccd_tasks.spec import Options
from ccd_tasks.store import items, tasks
from ccd_tasks.store.events import add as add_events
from ccd_tasks.store.journal import Journal
from ccd_tasks.store.schema import CANCELLED, COMPLETED, FAILED, INTERRUPTED, PENDING
from ccd_tasks.turn.bells import Bells
from ccd_tasks.turn.purse import Purse
from ccd_tasks.turn.slots import Slots
from ccd_tasks.turn.step import Outputs, Run, run_step
from ccd_tasks.webhooks.delivery import Deliveries

log = logging.getLogger("ccd.tasks")

_PROGRESS_S = 0.5
_BATCHES_IDLE = 5  # an idle queue of batches is looked at so many times less often
_WHY = {
    "cancelled": (CANCELLED, None),
    "budget": (FAILED, {"code": "budget", "message": "the budget was used up"}),
    "expired": (FAILED, {"code": "expired", "message": "the time for the whole was over"}),
}


class Engine:
    """Tasks of this host (see `turn.step.Host` for what steps need of it)."""

    def __init__(
        self,
        settings: TasksSettings,
        journal: Journal,
        client: AsyncClient,
        dbos: DbosProcess,
        deliveries: Deliveries,
        *,
        purse: Purse | None,
        outputs: Outputs | None,
    ) -> None:
        self.settings = settings
        self.journal = journal
        self.client = client
        self.dbos = dbos
        self.slots = Slots(settings.turns)
        self.suspects = asyncio.Lock()
        self.purse = purse
        self.outputs = outputs
        self.max_interruptions = settings.max_interruptions
        self.step_timeout_s = settings.step_timeout_s
        self.running: dict[str, Run] = {}
        self.stopping = False
        self._deliveries = deliveries
        self._beginning = 0
        self._left = asyncio.Event()  # a task has ended or is left
        self.bells = Bells()

    # --- starting ---

    async def begin(self, task_id: str, generation: int, kind: str, priority: int) -> None:
        """Have a task run: here and now where there is room, else by the queue."""
        name = workflow_id(task_id, generation)
        room = len(self.running) + self._beginning < 2 * self.settings.turns
        if room and not self.stopping:
            self._beginning += 1
            try:
                await self.dbos.begin_now(durable.task_workflow, name, task_id, generation)
            finally:
                self._beginning -= 1
            return
        queue = BATCHES if kind == "batch" else TASKS
        await self.dbos.enqueue(queue, durable.task_workflow, name, priority, task_id, generation)
        await self.dbos.look_often(queue, self.settings.poll_busy_s, busy=True)

    async def begin_delivery(self, delivery_id: str, generation: int) -> None:
        """Have a webhook delivered."""
        name = workflow_id(delivery_id, generation)
        await self.dbos.begin_now(durable.webhook_workflow, name, delivery_id, generation)

    async def cancel(self, row: tasks.Row) -> str:
        """Cancel a task; returns its status now."""
        status = await self.journal.write(lambda c: tasks.ask_to_cancel(c, row))
        run = self.running.get(row.id)
        if run is not None:
            run.end("cancelled")
        elif status == CANCELLED:
            await self.dbos.cancel([workflow_id(row.id, row.generation)])
            await self.tell_end(row.id)
        self.bells.ring(row.id)
        return status

    async def tell_end(self, task_id: str) -> None:
        """Begin the webhooks that a task's end has noted."""
        for delivery in await self._deliveries.fresh(task_id):
            await self.begin_delivery(delivery.id, delivery.generation)

    # --- running (called by DBOS) ---

    async def run_task(self, task_id: str, generation: int) -> str:
        """A whole task; returns its status, or "" when it is another's."""
        try:
            row = await self.journal.insist(lambda c: tasks.take(c, task_id, generation, self.dbos.host_id))
        except tasks.Fenced:
            return ""
        self.bells.ring(task_id)
        try:
            run = await self._run_of(row)
        except ValueError:
            error = {"code": "unreadable", "message": "the record of this task cannot be read"}
            return await self._finish(task_id, generation, FAILED, error)
        self.running[task_id] = run
        try:
            return await self._run(run)
        except tasks.Fenced:
            return ""
        finally:
            del self.running[task_id]
            self._left.set()

    async def run_item(self, task_id: str, number: int) -> str:
        """One step of a task that runs here; returns its status, or ""."""
        run = self.running.get(task_id)
        if run is None:
            return ""
        try:
            outcome = await run_step(self, run, number)
        except tasks.Fenced:
            return ""
        return outcome.status

    async def attempt_delivery(self, delivery_id: str, generation: int) -> float:
        """One attempt at a webhook; returns the seconds until the next one, 0 for none."""
        return await self._deliveries.attempt(delivery_id, generation)

    async def _run_of(self, row: tasks.Row) -> Run:
        options = msgspec.json.decode(row.spec, type=Options)
        found = await self.journal.insist(lambda c: tasks.counts(c, [row.id]))
        run = Run(row, options, found.get(row.id, {}).get("cost_usd", 0.0))
        run.touched = await self.journal.insist(lambda c: items.touched(c, row.id))
        if row.cancelling:
            run.end("cancelled")
        return run

    async def _run(self, run: Run) -> str:
        if run.kind == "batch":
            await self._side_by_side(run)
        else:
            await self._in_order(run)
        if run.abandoned:
            raise tasks.Fenced
        status, error = await self._verdict(run)
        return await self._finish(run.id, run.generation, status, error)

    async def _side_by_side(self, run: Run) -> None:
        """Lines begin in their order, as DBOS numbers its steps by that."""
        numbers = iter(range(run.total))
        at_once = min(run.total, run.options.concurrency or self.settings.turns)
        progress = asyncio.ensure_future(self._tell_progress(run))

        async def lane() -> None:
            for number in numbers:
                run.check_limits()
                if run.stop is not None or run.abandoned:
                    return
                await durable.item_step(run.id, number)

        try:
            await asyncio.gather(*(lane() for _ in range(at_once)))
        finally:
            progress.cancel()

    async def _in_order(self, run: Run) -> None:
        for number in range(run.total):
            run.check_limits()
            if run.stop is not None or run.abandoned:
                return
            status = await durable.item_step(run.id, number)
            if run.kind == "workflow":
                await self._remember(run, number)
            if status != COMPLETED and await self._is_critical(run, number):
                return

    async def _remember(self, run: Run, number: int) -> None:
        """Keep what a step answered; after a restart, that of earlier ones is in the rows as well."""
        [item] = await self.journal.insist(lambda c: tasks.items(c, run.id, number - 1, 1))
        if item.status == COMPLETED:
            run.context[item.name] = str(msgspec.json.decode(item.result).get("text", ""))

    async def _is_critical(self, run: Run, number: int) -> bool:
        [item] = await self.journal.insist(lambda c: tasks.items(c, run.id, number - 1, 1))
        try:
            return bool(msgspec.json.decode(item.params).get("critical"))
        except (msgspec.MsgspecError, AttributeError):
            return False

    async def _verdict(self, run: Run) -> tuple[str, dict[str, Any] | None]:
        """How a task ends whose steps have all ended, or are not begun any more."""
        found = await self.journal.insist(lambda c: tasks.counts(c, [run.id]))
        by_status: dict[str, int] = found.get(run.id, {}).get("items", {})
        done = by_status.get(COMPLETED, 0)
        if run.stop is not None and done < run.total:
            return _WHY[run.stop]
        if done == run.total:
            return COMPLETED, None
        if run.kind == "batch":
            return COMPLETED, None  # each line has its own end
        if run.kind == "workflow":
            failed = sum(by_status.get(word, 0) for word in (FAILED, INTERRUPTED, CANCELLED))
            stopped = by_status.get(PENDING, 0)
            if not stopped and failed and done:
                return COMPLETED, None
        [item] = await self.journal.insist(lambda c: _first_unsuccessful(c, run.id))
        error = msgspec.json.decode(item.error) if item.error else None
        return (INTERRUPTED if item.status == INTERRUPTED else FAILED), error

    async def _finish(self, task_id: str, generation: int, status: str, error: dict[str, Any] | None) -> str:
        try:
            await self.journal.insist(lambda c: tasks.finish(c, task_id, generation, status, error))
        except tasks.Fenced:
            return ""
        self.bells.ring(task_id)
        await self.tell_end(task_id)
        return status

    async def _tell_progress(self, run: Run) -> None:
        told = -1
        while True:
            await asyncio.sleep(_PROGRESS_S)
            found = await self.journal.insist(lambda c: tasks.counts(c, [run.id]))
            by_status = found.get(run.id, {}).get("items", {})
            ended = sum(n for word, n in by_status.items() if word not in (PENDING, "running"))
            if ended == told:
                continue
            told = ended
            data = {
                **{"total": run.total, "done": ended, "completed": by_status.get(COMPLETED, 0)},
                "cost_usd": round(run.cost_usd, 6),
            }
            await self.journal.insist(lambda c: add_events(c, run.id, [("progress", data)]))  # noqa: B023
            self.bells.ring(run.id)

    async def calm(self) -> None:
        """Look at the queues less often once nothing waits in them."""
        if not self.dbos.is_busy:
            return
        waiting = await self.journal.read(tasks.waiting_kinds)
        for queue, kinds in ((BATCHES, {"batch"}), (TASKS, {"task", "workflow"})):
            if not kinds & waiting:
                idle_s = self.settings.poll_idle_s * (_BATCHES_IDLE if queue == BATCHES else 1)
                await self.dbos.look_often(queue, idle_s, busy=False)

    async def drained(self) -> None:
        """Begin no further steps; returns when those that run have ended."""
        for run in self.running.values():
            run.pause()
        while self.running:
            self._left = asyncio.Event()
            await self._left.wait()

    def abandon_all(self) -> None:
        """Leave everything that runs as it is: it goes on elsewhere, or at the next start."""
        for run in self.running.values():
            run.abandon()


def workflow_id(task_id: str, generation: int) -> str:
    """The name of one run of a task (or webhook) for DBOS."""
    return f"{task_id}:{generation}"


def _first_unsuccessful(connection: Any, task_id: str) -> list[Any]:
    after = -1
    while rows := tasks.items(connection, task_id, after):
        for row in rows:
            if row.status not in (COMPLETED, PENDING):
                return [row]
        after = rows[-1].number
    return tasks.items(connection, task_id, -1, 1)
