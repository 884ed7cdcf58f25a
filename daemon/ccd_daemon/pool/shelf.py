"""The idle workers of one profile, in the order in which they are given out, and the callers that wait for one.

A worker may be bound twice: to the tenant whose requests it has heard (a reset lifts that), and, in the mode
`keep_system`, to a system prompt for life. In the mode `replay` it is bound to a conversation, and is given out only to
go on with that, whether it is READY or PARKED. What a caller gets is, in this order: its own tenant's worker with its
system prompt, a spare that already has this prompt, a spare that has none. LIFO each, so that surplus ages out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import TypeVar

from ccd_daemon.pool import refusal
from ccd_daemon.pool.policy import Breaker, FairQueue
from ccd_daemon.worker.lifecycle import STARTING, State
from ccd_daemon.worker.worker import Worker
from ccd_protocol.errors import RpcError

K = TypeVar("K", bound=Hashable)
log = logging.getLogger("ccd.pool")

_MAX_SEEN = 256
_FAVOURITES = 2
_RECURS = 2  # a system prompt that came this often is worth a spare of its own


@dataclass(frozen=True)
class LeaseWish:
    """What a caller needs a worker for."""

    tenant: str
    binding: str | None = None  # the system prompt it must have, or take on; None: any worker will do
    places: tuple[str, ...] = ()  # where one may stand that has heard the conversation, the latest first
    parked_place: str | None = None  # where one waits for just these tool results
    surely_alive: bool = False  # another has just turned out to be dead


@dataclass(eq=False)
class Waiter:
    """A caller that waits for a worker."""

    wish: LeaseWish
    future: asyncio.Future[Worker]
    came: float  # on the loop's clock


@dataclass(eq=False)
class Shelf:
    """The workers of one profile."""

    profile: str
    spare_target: int
    breaker: Breaker
    queue: FairQueue[Waiter]
    in_use: bool = False  # spares are kept from the first use on
    workers: set[Worker] = field(default_factory=set)
    spares: list[Worker] = field(default_factory=list)  # READY, have heard nobody; the warmest last
    kept: OrderedDict[tuple[str, str | None], list[Worker]] = field(default_factory=OrderedDict)
    # READY or PARKED, by their conversation's place
    bound: dict[str, list[Worker]] = field(default_factory=dict)
    _seen: Counter[str] = field(default_factory=Counter)
    last_words: str = ""  # on stderr, of the process that died last before it was ready

    def starting(self, binding: str | None = None) -> int:
        """Workers on their way to READY: all of them, or those that start with a system prompt."""
        return sum(_is_starting(worker) and binding in (None, worker.binding) for worker in self.workers)

    def first_came(self) -> float | None:
        """When the caller came whose turn it is; None when nobody waits."""
        waiter = self.queue.peek()
        return None if waiter is None else waiter.came

    def put(self, worker: Worker) -> None:
        """An idle worker comes back."""
        place = worker.parking.place
        if place is not None:
            self.bound.setdefault(place, []).append(worker)
        elif worker.tenant is None:
            self.spares.append(worker)
        else:
            self.kept.setdefault((worker.tenant, worker.binding), []).append(worker)

    def remove(self, worker: Worker) -> None:
        """It is no longer idle."""
        if worker in self.spares:
            self.spares.remove(worker)
        _remove_from(self.kept, worker)
        _remove_from(self.bound, worker)

    def take(self, wish: LeaseWish) -> Worker | None:
        """Returns an idle worker that can serve at once, or the parked one that waits for this."""
        bound = self._take_bound(wish)
        if bound is not None:
            return bound
        own = self.kept.get((wish.tenant, wish.binding))
        if own:
            return own[-1]
        prepared = [
            worker for worker in self.spares if wish.binding is not None and worker.binding == wish.binding
        ]
        able = prepared or [worker for worker in self.spares if worker.binding is None]
        return able[-1] if able else None

    def _take_bound(self, wish: LeaseWish) -> Worker | None:
        """Returns the one that has heard the conversation, or most of it."""
        for worker in self.bound.get(wish.parked_place or "", ()):
            if worker.state is State.PARKED:
                return worker
        standing = (worker for place in wish.places for worker in self.bound.get(place, ()))
        return next((worker for worker in standing if worker.state is State.READY), None)

    def to_reset(self, wish: LeaseWish) -> Worker | None:
        """Returns the idle worker of another tenant that was used longest ago and could serve after a reset."""
        others = [
            worker
            for (tenant, binding), kept in self.kept.items()
            if tenant != wish.tenant and binding == wish.binding
            for worker in kept
        ]
        return min(others, key=lambda worker: worker.last_used, default=None)

    def idle(self) -> Iterator[Worker]:
        """Every idle worker."""
        yield from self.spares
        for kept in self.kept.values():
            yield from kept
        for bound in self.bound.values():
            yield from (worker for worker in bound if worker.state is State.READY)

    def parked(self) -> Iterator[Worker]:
        """Every worker that waits for tool results."""
        return (worker for bound in self.bound.values() for worker in bound if worker.state is State.PARKED)

    def generic_spares(self) -> int:
        """Spares that could serve anybody."""
        return sum(worker.binding is None for worker in self.spares)

    def died_unready(self, worker: Worker, now: float) -> None:
        """A worker has ended before it was ready; who waits is refused when there is nothing to wait for."""
        self.last_words = worker.stderr_tail[-300:]
        reason = self.last_words or worker.death or "it ended at once"
        self.breaker.died(now, reason)
        log.warning("worker %s ended before it was ready: %s", worker.id, reason)
        wait_s = self.breaker.wait_s(now)
        if wait_s and not self.workers:
            self.refuse_waiting(lambda: self.cannot_spawn(wait_s))

    def cannot_spawn(self, wait_s: float) -> RpcError:
        """Returns what callers are told while processes end before they are ready."""
        return refusal.cannot_spawn(self.breaker.reason, self.last_words, wait_s)

    def refuse_waiting(self, error: Callable[[], RpcError]) -> None:
        """Every caller in the queue gets an error."""
        while len(self.queue):
            waiter = self.queue.pop()
            if not waiter.future.done():
                waiter.future.set_exception(error())

    # --- learning which system prompts recur ---

    def saw(self, binding: str | None) -> None:
        """A caller came with this system prompt."""
        if binding is None:
            return
        self._seen[binding] += 1
        if len(self._seen) > _MAX_SEEN:
            self._seen = Counter(dict(self._seen.most_common(_MAX_SEEN // 2)))

    def missing_favourite(self) -> str | None:
        """Returns a system prompt that recurs and has no spare waiting or starting."""
        for binding, count in self._seen.most_common(_FAVOURITES):
            have = any(worker.binding == binding for worker in self.spares)
            if count >= _RECURS and not have and not self.starting(binding):
                return binding
        return None


def _is_starting(worker: Worker) -> bool:
    """Returns whether it is on its way; a spare that forgets its rehearsal is, too."""
    return worker.state in STARTING or (worker.state is State.RESETTING and not worker.wear.turns)


def _remove_from(shelf: MutableMapping[K, list[Worker]], worker: Worker) -> None:
    for key, workers in list(shelf.items()):
        if worker in workers:
            workers.remove(worker)
        if not workers:
            del shelf[key]
