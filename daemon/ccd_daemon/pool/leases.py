"""Who gets which worker, and who waits for one.

A lease takes the tenant's own idle worker first (it is warmest), then a spare, then an idle worker of somebody else
after a confirmed reset; LIFO each time, so that surplus ages out. Otherwise the caller queues, tenants in turn.

A worker that is handed to a caller in the very moment when the caller is cancelled must be offered again, or it would
be nobody's for ever: hence `except BaseException` around the wait. `except Exception` would lose it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from ccd_daemon.claude.login import Mode
from ccd_daemon.config import Settings
from ccd_daemon.pool import refusal
from ccd_daemon.pool.policy import Login
from ccd_daemon.pool.recognition import Miss, Recognition
from ccd_daemon.pool.room import Room
from ccd_daemon.pool.shelf import LeaseWish, Shelf, Waiter
from ccd_daemon.pool.spawner import Spawner
from ccd_daemon.worker.lifecycle import Event, State
from ccd_daemon.worker.wear import release_event
from ccd_daemon.worker.worker import Worker
from ccd_protocol.errors import Code, RpcError

_TURN_GUESS_S = 2.0  # before any turn was measured
_UNHURRIED_DELAY_S = 1.5
_REFILL_DELAY_S = 0.25  # a start costs a core for 0.3 s, which the turn just begun needs more


class LeasingPool(Protocol):
    """What leases depend on: the pool."""

    mode: Mode
    draining: bool
    login: Login
    counters: dict[str, int]

    def shelve(self, worker: Worker) -> None:
        """A worker is PARKED, and no call has it."""


class Leases:
    """The workers that calls have, and the calls that wait for one."""

    def __init__(
        self,
        pool: LeasingPool,
        shelves: Mapping[str, Shelf],
        settings: Settings,
        recognition: Recognition,
        room: Room,
        spawner: Spawner,
    ) -> None:
        self._pool = pool
        self._shelves = shelves
        self._settings = settings
        self._recognition = recognition
        self._room = room
        self._spawner = spawner
        self._loop = asyncio.get_running_loop()
        self._leased: set[Worker] = set()
        self._turn_s = _TURN_GUESS_S

    def holds(self, worker: Worker) -> bool:
        """Whether a call has this worker."""
        return worker in self._leased

    def lost(self, worker: Worker) -> None:
        """A worker has ended."""
        self._leased.discard(worker)

    async def lease(self, profile: str, wish: LeaseWish) -> Worker:
        """A worker for one turn, HELD by the caller, who must `release` it.

        Raises:
            RpcError: DRAINING, WORKER_SPAWN (breaker open), BUSY (queue full or waited too long), UPSTREAM_AUTH. The
                retryable ones carry `retry_after_ms`.
        """
        shelf = self._shelves[profile]
        if self._pool.draining:
            raise refusal.shutting_down()
        # With one process per request, a refused login must not cost a process each time.
        if self._pool.mode == Mode.REPLAY and not self._pool.login.may_try(self._loop.time()):
            raise RpcError(Code.UPSTREAM_AUTH, self._pool.login.refusal or "")
        self._pool.counters["leases"] += 1
        shelf.in_use = True
        shelf.saw(wish.binding)
        worker = shelf.take(wish) if not len(shelf.queue) else None
        if worker is None:
            return await self._wait(shelf, wish)
        self._hand_over(shelf, worker, wish)
        self._spawner.refill_in(_UNHURRIED_DELAY_S if self._may_rest(shelf) else _REFILL_DELAY_S)
        return worker

    def _hand_over(self, shelf: Shelf, worker: Worker, wish: LeaseWish) -> None:
        self._recognition.came(wish.places, worker.parking.place)
        if worker.state is State.PARKED:
            shelf.remove(worker)  # it stays parked until the results are written
        else:
            worker.feed(Event.LEASE)
        worker.tenant = wish.tenant
        self._leased.add(worker)

    async def _wait(self, shelf: Shelf, wish: LeaseWish) -> Worker:
        self._refuse_hopeless(shelf, wish.tenant)
        waiter = Waiter(wish, self._loop.create_future())
        shelf.queue.push(wish.tenant, waiter)
        self.serve(shelf)
        try:
            async with asyncio.timeout(self._settings.queue.timeout_s):
                return await waiter.future
        except BaseException as error:
            shelf.queue.remove(wish.tenant, waiter)
            self._take_back(waiter.future)
            if isinstance(error, TimeoutError):
                raise self._busy(shelf, "no CLI process became free in time") from None
            raise

    def _take_back(self, handed: asyncio.Future[Worker]) -> None:
        """A worker that was handed to a caller in the very moment when the caller stopped waiting is offered again."""
        if handed.done() and not handed.cancelled() and handed.exception() is None:
            self.release(handed.result())

    def _refuse_hopeless(self, shelf: Shelf, tenant: str) -> None:
        wait_s = shelf.breaker.wait_s(self._loop.time())
        if wait_s and not shelf.workers:
            raise shelf.cannot_spawn(wait_s)
        if shelf.queue.full_for(tenant):
            raise self._busy(shelf, f"{shelf.queue.max_per_tenant} requests are waiting already")

    def _busy(self, shelf: Shelf, why: str) -> RpcError:
        self._pool.counters["refused"] += 1
        waiting, workers = len(shelf.queue), len(shelf.workers)
        return refusal.busy(why, waiting=waiting, workers=workers, turn_s=self._turn_s)

    def release(self, worker: Worker) -> None:
        """End a lease. A worker whose turn is still being interrupted comes back by itself when that is done."""
        self._leased.discard(worker)
        if worker.state is State.HELD:
            reusable = worker.mode == self._pool.mode and not worker.stale
            forgets = worker.mode != Mode.REPLAY
            reusable = reusable and (forgets or worker.parking.place is not None)
            event = release_event(
                worker.wear, worker.wear_limits, age_s=worker.age_s, reusable=reusable, forgets=forgets
            )
            if worker.parking.spoilt is not None:
                self._recognition.left(worker.parking.spoilt, Miss.SPOILT)
            self._pool.counters["resets"] += event is Event.RELEASE_RESET
            worker.feed(event)
        elif worker.turns.turn is not None:
            worker.turns.turn.given_up = True
        elif worker.state is State.PARKED:
            self._pool.shelve(worker)

    def turn_took(self, seconds: float) -> None:
        """A turn was answered: learn how long turns take, for `retry_after_ms`; the login works."""
        self._pool.login.worked()
        self._pool.counters["turns"] += 1
        self._turn_s += 0.1 * (seconds - self._turn_s)

    def serve(self, shelf: Shelf) -> None:
        """Give idle workers to waiters, fetch one from another tenant if there is none, then start what is missing."""
        while (waiter := shelf.queue.peek()) is not None:
            if waiter.future.done():
                shelf.queue.pop()
                continue
            worker = shelf.take(waiter.wish)
            if worker is None:
                break
            shelf.queue.pop()
            self._hand_over(shelf, worker, waiter.wish)
            waiter.future.set_result(worker)
        if self._may_rest(shelf):
            self._spawner.refill_in(_UNHURRIED_DELAY_S)
            return
        self._spawner.refill()
        if len(shelf.queue):
            self._borrow(shelf)

    def _may_rest(self, shelf: Shelf) -> bool:
        """Whether a spare is left where conversations keep their processes; their next turns need the core more."""
        return self._pool.mode == Mode.REPLAY and not len(shelf.queue) and shelf.generic_spares() > 0

    def _borrow(self, shelf: Shelf) -> None:
        """Reset an idle worker of another tenant, or end an idle one of another profile, for the next waiter."""
        resetting = sum(worker.state is State.RESETTING for worker in shelf.workers)
        waiter = shelf.queue.peek()
        if waiter is None or resetting >= len(shelf.queue):
            return
        worker = shelf.to_reset(waiter.wish)
        if worker is not None:
            self._pool.counters["resets"] += 1
            worker.feed(Event.REKEY)
        elif not shelf.starting() and self._spawner.full:
            self._room.for_waiter(shelf)
