"""Durable work for asyncio and trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from ccd_client._async import AsyncCalls
from ccd_client._calls.options import Messages, Prompt
from ccd_client.tasks import requests as r
from ccd_client.tasks.requests import Event, Item, Task


class AsyncTasks:
    """Tasks of `ccd worker`. What is submitted is kept and run whatever becomes of this process.

    Args:
        client: an `AsyncClient` or `TrioClient` of the worker's socket (`worker_socket()`); whoever made it closes it.
    """

    def __init__(self, client: AsyncCalls) -> None:
        self._client = client

    async def submit(self, messages: Messages | None = None, **options: Any) -> Task:
        """Submit one task and return it at once; see `Tasks.submit`."""
        whole, chat = r.split(options)
        return await self._call("task.submit", r.submission("task", [r.step_of(messages, chat)], whole))

    async def submit_batch(self, prompts: Iterable[Prompt], **options: Any) -> Task:
        """Submit many; see `Tasks.submit_batch`."""
        whole, chat = r.split(options)
        steps = (r.step_of_prompt(prompt, number, chat) for number, prompt in enumerate(prompts))
        task = await self._call("task.submit", {**r.submission("batch", (), whole), "open": True})
        if task["status"] != "open":
            return task
        at = task["total"]  # an earlier run may have come so far
        for portion in r.chunks(islice(steps, at, None)):
            await self._client.call("task.append", {"task_id": task["id"], "steps": portion, "at": at})
            at += len(portion)
        return await self._call("task.start", {"task_id": task["id"]})

    async def submit_workflow(self, steps: Sequence[Mapping[str, Any]], **options: Any) -> Task:
        """Submit steps that run in order; see `Tasks.submit_workflow`."""
        whole, chat = r.split(options)
        made = [r.step_of_prompt(step, number, chat) for number, step in enumerate(steps)]
        return await self._call("task.submit", r.submission("workflow", made, whole))

    async def get(self, task_id: str) -> Task:
        """One task as it is now."""
        return await self._call("task.get", {"task_id": task_id})

    async def list(self, **filters: Any) -> list[Task]:
        """Tasks, newest first; filters are `statuses`, `kinds`, `surfaces`, `after`, `limit`."""
        return list((await self._call("task.list", filters))["tasks"])

    async def wait(self, task_id: str) -> Task:
        """The task when it has ended; for less, cancel the waiting."""
        while True:
            task = await self._call("task.wait", {"task_id": task_id, "timeout_s": r.POLL_S})
            if task["final"]:
                return task

    async def items(self, task_id: str) -> AsyncIterator[Item]:
        """Every step or line with its answer, in order."""
        after, more = -1, True
        while more:
            found = await self._call("task.items", r.page(task_id, after))
            for item in found["items"]:
                after = item["number"]
                yield item
            more = found["has_more"]

    async def events(self, task_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Events after a number, as they come, until the end."""
        lines = r.Lines()
        async with self._client.call_stream("task.events", {"task_id": task_id, "after": after}) as stream:
            async for payload in stream:
                for event in lines.feed(payload):
                    yield event

    async def cancel(self, task_id: str) -> Task:
        """End a task; what has ended stays as it is."""
        return await self._call("task.cancel", {"task_id": task_id})

    async def retry(self, task_id: str) -> Task:
        """Run once more what did not succeed."""
        return await self._call("task.retry", {"task_id": task_id})

    async def _call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self._client.call(method, params)
        return answer
