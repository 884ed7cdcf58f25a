"""The workers of all profiles: who is idle, who waits, what to start.

Spares are generic: warm processes that have heard nobody. A lease takes the tenant's own idle worker first (it is
warmest), then a spare, then an idle worker of somebody else after a confirmed reset; LIFO each time, so that surplus
ages out. Otherwise the caller queues, and processes are started for the queue and for the spares, at most one per
core at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from ccd_protocol.errors import Code, RpcError

from .config import Settings
from .lifecycle import Event, State
from .policy import Breaker, FairQueue, WearLimits, refused_retry_ms, release_event, spawns_wanted
from .worker import Worker

log = logging.getLogger("ccd.pool")

Launch = Callable[[Worker], None]
_STARTING = (State.SPAWNING, State.WARMING)
_TURN_GUESS_S = 2.0  # before any turn was measured
_REFILL_DELAY_S = 0.25  # a start costs a core for 0.3 s, which the turn just begun needs more


@dataclass(eq=False)
class Waiter:
    """A caller that waits for a worker."""

    tenant: str
    future: asyncio.Future[Worker]


@dataclass(eq=False)
class Shelf:
    """The workers of one profile."""

    profile: str
    spare_target: int
    breaker: Breaker
    queue: FairQueue[Waiter]
    in_use: bool = False  # spares are kept from the first use on
    workers: set[Worker] = field(default_factory=set)
    spares: list[Worker] = field(default_factory=list)  # READY and generic, the warmest last
    kept: dict[str, list[Worker]] = field(default_factory=dict)  # READY, by the tenant that they have heard

    def starting(self) -> int:
        """Workers on their way to READY."""
        return sum(worker.state in _STARTING for worker in self.workers)

    def take(self, tenant: str) -> Worker | None:
        """An idle worker for the tenant without a reset."""
        own = self.kept.get(tenant)
        if own:
            return own[-1]
        return self.spares[-1] if self.spares else None

    def oldest_of_others(self, tenant: str | None) -> Worker | None:
        """The idle worker of another tenant that was used longest ago."""
        others = [worker for owner, kept in self.kept.items() if owner != tenant for worker in kept]
        return min(others, key=lambda worker: worker.last_used, default=None)


class Pool:
    """All workers of the daemon."""

    def __init__(self, settings: Settings, mode: str, launch: Launch) -> None:
        self.mode = mode
        self.draining = False
        self._hurried = False
        self.counters = dict.fromkeys(
            ("spawned", "died_unready", "killed", "turns", "resets", "refused", "surplus_calls", "leases"), 0
        )
        self._settings = settings
        self._launch = launch
        self._loop = asyncio.get_running_loop()
        self._random = Random()
        self._next_id = 0
        self._wake: asyncio.TimerHandle | None = None
        self._turn_s = _TURN_GUESS_S
        self._all_gone = asyncio.Event()
        self.pressed = False  # the host is short of memory: no spares are started
        self.on_buried: Callable[[], None] = _nothing
        self.models: list[dict[str, object]] = []
        self.announced: list[str] = []
        self.cli_version: str | None = None
        self.last_death: str | None = None
        self.shelves = {name: self._shelf(name) for name in settings.profiles}

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

    async def lease(self, profile: str, tenant: str) -> Worker:
        """A worker for one turn, HELD by the caller, who must `give_back` it.

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
            raise RpcError(Code.DRAINING, "ccd is shutting down", {"retry_after_ms": 2000})
        self.counters["leases"] += 1
        shelf.in_use = True
        worker = shelf.take(tenant) if not len(shelf.queue) else None
        if worker is None:
            return await self._wait(shelf, tenant)
        self._hand_over(worker, tenant)
        self._wake_in(_REFILL_DELAY_S)
        return worker

    def _hand_over(self, worker: Worker, tenant: str) -> None:
        worker.feed(Event.LEASE)
        worker.tenant = tenant

    async def _wait(self, shelf: Shelf, tenant: str) -> Worker:
        self._refuse_hopeless(shelf, tenant)
        waiter = Waiter(tenant, self._loop.create_future())
        shelf.queue.push(tenant, waiter)
        self._serve(shelf)
        try:
            async with asyncio.timeout(self._settings.queue.timeout_s):
                return await waiter.future
        except BaseException as error:
            shelf.queue.remove(tenant, waiter)
            self._take_back(waiter.future)
            if isinstance(error, TimeoutError):
                raise self._busy(shelf, "no CLI process became free in time") from None
            raise

    def _take_back(self, handed: asyncio.Future[Worker]) -> None:
        """A worker that was handed to a caller in the very moment when the caller stopped waiting is offered again."""
        if handed.done() and not handed.cancelled() and handed.exception() is None:
            self.give_back(handed.result())

    def _refuse_hopeless(self, shelf: Shelf, tenant: str) -> None:
        wait_s = shelf.breaker.wait_s(self._loop.time())
        if wait_s and not shelf.workers:
            raise self._cannot_spawn(shelf, wait_s)
        if shelf.queue.full_for(tenant):
            raise self._busy(shelf, f"{shelf.queue.max_per_tenant} requests are waiting already")

    def _busy(self, shelf: Shelf, why: str) -> RpcError:
        self.counters["refused"] += 1
        retry_ms = refused_retry_ms(len(shelf.queue), len(shelf.workers), self._turn_s)
        return RpcError(Code.BUSY, f"every CLI process is busy: {why}", {"retry_after_ms": retry_ms})

    def _cannot_spawn(self, shelf: Shelf, wait_s: float) -> RpcError:
        reason = shelf.breaker.reason or "unknown reason"
        data = {"retry_after_ms": max(1000, int(wait_s * 1000)), "stderr_tail": shelf.breaker.reason or ""}
        return RpcError(Code.WORKER_SPAWN, f"the CLI cannot be started: {reason}", data)

    def give_back(self, worker: Worker) -> None:
        """End a lease. A worker whose turn is still being interrupted comes back by itself when that is done."""
        if worker.state is State.HELD:
            limits = self._settings.engine
            wear_limits = WearLimits(
                limits.reset_turns, limits.reset_input_tokens, limits.max_turns, limits.max_age_s
            )
            event = release_event(worker.wear(), wear_limits, reusable=self.mode == "full")
            self.counters["resets"] += event is Event.RELEASE_RESET
            worker.feed(event)
        elif worker.turn is not None:
            worker.turn.abandoned = True

    def turn_took(self, seconds: float) -> None:
        """Learn how long turns take, for `retry_after_ms`."""
        self.counters["turns"] += 1
        self._turn_s += 0.1 * (seconds - self._turn_s)

    # --- what workers tell (see `worker.Owner`) ---

    def offer(self, worker: Worker) -> None:
        """A worker is READY: for a waiter, else for the shelf."""
        if worker.stale:
            worker.feed(Event.STOP)
            return
        shelf = self.shelves[worker.profile]
        if worker.turns == 0:
            shelf.breaker.warmed()
            self.models = list(worker.models) or self.models
            self.announced = worker.announced or self.announced
            self.cli_version = worker.cli_version or self.cli_version
        if worker.tenant is None:
            shelf.spares.append(worker)
        else:
            shelf.kept.setdefault(worker.tenant, []).append(worker)
        self._serve(shelf)

    def withdraw(self, worker: Worker) -> None:
        """A worker is no longer READY."""
        shelf = self.shelves[worker.profile]
        if worker in shelf.spares:
            shelf.spares.remove(worker)
        for tenant, kept in list(shelf.kept.items()):
            if worker in kept:
                kept.remove(worker)
            if not kept:
                del shelf.kept[tenant]

    def idle(self, worker: Worker) -> None:
        """An abandoned turn has ended."""
        self.give_back(worker)

    def buried(self, worker: Worker) -> None:
        """A worker has ended: replace it, unless starting does not work."""
        shelf = self.shelves[worker.profile]
        shelf.workers.discard(worker)
        self.counters["surplus_calls"] += worker.surplus_calls
        self.last_death = f"{worker.id}: {worker.death}"
        log.info("worker %s ended: %s (turns %d)", worker.id, worker.death, worker.turns)
        if not worker.was_ready and not worker.stale and not self.draining:
            self._died_unready(shelf, worker)
        if self.draining and not self.workers:
            self._all_gone.set()
        self.on_buried()
        self._serve(shelf)

    def _died_unready(self, shelf: Shelf, worker: Worker) -> None:
        self.counters["died_unready"] += 1
        reason = worker.stderr_tail[-300:] or worker.death or "it ended at once"
        shelf.breaker.died(self._loop.time(), reason)
        log.warning("worker %s ended before it was ready: %s", worker.id, reason)
        wait_s = shelf.breaker.wait_s(self._loop.time())
        if wait_s and not shelf.workers:
            while len(shelf.queue):
                waiter = shelf.queue.pop()
                if not waiter.future.done():
                    waiter.future.set_exception(self._cannot_spawn(shelf, wait_s))

    # --- serving the queue, starting processes ---

    def _serve(self, shelf: Shelf) -> None:
        """Give idle workers to waiters, fetch one from another tenant if there is none, then start what is missing."""
        while (waiter := shelf.queue.peek()) is not None:
            if waiter.future.done():
                shelf.queue.pop()
                continue
            worker = shelf.take(waiter.tenant)
            if worker is None:
                break
            shelf.queue.pop()
            self._hand_over(worker, waiter.tenant)
            waiter.future.set_result(worker)
        self._refill()
        if len(shelf.queue):
            self._borrow(shelf)

    def _borrow(self, shelf: Shelf) -> None:
        """Reset an idle worker of another tenant, or end an idle one of another profile, for the next waiter."""
        resetting = sum(worker.state is State.RESETTING for worker in shelf.workers)
        waiter = shelf.queue.peek()
        if waiter is None or resetting >= len(shelf.queue):
            return
        worker = shelf.oldest_of_others(waiter.tenant)
        if worker is not None:
            self.counters["resets"] += 1
            worker.feed(Event.REKEY)
        elif not shelf.starting() and len(self.workers) >= self._settings.max_workers:
            self._make_room(shelf)

    def _make_room(self, shelf: Shelf) -> None:
        for other in self.shelves.values():
            worker = other.spares[0] if other.spares else other.oldest_of_others(None)
            if other is not shelf and worker is not None and not len(other.queue):
                worker.feed(Event.STOP)
                return

    def _refill(self) -> None:
        if self.draining:
            return
        starting = sum(shelf.starting() for shelf in self.shelves.values())
        slots = self._settings.spawn_concurrency - starting
        for shelf in self.shelves.values():
            wanted = spawns_wanted(
                waiting=len(shelf.queue),
                spares=len(shelf.spares),
                spare_target=shelf.spare_target if shelf.in_use and not self.pressed else 0,
                starting=shelf.starting(),
                alive=len(self.workers),
                max_workers=self._settings.max_workers,
            )
            slots -= self._start(shelf, min(wanted, slots))

    def _start(self, shelf: Shelf, count: int) -> int:
        now = self._loop.time()
        if count <= 0:
            return 0
        wait_s = shelf.breaker.wait_s(now)
        if wait_s:
            self._wake_in(wait_s)
            return 0
        count = 1 if shelf.breaker.is_open else count  # one probe
        if shelf.breaker.is_open and shelf.starting():
            return 0
        for _ in range(count):
            self._spawn(shelf)
        return count

    def _wake_in(self, wait_s: float) -> None:
        """Refill later; a wake-up that comes sooner stays."""
        when = self._loop.time() + wait_s + 0.01
        if self._wake is None or self._wake.cancelled() or not self._loop.time() < self._wake.when() <= when:
            if self._wake is not None:
                self._wake.cancel()
            self._wake = self._loop.call_at(when, self._refill)

    def _spawn(self, shelf: Shelf) -> None:
        self._next_id += 1
        worker = Worker(f"w{self._next_id}", shelf.profile, self.mode, self._settings, self)
        shelf.workers.add(worker)
        self.counters["spawned"] += 1
        self._launch(worker)

    def start(self) -> None:
        """Begin to warm the spares of the preforked profiles."""
        self._refill()

    # --- what housekeeping finds ---

    def under_pressure(self, pressed: bool) -> None:
        """The host is short of memory, or no longer: start no spares, and end one idle process each time.

        Callers that wait are served all the same.
        """
        relieved, self.pressed = self.pressed and not pressed, pressed
        if pressed and not self.waiting:
            for shelf in self.shelves.values():
                worker = shelf.spares[0] if shelf.spares else shelf.oldest_of_others(None)
                if worker is not None:
                    worker.feed(Event.STOP)
                    return
        elif relieved:
            self._refill()

    def roll(self) -> None:
        """The CLI was replaced: idle processes end now, those in use when they are given back."""
        for worker in self.workers:
            worker.stale = True
            if worker.state in (*_STARTING, State.READY):
                worker.feed(Event.STOP)
        self.models, self.announced, self.cli_version = [], [], None

    # --- stopping ---

    def hurry(self) -> None:
        """Stop waiting for running turns."""
        self._hurried = True

    async def stop(self, grace_s: float) -> None:
        """Take no more leases, let running turns end within `grace_s`, then end every process and wait for it."""
        self.draining = True
        for shelf in self.shelves.values():
            while len(shelf.queue):
                waiter = shelf.queue.pop()
                if not waiter.future.done():
                    waiter.future.set_exception(
                        RpcError(Code.DRAINING, "ccd is shutting down", {"retry_after_ms": 2000})
                    )
        deadline = self._loop.time() + grace_s
        while any(worker.turn is not None and not worker.turn.over for worker in self.workers):
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
