"""DBOS in this process: configured, launched, and nothing of it that talks to anybody but the database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence
from typing import Any

from dbos import DBOS, DBOSConfig, Serializer, SetEnqueueOptions, SetWorkflowID

from ccd_tasks.engine import old_sqlite

#: What the durable functions do, as a number: it goes up only when a workflow that was begun by older code cannot be
#: gone on with by this code. Work of another number is begun anew from what its items say, so an upgrade loses nothing.
STEPS_VERSION = "1"
TASKS, BATCHES = "ccd-tasks", "ccd-batches"
_OWN_QUEUE_S = 10.0
_NOTIFICATIONS_S = 60.0  # nothing here waits for DBOS's own notifications


class JsonSerializer(Serializer):
    """JSON instead of pickle: whoever can write to the database must not be able to run code here."""

    def serialize(self, data: Any) -> str:
        """As JSON; what has no form in it (an exception) as its text."""
        return json.dumps(data, default=repr)

    def deserialize(self, serialized_data: str) -> Any:
        """From JSON."""
        return json.loads(serialized_data)

    def name(self) -> str:
        """What the rows say that they were written with."""
        return "ccd_json"


class DbosProcess:
    """The one DBOS of this process. Make it before the durable functions are called, and `launch` it in the loop.

    Args:
        url: of the database.
        host_id: stable for the host; what it began is what it recovers.
        version: of the steps.
    """

    def __init__(self, url: str, host_id: str, version: str = STEPS_VERSION) -> None:
        self.host_id = host_id
        self.version = version
        self._busy: dict[str, bool] = {}
        config: DBOSConfig = {
            "name": "ccd-tasks",
            "system_database_url": url.replace("postgresql+psycopg", "postgresql"),
            "executor_id": host_id,
            "application_version": version,
            "serializer": JsonSerializer(),
            "enable_otlp": False,
            "log_level": "ERROR",
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": _NOTIFICATIONS_S,
            "scheduler_polling_interval_sec": 3600.0,
            "max_executor_threads": 16,
        }
        logging.getLogger("dbos").setLevel(logging.ERROR)
        old_sqlite.teach()
        self._dbos = DBOS(config=config)

    async def launch(self, turns: int, idle_s: float) -> None:
        """Start it; what this host left unfinished is begun again, in the loop that runs now."""
        DBOS.launch()
        for name, at_once, poll_s in ((TASKS, 2 * turns, idle_s), (BATCHES, max(8, turns), 5 * idle_s)):
            await DBOS.register_queue_async(
                name, worker_concurrency=at_once, polling_interval_sec=poll_s, on_conflict="always_update"
            )

    async def begin_now(self, function: Any, workflow_id: str, *args: Any) -> None:
        """Start a workflow here, past the queue."""
        with SetWorkflowID(workflow_id):
            await DBOS.start_workflow_async(function, *args)

    async def enqueue(self, queue: str, function: Any, workflow_id: str, priority: int, *args: Any) -> None:
        """Leave a workflow to whichever host has room; known by its id, so that twice is once."""
        with SetWorkflowID(workflow_id), SetEnqueueOptions(priority=priority + 1):
            await DBOS.enqueue_workflow_async(queue, function, *args)

    async def statuses(self, workflow_ids: Sequence[str]) -> dict[str, Any]:
        """DBOS's own rows by id: status, executor_id, app_version."""
        if not workflow_ids:
            return {}
        rows = await DBOS.list_workflows_async(
            workflow_ids=list(workflow_ids), load_input=False, load_output=False
        )
        return {row.workflow_id: row for row in rows}

    async def cancel(self, workflow_ids: Sequence[str]) -> None:
        """No host begins these any more."""
        if workflow_ids:
            await DBOS.cancel_workflows_async(list(workflow_ids))

    async def delete(self, workflow_ids: Sequence[str]) -> None:
        """Forget these."""
        if workflow_ids:
            await DBOS.delete_workflows_async(list(workflow_ids))

    def settle(self) -> None:
        """Look less often for what a restart left, once that was long enough ago.

        DBOS has no setting for the interval of its own queue, whose looks are a third of what an idle worker costs.
        """
        with contextlib.suppress(AttributeError):
            self._dbos._registry.get_internal_queue()._polling_interval_sec = _OWN_QUEUE_S

    @property
    def is_busy(self) -> bool:
        """Whether this process has a queue looked at often."""
        return any(self._busy.values())

    async def look_often(self, queue: str, interval_s: float, *, busy: bool) -> None:
        """Have the queue looked at more often while there is something in it, on all hosts."""
        if self._busy.get(queue, False) == busy:
            return
        self._busy[queue] = busy
        found = await DBOS.retrieve_queue_async(queue)
        if found is not None:
            await found.set_polling_interval_sec_async(interval_s)

    async def close(self) -> None:
        """Stop; what runs is left to the next start."""
        await asyncio.to_thread(DBOS.destroy)
