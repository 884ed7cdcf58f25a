"""The workers of all profiles: who is idle, who waits, what to start.

Spares are generic: warm processes that have heard nobody. A lease takes the tenant's own idle worker first (it is
warmest), then a spare, then an idle worker of somebody else after a confirmed reset; LIFO each time, so that surplus
ages out. Otherwise the caller queues, and `spawner` starts processes for the queue and for the spares.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

from ccd_daemon.claude.login import Mode
from ccd_daemon.config import Settings
from ccd_daemon.pool import refusal
from ccd_daemon.pool.policy import Breaker, FairQueue, Login, Rehearsals
from ccd_daemon.pool.recognition import Miss, Recognition
from ccd_daemon.pool.room import Room
from ccd_daemon.pool.shelf import LeaseWish, Shelf, Waiter
from ccd_daemon.pool.spawner import Orders, Spawner
from ccd_daemon.worker.lifecycle import STARTING, Event, State
from ccd_daemon.worker.wear import release_event
from ccd_daemon.worker.worker import Worker
from ccd_protocol.errors import Code, RpcError

log = logging.getLogger("ccd.pool")

Launch = Callable[[Worker], None]
_TURN_GUESS_S = 2.0  # before any turn was measured
_LOGIN_PROBE_S = 5.0
_REFILL_DELAY_S = 0.25  # a start costs a core for 0.3 s, which the turn just begun needs more


class Pool:
    """All workers of the daemon."""

    def __init__(
        self, settings: Settings, mode: Mode, launch: Launch, *, private_login: bool = False
    ) -> None:
        self.mode = mode
        self.draining = False
        self._hurried = False
        self.counters = dict.fromkeys(
            ("spawned", "died_unready", "turns", "resets", "refused", "surplus_calls", "leases"), 0
        )
        self._settings = settings
        self._launch = launch
        self._loop = asyncio.get_running_loop()
        self._random = Random()
        self._next_id = 0
        self._turn_s = _TURN_GUESS_S
        self._all_gone = asyncio.Event()
        self.pressed = False  # the host is short of memory: no spares are started
        self.on_ended: Callable[[], None] = _nothing
        self.models: list[dict[str, object]] = []
        self.announced: list[str] = []
        self.cli_version: str | None = None
        self.last_death: str | None = None
        self.refused_modes: dict[Mode, str] = {}
        self.proven_modes: set[Mode] = set()  # those in which an answer has come
        self.login = Login(_LOGIN_PROBE_S)
        self.rehearsals = Rehearsals(settings.pool.rehearse and mode == Mode.FULL and private_login)
        self._rehearsing: set[Worker] = set()
        self.recognition = Recognition()
        self._leased: set[Worker] = set()
        self.shelves = {name: self._shelf(name) for name in settings.profiles}
        self._moved = asyncio.Event()  # a process has become ready, or ended
        self._held = 0  # nothing may be started while it is not 0
        self._room = Room(self.shelves.values(), self.recognition)
        self._spawner = Spawner(self.shelves, settings, self._orders, self._spawn, self._room.for_spare)

    def _shelf(self, name: str) -> Shelf:
        profile, limits = self._settings.profiles[name], self._settings.breaker
        breaker = Breaker(
            limits.deaths, limits.window_s, limits.backoff_s, limits.max_backoff_s, self._random
        )
        target = self._settings.pool.spares if profile.spares is None else profile.spares
        return Shelf(name, target, breaker, FairQueue(self._settings.queue.max_waiting), profile.prefork)

    # --- facts ---

    @property
    def workers(self) -> list[Worker]:
        """Every worker that is not dead."""
        return [worker for shelf in self.shelves.values() for worker in shelf.workers]

    @property
    def waiting(self) -> int:
        """Callers in the queues."""
        return sum(len(shelf.queue) for shelf in self.shelves.values())

    def broken(self) -> Shelf | None:
        """A profile whose processes cannot be started."""
        return next((shelf for shelf in self.shelves.values() if shelf.breaker.is_open), None)

    # --- leasing ---

    async def lease(self, profile: str, wish: LeaseWish) -> Worker:
        """A worker for one turn, HELD by the caller, who must `release` it.

        Raises:
            RpcError: NOT_FOUND (no such profile), DRAINING, WORKER_SPAWN (breaker open), BUSY (queue full or waited
                too long). The retryable ones carry `retry_after_ms`.
        """
        shelf = self.shelves.get(profile)
        if shelf is None:
            known = ", ".join(sorted(self.shelves))
            raise RpcError(
                Code.MODEL_NOT_FOUND,
                f"there is no profile {profile!r}; there are: {known}",
                {"param": "model"},
            )
        if self.draining:
            raise refusal.shutting_down()
        # With one process per request, a refused login must not cost a process each time.
        if self.mode == Mode.REPLAY and not self.login.may_try(self._loop.time()):
            raise RpcError(Code.UPSTREAM_AUTH, self.login.refusal or "")
        self.counters["leases"] += 1
        shelf.in_use = True
        shelf.saw(wish.binding)
        worker = shelf.take(wish) if not len(shelf.queue) else None
        if worker is None:
            return await self._wait(shelf, wish)
        self._hand_over(shelf, worker, wish)
        self._spawner.refill_in(_REFILL_DELAY_S)
        return worker

    def _hand_over(self, shelf: Shelf, worker: Worker, wish: LeaseWish) -> None:
        self.recognition.came(wish.places, worker.parking.place)
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
        self._serve(shelf)
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
            raise _cannot_spawn(shelf, wait_s)
        if shelf.queue.full_for(tenant):
            raise self._busy(shelf, f"{shelf.queue.max_per_tenant} requests are waiting already")

    def _busy(self, shelf: Shelf, why: str) -> RpcError:
        self.counters["refused"] += 1
        waiting, workers = len(shelf.queue), len(shelf.workers)
        return refusal.busy(why, waiting=waiting, workers=workers, turn_s=self._turn_s)

    def release(self, worker: Worker) -> None:
        """End a lease. A worker whose turn is still being interrupted comes back by itself when that is done."""
        self._leased.discard(worker)
        if worker.state is State.HELD:
            reusable = worker.mode == self.mode and not worker.stale
            forgets = worker.mode != Mode.REPLAY
            reusable = reusable and (forgets or worker.parking.place is not None)
            event = release_event(
                worker.wear, worker.wear_limits, age_s=worker.age_s, reusable=reusable, forgets=forgets
            )
            if worker.parking.spoilt is not None:
                self.recognition.left(worker.parking.spoilt, Miss.SPOILT)
            self.counters["resets"] += event is Event.RELEASE_RESET
            worker.feed(event)
        elif worker.turns.turn is not None:
            worker.turns.turn.given_up = True
        elif worker.state is State.PARKED:
            self.shelve(worker)

    def login_refused(self, why: str) -> None:
        """The API does not accept the login: start no spares, and let only one caller at a time find out again."""
        if self.login.refusal is None:
            log.warning("the login is refused; no spares are started until it works again")
        self.login.refused(self._loop.time(), why)

    def turn_took(self, seconds: float) -> None:
        """A turn was answered: learn how long turns take, for `retry_after_ms`; the login works."""
        self.login.worked()
        self.counters["turns"] += 1
        self._turn_s += 0.1 * (seconds - self._turn_s)

    # --- what workers tell (see `worker.WorkerListener`) ---

    def may_rehearse(self, worker: Worker) -> bool:
        """Nobody waits, and rehearsals are of use."""
        shelf = self.shelves[worker.profile]
        fit = worker.mode == self.mode == Mode.FULL and not (worker.stale or self.draining or self.pressed)
        if not fit or len(shelf.queue) or not self.rehearsals.allowed:
            return False
        self._rehearsing.add(worker)
        return True

    def rehearsed(self, worker: Worker, fault: str | None) -> None:
        """A rehearsal has ended; what remains is to forget it."""
        if fault is not None:
            log.warning("spares rehearse no more: %s", fault)
        self.rehearsals.ended(fault)

    def offer(self, worker: Worker) -> None:
        """A worker is READY: for a waiter, else for the shelf."""
        if worker.stale:
            worker.feed(Event.STOP)
            return
        shelf = self.shelves[worker.profile]
        self._rehearsing.discard(worker)
        if worker.wear.turns == 0:
            shelf.breaker.warmed()
        self.models = worker.models or self.models
        self.announced = worker.announced or self.announced
        self.cli_version = worker.cli_version or self.cli_version
        shelf.put(worker)
        if worker.parking.place is not None:
            self.recognition.stands(worker.parking.place)
        if worker.mode != self.mode:
            worker.feed(Event.STOP)  # started before the mode was given up
        self._serve(shelf)

    def shelve(self, worker: Worker) -> None:
        """A worker is PARKED: it is kept for the client's next request, once this one is over."""
        if worker in self._leased:
            return
        if worker.stale or worker.mode != self.mode:
            worker.feed(Event.STOP)
            return
        self.shelves[worker.profile].put(worker)
        self.recognition.stands(worker.parking.place or "")

    def withdraw(self, worker: Worker) -> None:
        """A worker is no longer READY or PARKED."""
        shelf = self.shelves[worker.profile]
        shelf.remove(worker)

    def idle(self, worker: Worker) -> None:
        """A turn that was given up has ended."""
        self.release(worker)

    def ended(self, worker: Worker) -> None:
        """A worker has ended: replace it, unless starting does not work."""
        shelf = self.shelves[worker.profile]
        shelf.workers.discard(worker)
        self._leased.discard(worker)
        if worker.parking.place is not None:
            self.recognition.left(worker.parking.place, worker.parted)
        self.counters["surplus_calls"] += worker.wear.surplus_calls
        self.last_death = f"{worker.id}: {worker.death}"
        log.info("worker %s ended: %s (turns %d)", worker.id, worker.death, worker.wear.turns)
        if not worker.was_ready and not worker.stale and not self.draining:
            self._died_unready(shelf, worker)
        if worker in self._rehearsing:
            self._rehearsing.discard(worker)
            self.rehearsals.lost(f"a spare ended in its rehearsal: {worker.death}")
        if self.draining and not self.workers:
            self._all_gone.set()
        self.on_ended()
        self._serve(shelf)

    def _died_unready(self, shelf: Shelf, worker: Worker) -> None:
        self.counters["died_unready"] += 1
        shelf.last_words = worker.stderr_tail[-300:]
        reason = shelf.last_words or worker.death or "it ended at once"
        shelf.breaker.died(self._loop.time(), reason)
        log.warning("worker %s ended before it was ready: %s", worker.id, reason)
        wait_s = shelf.breaker.wait_s(self._loop.time())
        if wait_s and not shelf.workers:
            shelf.refuse_waiting(lambda: _cannot_spawn(shelf, wait_s))

    # --- serving the queue ---

    def _serve(self, shelf: Shelf) -> None:
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
        self._moved.set()
        self._spawner.refill()
        if len(shelf.queue):
            self._borrow(shelf)

    def _borrow(self, shelf: Shelf) -> None:
        """Reset an idle worker of another tenant, or end an idle one of another profile, for the next waiter."""
        resetting = sum(worker.state is State.RESETTING for worker in shelf.workers)
        waiter = shelf.queue.peek()
        if waiter is None or resetting >= len(shelf.queue):
            return
        worker = shelf.to_reset(waiter.wish)
        if worker is not None:
            self.counters["resets"] += 1
            worker.feed(Event.REKEY)
        elif not shelf.starting() and len(self.workers) >= self._settings.max_workers:
            self._room.for_waiter(shelf)

    # --- starting processes ---

    def _orders(self) -> Orders | None:
        if self.draining or self._held:
            return None
        prepare = self.login.refusal is None and not self.pressed
        return Orders(
            spares=prepare,
            favourites=prepare and self.mode == Mode.KEEP_SYSTEM,
            instead_of_bound=prepare and self.mode == Mode.REPLAY and self._settings.max_workers > 1,
        )

    def _spawn(self, shelf: Shelf, binding: str | None) -> None:
        self._next_id += 1
        worker = Worker(f"w{self._next_id}", shelf.profile, self.mode, self._settings, self)
        worker.binding = binding
        shelf.workers.add(worker)
        self.counters["spawned"] += 1
        self._launch(worker)

    def start(self) -> None:
        """Begin to warm the spares of the preforked profiles."""
        self._spawner.refill()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Nothing is started within the block, and nothing is still starting when it begins.

        For somebody else's process that shares a configuration with the workers; they tear it when they start together.
        """
        self._held += 1
        try:
            while any(shelf.starting() for shelf in self.shelves.values()):
                self._moved.clear()
                await self._moved.wait()
            yield
        finally:
            self._held -= 1
            self._spawner.refill()

    # --- what housekeeping finds ---

    def under_pressure(self, pressed: bool) -> None:
        """The host is short of memory, or no longer: start no spares, and end one idle process each time.

        Callers that wait are served all the same.
        """
        relieved, self.pressed = self.pressed and not pressed, pressed
        if pressed and not self.waiting:
            self._room.for_the_host()
        elif relieved:
            self._spawner.refill()

    def roll(self) -> None:
        """The CLI was replaced: idle processes end now, those in use when they are given back."""
        for worker in self.workers:
            worker.stale = True
            if worker.state in STARTING or worker.state is State.READY:
                worker.feed(Event.STOP)
        self.models, self.announced, self.cli_version = [], [], None

    def degrade(self, mode: Mode, reason: str) -> None:
        """The backend refuses the mode in force: go on in a slower one, with new workers."""
        log.warning("mode %s is refused by the backend (%s); going on with %s", self.mode, reason, mode)
        self.refused_modes[self.mode] = reason
        self.mode = mode
        for shelf in self.shelves.values():
            for worker in list(shelf.idle()):
                worker.feed(Event.STOP)
        self._spawner.refill()

    # --- stopping ---

    def hurry(self) -> None:
        """Stop waiting for running turns."""
        self._hurried = True

    async def stop(self, grace_s: float) -> None:
        """Take no more leases, let running turns end within `grace_s`, then end every process and wait for it."""
        self.draining = True
        for shelf in self.shelves.values():
            shelf.refuse_waiting(refusal.shutting_down)
        deadline = self._loop.time() + grace_s
        while any((turn := worker.turns.turn) is not None and not turn.over for worker in self.workers):
            if self._hurried or self._loop.time() >= deadline:
                break
            await asyncio.sleep(0.02)
        for worker in self.workers:
            worker.feed(Event.STOP)
        if self.workers:
            limits = self._settings.deadlines
            async with asyncio.timeout(limits.drain_grace_s + 3 * limits.kill_grace_s + 5):
                await self._all_gone.wait()


def _nothing() -> None:
    """Nobody listens for burials yet."""


def _cannot_spawn(shelf: Shelf, wait_s: float) -> RpcError:
    return refusal.cannot_spawn(shelf.breaker.reason, shelf.last_words, wait_s)
