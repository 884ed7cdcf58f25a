"""Starts the processes that are missing: those that callers wait for, and the spares.

At most one per core at a time, one as a probe while they die before they are ready, and never over the limit in all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from ccd_daemon.config import Settings
from ccd_daemon.pool.policy import spawns_wanted
from ccd_daemon.pool.shelf import Shelf


class Orders(NamedTuple):
    """What may be started beside the processes that callers wait for."""

    spares: bool
    favourites: bool  # spares with the system prompts that recur
    # one spare at least, though a conversation must give up its process for it
    instead_of_bound: bool = False


class Spawner:
    """Keeps the shelves of one pool filled.

    Args:
        orders: asked each time; None when nothing at all may be started.
        spawn: starts a process for a shelf, with the system prompt it is to have for life.
        make_room: ends a process that rests, if there is one.
    """

    def __init__(
        self,
        shelves: Mapping[str, Shelf],
        settings: Settings,
        orders: Callable[[], Orders | None],
        spawn: Callable[[Shelf, str | None], None],
        make_room: Callable[[], None],
    ) -> None:
        self._shelves = shelves.values()
        self._settings = settings
        self._orders = orders
        self._spawn = spawn
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.TimerHandle | None = None
        self._stops = 0  # nothing may be started while it is not 0
        self._moved = asyncio.Event()  # a process has become ready, or ended

    def refill(self) -> None:
        """Start what is missing, as far as the limits allow."""
        self._moved.set()
        orders = self._orders()
        if orders is None or self._stops:
            return
        slots = self._settings.spawn_concurrency - sum(shelf.starting() for shelf in self._shelves)
        waiting = sorted(
            (shelf for shelf in self._shelves if len(shelf.queue)),
            key=lambda shelf: shelf.first_came() or 0.0,
        )
        for shelf in waiting:
            slots -= self._start(shelf, min(self._wanted(shelf, 0), slots))
        now = self._loop.time()
        if any(len(shelf.queue) > shelf.starting() and not shelf.breaker.wait_s(now) for shelf in waiting):
            return  # what becomes free is theirs
        for shelf in self._shelves:
            target = shelf.spare_target if shelf.in_use and orders.spares else 0
            slots -= self._start(shelf, min(self._wanted(shelf, target), slots))
            if slots > 0 and orders.favourites:
                slots -= self._start_favourite(shelf)
            lacks_spare = (
                shelf.in_use and shelf.spare_target and not (shelf.generic_spares() or shelf.starting())
            )
            if orders.instead_of_bound and lacks_spare and self.full:
                self._make_room()

    def _wanted(self, shelf: Shelf, spare_target: int) -> int:
        return spawns_wanted(
            waiting=len(shelf.queue),
            spares=shelf.generic_spares(),
            spare_target=spare_target,
            starting=shelf.starting(),
            alive=self._alive(),
            max_workers=self._settings.max_workers,
        )

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Nothing is started within the block, and nothing is still starting when it begins.

        For somebody else's process that shares a configuration with the workers; they tear it when they start together.
        """
        self._stops += 1
        try:
            while any(shelf.starting() for shelf in self._shelves):
                self._moved.clear()
                await self._moved.wait()
            yield
        finally:
            self._stops -= 1
            self.refill()

    def refill_in(self, wait_s: float) -> None:
        """Refill later; a wake-up that comes sooner stays."""
        when = self._loop.time() + wait_s + 0.01
        if self._wake is not None and self._wake.when() > when:
            self._wake.cancel()
            self._wake = None
        if self._wake is None:
            self._wake = self._loop.call_at(when, self._woken)

    def _woken(self) -> None:
        # Forgotten before the refill, which may ask for the next: comparing times cannot tell that this one has
        # passed, because uvloop's clocks of a loop and of a timer differ in the last bit.
        self._wake = None
        self.refill()

    @property
    def full(self) -> bool:
        """Whether there are as many processes as there may be."""
        return self._alive() >= self._settings.max_workers

    def _alive(self) -> int:
        return sum(len(shelf.workers) for shelf in self._shelves)

    def _start(self, shelf: Shelf, count: int) -> int:
        if count <= 0:
            return 0
        wait_s = shelf.breaker.wait_s(self._loop.time())
        if wait_s:
            self.refill_in(wait_s)
            return 0
        if shelf.breaker.is_open:
            count = 0 if shelf.starting() else 1  # one probe
        for _ in range(count):
            self._spawn(shelf, None)
        return count

    def _start_favourite(self, shelf: Shelf) -> int:
        """Start a spare with a system prompt that recurs: its first token comes sooner. Returns how many."""
        if self.full or shelf.breaker.is_open:
            return 0
        binding = shelf.missing_favourite()
        if binding is None:
            return 0
        self._spawn(shelf, binding)
        return 1
