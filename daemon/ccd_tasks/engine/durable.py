"""The durable functions: what DBOS writes down, and calls again after a crash. Their names and order of steps are
part of `STEPS_VERSION`.

They hold no state: all they are given is which task, and all they decide is in the rows.
"""

from __future__ import annotations

from typing import Protocol

from dbos import DBOS


class Runner(Protocol):
    """What does the work."""

    async def run_task(self, task_id: str, generation: int) -> str:
        """A whole task; returns its status, or "" when it is another's."""

    async def run_item(self, task_id: str, number: int) -> str:
        """One step of a task that runs here; returns its status, or ""."""

    async def attempt_delivery(self, delivery_id: str, generation: int) -> float:
        """One attempt at a webhook; returns the seconds until the next one, 0 for none."""


_runner: Runner | None = None


def serve_with(runner: Runner | None) -> None:
    """Name who does the work, for this process."""
    global _runner  # noqa: PLW0603 - DBOS calls functions by their name, so somebody has to be known here
    _runner = runner


def _found() -> Runner:
    if _runner is None:
        raise RuntimeError("the worker has stopped")
    return _runner


@DBOS.workflow(name="ccd.task", max_recovery_attempts=None)
async def task_workflow(task_id: str, generation: int) -> str:
    """One task; each of its steps is written down when it has ended."""
    return await _found().run_task(task_id, generation)


@DBOS.step(name="ccd.item")
async def item_step(task_id: str, number: int) -> str:
    """One turn."""
    return await _found().run_item(task_id, number)


@DBOS.workflow(name="ccd.webhook", max_recovery_attempts=None)
async def webhook_workflow(delivery_id: str, generation: int) -> str:
    """Attempts at a webhook, until one succeeds or a day is over; the pauses outlive restarts."""
    while (pause_s := await delivery_step(delivery_id, generation)) > 0:
        await DBOS.sleep_async(pause_s)
    return "over"


@DBOS.step(name="ccd.webhook.attempt")
async def delivery_step(delivery_id: str, generation: int) -> float:
    """One attempt."""
    return await _found().attempt_delivery(delivery_id, generation)
