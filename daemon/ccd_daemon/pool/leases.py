"""Who gets which worker, and who waits for one.

A lease takes the tenant's own idle worker first (it is warmest), then a spare, then an idle worker of somebody else
after a confirmed reset; LIFO each time, so that surplus ages out. Otherwise the caller queues, tenants in turn.

A worker that is handed to a caller in the very moment when the caller is cancelled must be offered again, or it would
be nobody's for ever: hence `except BaseException` around the wait. `except Exception` would lose it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from ccd_daemon.claude.login import Mode
from ccd_daemon.config import Settings
from ccd_daemon.pool import refusal
from ccd_daemon.pool.allocation import Allocation
from ccd_daemon.pool.policy import Login
from ccd_daemon.pool.recognition import Miss, Recognition
from ccd_daemon.pool.room import Room
from ccd_daemon.pool.shelf import LeaseWish, Shelf, Waiter
from ccd_daemon.pool.spawner import Spawner
from ccd_daemon.worker.lifecycle import Event, State
from ccd_daemon.worker.wear import release_event
from ccd_daemon.worker.worker import Worker
from ccd_protocol.errors import Code, RpcError

log = logging.getLogger("ccd.pool")

_TURN_GUESS_S = 2.0  # before any turn was measured
_UNHURRIED_DELAY_S = 1.5
_REFILL_DELAY_S = 0.25  # a start costs a core for 0.3 s, which the turn just begun needs more


class LeasingPool(Protocol):
    """What leases depend on: the pool."""

    mode: Mode
    draining: bool
    login: Login
    counters: dict[str, int]

    def look_at_login(self) -> None:
        """See whether the workers still have the login in force."""

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
        self._spawner = spawner
        self._loop = asyncio.get_running_loop()
        self._leased: set[Worker] = set()
        self._turn_s = _TURN_GUESS_S
        self._allocation = Allocation(
            shelves.values(), settings.max_workers, room, self._refill, self._hand_over, self._reset
        )

    def adapt(self) -> None:
        """The settings have changed."""
        self._allocation.max_workers = self._settings.max_workers

    def holds(self, worker: Worker) -> bool:
        """Returns whether a call has this worker."""
        return worker in self._leased

    def lost(self, worker: Worker) -> None:
        """A worker has ended."""
        self._leased.discard(worker)

    async def lease(self, profile: str, wish: LeaseWish) -> Worker:
        """Returns a worker for one turn, HELD by the caller, who must `release` it.

        Raises:
            RpcError: DRAINING, WORKER_SPAWN (breaker open), BUSY (queue full or waited too long), UPSTREAM_AUTH. The
                retryable ones carry `retry_after_ms`.
        """
        shelf = self._shelves[profile]
        if self._pool.draining:
            raise refusal.shutting_down()
        self._pool.look_at_login()
        self._pool.counters["leases"] += 1
        shelf.in_use = True
        shelf.saw(wish.binding)
        worker = self._allocation.take(shelf, wish) if not len(shelf.queue) else None
        if worker is None:
            self._refuse_login()
            return await self._wait(shelf, wish)
        self._spawner.refill_in(_UNHURRIED_DELAY_S if self._may_rest(shelf) else _REFILL_DELAY_S)
        return worker

    def _refuse_login(self) -> None:
        """Where a refused request costs its process, a login that is refused must not have one started each time."""
        if self._pool.mode == Mode.REPLAY and not self._pool.login.may_try(self._loop.time()):
            raise RpcError(Code.UPSTREAM_AUTH, self._pool.login.refusal or "")

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
        waiter = Waiter(wish, self._loop.create_future(), self._loop.time())
        shelf.queue.push(wish.tenant, waiter)
        self.serve()
        try:
            async with asyncio.timeout(self._settings.queue.timeout_s):
                return await waiter.future
        except BaseException as error:
            shelf.queue.remove(wish.tenant, waiter)
            self._take_back(waiter.future)
            if isinstance(error, TimeoutError):
                text = f"no CLI process became free within {self._settings.queue.timeout_s:g} s (queue.timeout_s)"
                raise self._busy(shelf, text) from None
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
            text = f"{shelf.queue.max_per_tenant} requests wait already (queue.max_waiting)"
            raise self._busy(shelf, text)

    def _busy(self, shelf: Shelf, why: str) -> RpcError:
        self._pool.counters["refused"] += 1
        shelves = self._shelves.values()
        alive = sum(len(other.workers) for other in shelves)
        processes = refusal.Processes(
            most=self._settings.max_workers,
            alive=alive,
            starting=sum(other.starting() for other in shelves),
            idle=sum(1 for other in shelves for _ in other.idle()),
        )
        waiting, workers = len(shelf.queue), len(shelf.workers)
        return refusal.busy(why, processes, waiting=waiting, workers=workers, turn_s=self._turn_s)

    def release(self, worker: Worker) -> None:
        """End a lease. A worker whose turn is still being interrupted comes back when that is done."""
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

    def login_said(self, error: RpcError) -> None:
        """What a failure says of the login; an API that refuses for another reason has accepted it."""
        login = self._pool.login
        if error.code is not Code.UPSTREAM_AUTH:
            if isinstance(error.data.get("upstream_status"), int):
                login.worked()
            return
        if login.refusal is None:
            log.warning("the login is refused; no spares are started until it works again")
        login.refused(self._loop.time(), error.message)

    def turn_took(self, seconds: float) -> None:
        """A turn was answered: learn how long turns take, for `retry_after_ms`; the login works."""
        self._pool.login.worked()
        self._pool.counters["turns"] += 1
        self._turn_s += 0.1 * (seconds - self._turn_s)

    def serve(self) -> None:
        """Something has changed: see what every waiting caller can have."""
        self._allocation.serve()

    def _refill(self) -> None:
        if all(self._may_rest(shelf) for shelf in self._shelves.values()):
            self._spawner.refill_in(_UNHURRIED_DELAY_S)
        else:
            self._spawner.refill()

    def _may_rest(self, shelf: Shelf) -> bool:
        """Whether a spare is left where conversations keep their processes; their next turns need the core more."""
        spare = shelf.generic_spares() > 0 or not (shelf.in_use and shelf.spare_target)
        return self._pool.mode == Mode.REPLAY and not len(shelf.queue) and spare

    def _reset(self, worker: Worker) -> None:
        self._pool.counters["resets"] += 1
        worker.feed(Event.REKEY)
