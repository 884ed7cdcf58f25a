"""The gateway's side of `ccd worker`'s socket."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from ccd_client import AsyncStream
from ccd_gateway.access.caller import Caller
from ccd_gateway.access.permission import Known
from ccd_gateway.answer.backend import Backend
from ccd_gateway.errors import ApiError
from ccd_protocol.errors import Code, RpcError

_CALL_S = 60.0
_WAIT_S = 60.0  # one long poll to the worker; longer waits are several
_SLACK_S = 10.0
Task = dict[str, Any]
Item = dict[str, Any]


class TaskWorker:
    """Calls on behalf of a caller, who sees what its tenant has.

    Args:
        worker: of the worker's socket.
        daemon: of the daemon's, which knows what a key may ask for.
    """

    def __init__(self, worker: Backend, daemon: Backend) -> None:
        self._worker = worker
        self._daemon = daemon

    async def call(
        self, caller: Caller, method: str, params: Mapping[str, Any], timeout_s: float = _CALL_S
    ) -> Any:
        """One call; sent once more when the worker was lost, so it must be one that may come twice.

        Raises:
            RpcError: whatever the worker says.
            ApiError: 503, there is no worker.
        """
        try:
            return await self._worker.call(method, {**params, "tenant": caller.tenant}, timeout_s=timeout_s)
        except RpcError as error:
            raise away(error) from error

    async def permit(self, params: Any) -> Any:
        """The parameters of a chat as the caller may ask for them.

        Raises:
            RpcError: MODEL_NOT_FOUND.
        """
        return await self._daemon.permit(params)

    async def known(self) -> Known:
        """The models and profiles that the daemon has.

        Raises:
            RpcError: the daemon cannot be asked.
        """
        return await self._daemon.known()

    async def submit(self, caller: Caller, params: Mapping[str, Any]) -> Task:
        """Submit; without an idempotency key it gets one of its own, so that it may be sent twice."""
        key = params.get("idempotency_key") or f"request-{uuid.uuid4().hex}"
        owner = {"key_id": caller.key.id} if caller.key is not None else {}
        task: Task = await self.call(caller, "task.submit", {**params, **owner, "idempotency_key": key})
        return task

    async def wait(self, caller: Caller, task_id: str, wait_s: float | None) -> Task:
        """The task when it has ended, or after `wait_s` as it is."""
        left_s = wait_s
        while True:
            poll_s = _WAIT_S if left_s is None else min(left_s, _WAIT_S)
            params = {"task_id": task_id, "timeout_s": poll_s}
            task: Task = await self.call(caller, "task.wait", params, poll_s + _SLACK_S)
            left_s = None if left_s is None else left_s - poll_s
            if task["final"] or (left_s is not None and left_s <= 0):
                return task

    async def items(self, caller: Caller, task_id: str) -> AsyncIterator[Item]:
        """Every item of a task, in order."""
        after, more = -1, True
        while more:
            page = await self.call(caller, "task.items", {"task_id": task_id, "after": after})
            for item in page["items"]:
                after = item["number"]
                yield item
            more = page["has_more"]

    @asynccontextmanager
    async def events(self, caller: Caller, task_id: str, after: int) -> AsyncIterator[AsyncStream]:
        """Events of a task, open within the block."""
        params = {"task_id": task_id, "after": after, "tenant": caller.tenant}
        try:
            async with self._worker.stream("task.events", params) as stream:
                yield stream
        except RpcError as error:
            raise away(error) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._worker.close()


def away(error: RpcError) -> Exception:
    """The failure of a call, where there is no worker as a 503 that says what to start."""
    if error.code not in (Code.LOST, Code.DRAINING):
        return error
    return ApiError(
        503,
        "Tasks and batches are run by `ccd worker`, which is not there. Start it with: ccd worker  "
        "(it needs: pip install 'ccdaemon[tasks]'; `ccd up` starts it too).",
        code="worker_unavailable",
        headers=[("retry-after", "5")],
    )
