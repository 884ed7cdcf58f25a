"""Durable work for blocking code."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Self

from ccd_client._calls.options import Messages, Prompt
from ccd_client._sync import Client
from ccd_client.tasks import requests as r
from ccd_client.tasks.requests import Event, Item, Task
from ccd_protocol.errors import RpcError

_PAUSE_S = 0.2


class Tasks:
    """Tasks of `ccd worker`. What is submitted is kept and run whatever becomes of this process.

    Args:
        path: the worker's socket; by default beside the daemon's.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._client = Client(r.worker_socket(path))
        self._was_there = False  # a worker that never was is not waited for

    def submit(self, messages: Messages | None = None, **options: Any) -> Task:
        """Submit one task and return it at once; it ends in the background.

        Args:
            messages: a prompt, or an OpenAI-style list; None for an agent (`agent=…, prompt=…`).
            **options: of the chat (`ChatOptions`), of the whole (`TaskOptions`), and `retries`.

        Raises:
            RpcError: BUSY, too many are waiting; LOST, there is no worker; BAD_PARAMS.
        """
        whole, chat = r.split(options)
        return self.call("task.submit", r.submission("task", [r.step_of(messages, chat)], whole))

    def submit_batch(self, prompts: Iterable[Prompt], **options: Any) -> Task:
        """Submit many; they run side by side, and each has an end of its own.

        Args:
            prompts: prompts or message lists, or mappings with `messages` and options of their own.
            **options: of all chats, and of the whole.
        """
        whole, chat = r.split(options)
        steps = (r.step_of_prompt(prompt, number, chat) for number, prompt in enumerate(prompts))
        return self.submit_steps(steps, whole)

    def submit_steps(self, steps: Iterable[r.Params], whole: r.TaskOptions) -> Task:
        """Submit a batch of ready steps, of any number. With a key that was used before they must be the same ones."""
        task = self.call("task.submit", {**r.submission("batch", (), whole), "open": True})
        if task["status"] != "open":
            return task  # the key was used before
        at = task["total"]  # an earlier run may have come so far
        for portion in r.chunks(islice(steps, at, None)):
            self._client.call("task.append", {"task_id": task["id"], "steps": portion, "at": at})
            at += len(portion)
        return self.call("task.start", {"task_id": task["id"]})

    def submit_workflow(self, steps: Sequence[Mapping[str, Any]], **options: Any) -> Task:
        """Submit steps that run in order: mappings with `name`, `messages`, `critical`, `use_context` and options."""
        whole, chat = r.split(options)
        made = [r.step_of_prompt(step, number, chat) for number, step in enumerate(steps)]
        return self.call("task.submit", r.submission("workflow", made, whole))

    def get(self, task_id: str) -> Task:
        """One task as it is now."""
        return self.call("task.get", {"task_id": task_id})

    def list(self, **filters: Any) -> list[Task]:
        """Tasks, newest first; filters are `statuses`, `kinds`, `surfaces`, `after`, `limit`."""
        return list(self.call("task.list", filters)["tasks"])

    def wait(self, task_id: str, timeout_s: float | None = None) -> Task:
        """The task when it has ended, or after `timeout_s` as it is. A worker that restarts is waited for."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = r.POLL_S if until_s is None else max(until_s - time.monotonic(), 0)
            params = {"task_id": task_id, "timeout_s": min(left_s, r.POLL_S)}
            task = self.call("task.wait", params)
            if task["final"] or (until_s is not None and time.monotonic() >= until_s):
                return task

    def items(self, task_id: str) -> Iterator[Item]:
        """Every step or line with its answer, in order."""
        after, more = -1, True
        while more:
            found = self.call("task.items", r.page(task_id, after))
            for item in found["items"]:
                after = item["number"]
                yield item
            more = found["has_more"]

    def events(self, task_id: str, after: int = 0) -> Iterator[Event]:
        """Events after a number, as they come, until the end; a worker that restarts is waited for."""
        while True:
            lines = r.Lines()
            try:
                with self._client.call_stream("task.events", {"task_id": task_id, "after": after}) as stream:
                    for payload in stream:
                        for event in lines.feed(payload):
                            after = event["seq"]
                            yield event
                return
            except RpcError as error:
                if not r.is_away(error):
                    raise
            self.get(task_id)  # waits until the worker is there

    def stream(self, task_id: str) -> Iterator[str]:
        """The text of a task or workflow as it is written."""
        for event in self.events(task_id):
            if event["type"] == "text":
                yield event["data"]["text"]

    def cancel(self, task_id: str) -> Task:
        """End a task; what has ended stays as it is."""
        return self.call("task.cancel", {"task_id": task_id})

    def retry(self, task_id: str) -> Task:
        """Run once more what did not succeed."""
        return self.call("task.retry", {"task_id": task_id})

    def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Any method of the worker that may be sent twice; one that restarts is waited for.

        Raises:
            RpcError: what the worker says; LOST, there is none.
        """
        until_s: float | None = None
        while True:
            try:
                answer: dict[str, Any] = self._client.call(method, params)
                self._was_there = True
                return answer
            except RpcError as error:
                now_s = time.monotonic()
                if not r.is_away(error):
                    raise
                until_s = until_s or now_s + (r.PATIENCE_S if self._was_there else 0.0)
                if now_s >= until_s:
                    raise r.no_worker(error) from None
            time.sleep(_PAUSE_S)

    def close(self) -> None:
        """Close the connection; what was submitted goes on."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
