"""Background responses: run by the process that took them, written down event by event, read by any.

The store is the only channel between processes, so readers in other processes look again every
`_LOOK_EVERY_S`; those in this process are woken. While anything runs here, the store is shown every
`_BEAT_EVERY_S` that this process lives, and learns what was cancelled or deleted elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from ccd_gateway.answer.backend import Backend
from ccd_gateway.answer.lines import Delta
from ccd_gateway.errors import fault, from_rpc, overloaded
from ccd_gateway.responses.events import ResponseEvents
from ccd_gateway.responses.job import ResponseJob, ignored_by_daemon
from ccd_gateway.responses.resource import failed, note_ignored
from ccd_gateway.responses.storage.store import ResponseStore
from ccd_gateway.responses.storage.table import ResponseTable
from ccd_gateway.surface.driver import KEEPALIVE
from ccd_gateway.surface.refusals import renamed
from ccd_protocol.errors import RpcError

_BEAT_EVERY_S = 1.0
_LOOK_EVERY_S = 0.1
_MAX_RUNNING = 32
_MAX_WAITING = 256
_SILENCE_S = 3600.0
_log = logging.getLogger(__name__)

STOPPED = {
    "type": "server_error",
    "code": "server_error",
    "message": "The gateway process that ran this response ended before it was complete.",
    "param": None,
}


def obituary(body: bytes, sequence: int) -> tuple[bytes, bytes]:
    """What the store notes about a response whose process has died."""
    response = msgspec.json.decode(body)
    events = ResponseEvents(response, with_summary=False, sequence=sequence)
    return msgspec.json.encode(failed(response, STOPPED)), events.fail(STOPPED)


class _Gone(Exception):
    """The response was cancelled or deleted."""


class _Run:
    """One response that runs here."""

    def __init__(self, job: ResponseJob) -> None:
        self.job = job
        self.events = job.events()
        self.written = 0  # events in the store
        self.changed = asyncio.Event()  # replaced after every change
        self.task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class BackgroundRuns:
    """The background responses of one gateway process."""

    def __init__(self, backend: Backend, store: ResponseStore) -> None:
        self._backend = backend
        self._store = store
        self._owner = ""
        self._runs: dict[str, _Run] = {}
        self._slots = asyncio.Semaphore(_MAX_RUNNING)
        self._beat: asyncio.Task[None] | None = None

    async def start(self, job: ResponseJob) -> dict[str, Any]:
        """Store a response as queued and begin to work on it.

        Returns:
            The response as it is now.

        Raises:
            ApiError: 503, there are too many.
            RpcError: STORAGE.
        """
        if len(self._runs) >= _MAX_RUNNING + _MAX_WAITING:
            raise overloaded(
                "There are as many background responses as this gateway takes. Try again later.", 10
            )
        job.response["status"] = "queued"
        note_ignored(job.response, job.ignored)
        run = _Run(job)
        response_id = job.response["id"]
        self._runs[response_id] = run
        self._owner = self._owner or secrets.token_hex(16)  # after the fork, so that each process has its own
        try:
            events = run.events.status("created") + run.events.status("queued")
            await self._store.do(
                ResponseTable.put,
                *(job.tenant, job.row(run.events.response), job.item_ids(run.events.response), time.time()),
                owner=self._owner,
                beat_s=time.monotonic(),
                events=events,
            )
        except BaseException:
            del self._runs[response_id]
            raise
        queued = dict(run.events.response)
        run.written = run.events.output.sequence
        run.task = asyncio.create_task(self._work(run))
        if self._beat is None:
            self._beat = asyncio.create_task(self._beats())
        return queued

    def cancelled(self, response_id: str) -> None:
        """Stop working on a response that the store has marked as ended."""
        run = self._runs.get(response_id)
        if run is not None and run.task is not None:
            run.task.cancel()

    async def close(self) -> None:
        """Stop everything; what has not ended is marked as failed."""
        runs = [run for run in self._runs.values() if run.task is not None]
        tasks = [run.task for run in runs if run.task is not None]
        if self._beat is not None:
            tasks.append(self._beat)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def follow(
        self, tenant: str, response_id: str, after: int, keepalive_s: float
    ) -> AsyncGenerator[bytes, None]:
        """The events of a stored response from the one after `after` to the last, those to come included."""
        quiet_since_s = time.monotonic()
        while True:
            run = self._runs.get(response_id)
            changed = run.changed if run is not None else None
            # The row is read first: what is written between the two is then seen by the second.
            row = await self._store.do(ResponseTable.get, tenant, response_id, time.monotonic())
            events = await self._store.do(ResponseTable.events, response_id, after)
            if events:
                after += events.count(b"\n\n")
                quiet_since_s = time.monotonic()
                yield events
            if row is None or not row.running:
                return
            if time.monotonic() - quiet_since_s >= keepalive_s:
                quiet_since_s = time.monotonic()
                yield KEEPALIVE
            await _either(changed, min(keepalive_s, 1.0) if changed else _LOOK_EVERY_S)

    # --- the work ---

    async def _work(self, run: _Run) -> None:
        try:
            async with self._slots:
                await self._answer(run)
        except _Gone:
            pass
        except asyncio.CancelledError:
            await asyncio.shield(self._fail(run, STOPPED))  # without effect if it was cancelled in the store
            raise
        except RpcError as error:
            await self._fail(run, from_rpc(renamed(error, run.job.name_of)).error)
        except Exception:
            _log.exception("a background response failed")
            await self._fail(run, fault().error)
        finally:
            del self._runs[run.job.response["id"]]
            run.wake()

    async def _answer(self, run: _Run) -> None:
        events = run.events
        events.response["status"] = "in_progress"
        await self._write(run, events.status("in_progress"))
        turn = await self._backend.start(run.job.params, _SILENCE_S)
        try:
            deltas: list[Delta] | None = turn.first
            while deltas is not None:
                made = events.pieces(deltas)
                if made:
                    await self._write(run, made)
                deltas = await turn.deltas(_SILENCE_S)
            note_ignored(events.response, ignored_by_daemon(turn.result))
            made = events.finish(turn.result, int(time.time()))
        finally:
            turn.close()
        await self._write(run, made)

    async def _write(self, run: _Run, made: bytes) -> None:
        """Store events, and the response whenever it has changed its status."""
        response = run.events.response
        status = response["status"]
        kept = await self._store.do(
            ResponseTable.append,
            *(response["id"], self._owner, run.written, made, time.monotonic()),
            status=status,
            body=None if status == "in_progress" and run.written > 2 else msgspec.json.encode(response),
            item_ids=() if status == "in_progress" else run.job.item_ids(response),
        )
        if not kept:
            raise _Gone
        run.written = run.events.output.sequence
        run.wake()

    async def _fail(self, run: _Run, error: dict[str, Any]) -> None:
        events = run.events
        events.output.sequence = run.written
        event = events.fail(error)
        events.response = failed({**events.response, "output": []}, error)
        with contextlib.suppress(_Gone, RpcError):  # a store that fails writes a log line of its own
            await self._write(run, event)

    # --- showing that this process lives ---

    async def _beats(self) -> None:
        """Until nothing runs here any more."""
        while self._runs:
            await asyncio.sleep(_BEAT_EVERY_S)
            known = list(self._runs)  # one that is begun during the look is not missing
            with contextlib.suppress(RpcError):
                running = await self._store.do(ResponseTable.beat, self._owner, time.monotonic())
                for response_id in known:
                    if response_id not in running:
                        self.cancelled(response_id)
        self._beat = None


async def _either(changed: asyncio.Event | None, longest_s: float) -> None:
    """Wait until something has changed, for `longest_s` at most."""
    if changed is None:
        await asyncio.sleep(longest_s)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(longest_s):
            await changed.wait()
