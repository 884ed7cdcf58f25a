"""The workers of all profiles, and what becomes of each when it is ready, has ended, or the host changes.

Who gets which worker is decided in `leases`, in which order they are given out in `shelf`, what is started in
`spawner`, who has to go in `room`, and every rule that needs no worker in `policy`. The obvious way, a process for each
conversation from its first request on, would pay 0.3 to 0.6 s and 90 to 180 MB for each (DECISIONS, "Generic spares").
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random

from ccd_daemon.claude.account import LoginWatch
from ccd_daemon.claude.login import Mode
from ccd_daemon.config import Settings
from ccd_daemon.pool import refusal
from ccd_daemon.pool.leases import Leases
from ccd_daemon.pool.policy import Breaker, FairQueue, Login, Rehearsals
from ccd_daemon.pool.recognition import Recognition
from ccd_daemon.pool.room import Room
from ccd_daemon.pool.shelf import Shelf
from ccd_daemon.pool.spawner import Orders, Spawner
from ccd_daemon.worker.lifecycle import STARTING, Event, State
from ccd_daemon.worker.worker import Worker

log = logging.getLogger("ccd.pool")

Launch = Callable[[Worker], None]
_LOGIN_PROBE_S = 5.0


class Pool:
    """All workers of the daemon.

    Args:
        settings: the daemon's.
        mode: how requests reach the CLI, until a backend refuses it.
        launch: starts a worker's process.
        ended: is told when it has ended.
        private_login: the login is a key, so spares may rehearse with it.
        login_watch: the login in force; None where it cannot change.
    """

    def __init__(
        self,
        settings: Settings,
        mode: Mode,
        launch: Launch,
        ended: Callable[[Worker], None],
        *,
        private_login: bool = False,
        login_watch: LoginWatch | None = None,
    ) -> None:
        self._login_watch = login_watch
        self._login_seen = 0
        self.mode = self.first_mode = mode
        self.draining = False
        self.hurried = False  # when it stops, running turns are not waited for
        self.counters = dict.fromkeys(
            ("spawned", "died_unready", "turns", "resets", "refused", "surplus_calls", "leases"), 0
        )
        self._settings = settings
        self._launch = launch
        self._loop = asyncio.get_running_loop()
        self._next_id = 0
        self._all_gone = asyncio.Event()
        self.pressed = False  # the host is short of memory: no spares are started
        self._ended = ended
        self.models: list[dict[str, object]] = []
        self.announced: list[str] = []
        self.cli_version: str | None = None
        self.last_death: str | None = None
        self.refused_modes: dict[Mode, str] = {}
        self.proven_modes: set[Mode] = set()  # those in which an answer has come
        self.login = Login(_LOGIN_PROBE_S)
        self.rehearsals = Rehearsals(settings.pool.rehearse and mode == Mode.FULL and private_login)
        self._rehearsing: set[Worker] = set()
        self.was_warm = False  # a process has waited for somebody
        self.recognition = Recognition()
        random = Random()
        self.shelves = {name: _shelf(settings, name, random) for name in settings.profiles}
        self.room = Room(self.shelves.values(), self.recognition)
        self.spawner = Spawner(self.shelves, settings, self._orders, self._spawn, self.room.for_spare)
        self.start = self.spawner.refill  # begin to warm the spares of the preforked profiles
        self.leases = Leases(self, self.shelves, settings, self.recognition, self.room, self.spawner)

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
        """Returns a profile whose processes cannot be started."""
        return next((shelf for shelf in self.shelves.values() if shelf.breaker.is_open), None)

    # --- what calls find ---

    def look_at_login(self) -> None:
        """Before a worker is handed out: one that began with another login serves nobody any more."""
        watch = self._login_watch
        if watch is None:
            return
        watch.look()
        if watch.generation != self._login_seen:
            self._login_seen = watch.generation
            log.warning("the login has changed (%s now): rolling the CLI processes over to it", watch.kind)
            self.login.worked()  # as far as anybody knows
            self.roll()
            self.spawner.refill()

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
        self.was_warm = True
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
        self.leases.serve()

    def shelve(self, worker: Worker) -> None:
        """A worker is PARKED: it is kept for the client's next request, once this one is over."""
        if self.leases.holds(worker):
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
        self.leases.release(worker)

    def ended(self, worker: Worker) -> None:
        """A worker has ended: replace it, unless starting does not work."""
        shelf = self.shelves[worker.profile]
        shelf.workers.discard(worker)
        self.leases.lost(worker)
        if worker.parking.place is not None:
            self.recognition.left(worker.parking.place, worker.parted)
        self.counters["surplus_calls"] += worker.wear.surplus_calls
        self.last_death = f"{worker.id}: {worker.death}"
        log.info("worker %s ended: %s (turns %d)", worker.id, worker.death, worker.wear.turns)
        if not worker.was_ready and not worker.stale and not self.draining:
            self.counters["died_unready"] += 1
            shelf.died_unready(worker, self._loop.time())
        if worker in self._rehearsing:
            self._rehearsing.discard(worker)
            self.rehearsals.lost(f"a spare ended in its rehearsal: {worker.death}")
        if self.draining and not self.workers:
            self._all_gone.set()
        self._ended(worker)
        self.leases.serve()

    # --- starting processes ---

    def _orders(self) -> Orders | None:
        if self.draining:
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

    # --- what housekeeping finds ---

    def under_pressure(self, pressed: bool) -> None:
        """The host is short of memory, or no longer: start no spares, and end one idle process each time.

        Callers that wait are served all the same.
        """
        relieved, self.pressed = self.pressed and not pressed, pressed
        if pressed and not self.waiting:
            self.room.for_the_host()
        elif relieved:
            self.spawner.refill()

    def roll(self) -> None:
        """The CLI was replaced: idle processes end now, those in use when they are given back."""
        self.recycle()
        self.models, self.announced, self.cli_version = [], [], None

    def recycle(self, profile: str | None = None) -> int:
        """Replace the processes of a profile, or all: idle ones now, others when they are given back; how many."""
        workers = self.workers if profile is None else list(self.shelves[profile].workers)
        for worker in workers:
            worker.stale = True
            if worker.state in STARTING or worker.state is State.READY:
                worker.feed(Event.STOP)
        return len(workers)

    def adapt(self) -> None:
        """The settings have changed: work out again what was worked out from them."""
        for name, shelf in self.shelves.items():
            shelf.spare_target = _spare_target(self._settings, name)
            shelf.queue.max_per_tenant = self._settings.queue.max_waiting
        self.leases.adapt()
        self.spawner.refill()

    def degrade(self, mode: Mode, reason: str) -> None:
        """The backend refuses the mode in force: go on in a slower one, with new workers."""
        log.warning("mode %s is refused by the backend (%s); going on with %s", self.mode, reason, mode)
        self.refused_modes[self.mode] = reason
        self.mode = self.first_mode = mode
        for shelf in self.shelves.values():
            for worker in list(shelf.idle()):
                worker.feed(Event.STOP)
        self.spawner.refill()

    # --- stopping ---

    async def stop(self, grace_s: float) -> None:
        """Take no more leases, let running turns end within `grace_s`, then end every process and wait for it."""
        self.draining = True
        for shelf in self.shelves.values():
            shelf.refuse_waiting(refusal.shutting_down)
        deadline = self._loop.time() + grace_s
        while any((turn := worker.turns.turn) is not None and not turn.over for worker in self.workers):
            if self.hurried or self._loop.time() >= deadline:
                break
            await asyncio.sleep(0.02)
        for worker in self.workers:
            worker.feed(Event.STOP)
        if self.workers:
            limits = self._settings.deadlines
            async with asyncio.timeout(limits.drain_grace_s + 3 * limits.kill_grace_s + 5):
                await self._all_gone.wait()


def _shelf(settings: Settings, name: str, random: Random) -> Shelf:
    profile, limits = settings.profiles[name], settings.breaker
    breaker = Breaker(limits.deaths, limits.window_s, limits.backoff_s, limits.max_backoff_s, random)
    return Shelf(
        name, _spare_target(settings, name), breaker, FairQueue(settings.queue.max_waiting), profile.prefork
    )


def _spare_target(settings: Settings, name: str) -> int:
    spares = settings.profiles[name].spares
    return settings.pool.spares if spares is None else spares
