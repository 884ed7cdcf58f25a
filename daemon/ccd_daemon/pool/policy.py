"""The pool's decisions, pure: they take the time as `now` and never read a clock.

When spawning must pause; whether the login is worth another try; whose turn it is in the queue; how many
processes to start.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from random import Random
from typing import Generic, TypeVar

from ccd_daemon.worker.wear import jittered

T = TypeVar("T")


class Breaker:
    """Stops spawning after too many workers died before they were ever ready, and lets one probe through at a time."""

    def __init__(
        self, deaths: int, window_s: float, backoff_s: float, max_backoff_s: float, random: Random
    ) -> None:
        self._limit = deaths
        self._window_s = window_s
        self._first_backoff_s = backoff_s
        self._max_backoff_s = max_backoff_s
        self._random = random
        self._deaths: deque[float] = deque(maxlen=deaths)
        self._backoff_s = 0.0
        self._open_until = 0.0
        self.reason: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether spawning has been found not to work; closes with the first worker that gets ready."""
        return self._backoff_s > 0

    def died(self, now: float, reason: str) -> None:
        """A worker ended before it was ready."""
        self._deaths.append(now)
        if self.is_open or (len(self._deaths) == self._limit and now - self._deaths[0] <= self._window_s):
            self.reason = reason
            grown = self._backoff_s * 2 or self._first_backoff_s
            self._backoff_s = min(grown, self._max_backoff_s)
            self._open_until = now + jittered(self._backoff_s, self._random)

    def warmed(self) -> None:
        """A worker became ready: all is well."""
        self._deaths.clear()
        self._backoff_s = 0.0
        self.reason = None

    def wait_s(self, now: float) -> float:
        """Returns the seconds until the next spawn may be tried; 0 when it may be tried now."""
        return max(0.0, self._open_until - now) if self.is_open else 0.0


_REFUSALS_BELIEVED = 5


class Login:
    """Whether the API accepts the login; while it does not, one caller at a time finds out again.

    Some refusals may be accidents, and are not held against whoever comes next.
    """

    def __init__(self, probe_s: float) -> None:
        self.refusal: str | None = None  # what the API said, when it has not worked since
        self._refusals = 0  # in a row
        self._probe_s = probe_s
        self._probe_at = 0.0

    def refused(self, now: float, why: str) -> None:
        """The API does not accept it."""
        self.refusal = why
        self._refusals += 1
        self._probe_at = now + self._probe_s

    def worked(self) -> None:
        """The API has answered, be it with another refusal."""
        self.refusal = None
        self._refusals = 0

    def may_try(self, now: float) -> bool:
        """Returns whether it is worth a try; when it was refused several times, true once in a while."""
        if self._refusals < _REFUSALS_BELIEVED:
            return True
        if now < self._probe_at:
            return False
        self._probe_at = now + self._probe_s
        return True


class Rehearsals:
    """Whether spares rehearse. One that ends in another way than it should, or two lost in a row, were the last."""

    MOST_LOST = 2

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.done = 0
        self.fault: str | None = None  # why there are no more
        self._lost = 0

    @property
    def allowed(self) -> bool:
        """Whether another may begin."""
        return self.wanted and self.fault is None

    def ended(self, fault: str | None) -> None:
        """One was of use, or what was wrong with it."""
        self.fault = self.fault or fault
        self.done += 1
        self._lost = 0

    def lost(self, why: str) -> None:
        """A spare ended instead."""
        self._lost += 1
        if self._lost >= self.MOST_LOST:
            self.fault = self.fault or why


class FairQueue(Generic[T]):
    """First come, first served within a tenant; tenants take turns."""

    def __init__(self, max_per_tenant: int) -> None:
        self.max_per_tenant = max_per_tenant
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def full_for(self, tenant: Hashable) -> bool:
        """Returns whether the tenant has used up its places."""
        return len(self._queues.get(tenant, ())) >= self.max_per_tenant

    def push(self, tenant: Hashable, item: T) -> None:
        """Queue behind the tenant's own items."""
        self._queues.setdefault(tenant, deque()).append(item)

    def peek(self) -> T | None:
        """Returns the item whose turn it is."""
        for queue in self._queues.values():
            return queue[0]
        return None

    def pop(self) -> T:
        """Take the item whose turn it is; its tenant goes to the end of the line."""
        tenant, queue = next(iter(self._queues.items()))
        item = queue.popleft()
        del self._queues[tenant]
        if queue:
            self._queues[tenant] = queue
        return item

    def remove(self, tenant: Hashable, item: T) -> None:
        """Take out an item that no longer waits; one that is not there is left alone."""
        queue = self._queues.get(tenant)
        if queue is not None and item in queue:
            queue.remove(item)
            if not queue:
                del self._queues[tenant]


def spawns_wanted(
    *, waiting: int, spares: int, spare_target: int, starting: int, alive: int, max_workers: int
) -> int:
    """How many processes to start now, before the limit on concurrent spawns: one per waiter, and the spares."""
    wanted = waiting + max(0, spare_target - spares) - starting
    return max(0, min(wanted, max_workers - alive))


def refused_retry_ms(waiting: int, workers: int, turn_s: float) -> int:
    """Returns how long a refused caller should wait: the time the queue before it takes, at least one second."""
    return max(1000, int(1000 * turn_s * (waiting + 1) / max(1, workers)))
