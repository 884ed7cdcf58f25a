"""Which waiting caller gets which idle worker, and which idle worker makes room for a caller of another profile.

Theory of operation. `serve` looks at all profiles together, the one whose caller has waited longest first: the limit on
processes is theirs together, so what one frees another may need. Idle workers are handed out; what is missing is
started; for callers that are still without a process on its way, a worker of another tenant is reset, or else the idle
worker that was used longest ago is ended, whichever profile it is of. A caller counts as provided for while a process
of its profile starts or forgets, and while one ends whose slot it can have; but not if that takes too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

from ccd_daemon.pool.room import Room
from ccd_daemon.pool.shelf import LeaseWish, Shelf
from ccd_daemon.worker.lifecycle import ENDING, State
from ccd_daemon.worker.worker import Worker

_PASSING = (State.RESETTING, *ENDING)
_PROMPT_S = 1.0  # to end, or to forget; a process that was idle needs a tenth
_GRAIN_S = 0.01
_PATIENCE_S = 2.0  # of a caller whose profile has no process at all, while those of others come and go


class Allocation:
    """The queues and idle workers of all shelves.

    Args:
        shelves: of all profiles.
        max_workers: processes of all profiles together.
        room: ends processes for others.
        refill: starts what is missing, as far as the limits allow.
        lease: makes a worker a caller's.
        reset: has a worker forget what it has heard.
    """

    def __init__(
        self,
        shelves: Collection[Shelf],
        max_workers: int,
        room: Room,
        refill: Callable[[], None],
        lease: Callable[[Shelf, Worker, LeaseWish], None],
        reset: Callable[[Worker], None],
    ) -> None:
        self._shelves = shelves
        self.max_workers = max_workers
        self._room = room
        self._refill = refill
        self._lease = lease
        self._reset = reset
        self._loop = asyncio.get_running_loop()
        self._passing: dict[Worker, tuple[State, float]] = {}  # what ends or forgets, and since when
        self._again: asyncio.TimerHandle | None = None

    def take(self, shelf: Shelf, wish: LeaseWish) -> Worker | None:
        """Returns an idle worker of a shelf, now the caller's; None when there is none that could serve at once."""
        while (worker := shelf.take(wish)) is not None:
            if worker.is_alive if wish.surely_alive else worker.seems_alive:
                self._lease(shelf, worker, wish)
                return worker
            shelf.remove(worker)  # it has been killed, and the kernel has not told yet
        return None

    def serve(self) -> None:
        """Something has changed: see what every waiting caller can have."""
        shelves = self._by_age()
        self._note_passing()
        for shelf in shelves:
            if self._starves(shelf, shelves):
                self._room.for_caller()
        for shelf in shelves:
            self._hand_out(shelf)
        self._refill()
        waiting = [shelf for shelf in shelves if len(shelf.queue)]
        if not waiting:
            return
        for shelf in waiting:
            self._reset_for(shelf)
        self._make_room(waiting)
        self._look_again_when_late()

    def _by_age(self) -> list[Shelf]:
        """Returns the shelves with callers, the one whose first caller came first before the others."""
        waiting = [shelf for shelf in self._shelves if shelf.first_came() is not None]
        return sorted(waiting, key=lambda shelf: shelf.first_came() or 0.0)

    def _hand_out(self, shelf: Shelf) -> None:
        while (waiter := shelf.queue.peek()) is not None:
            if waiter.future.done():
                shelf.queue.pop()
                continue
            worker = self.take(shelf, waiter.wish)
            if worker is None:
                return
            shelf.queue.pop()
            waiter.future.set_result(worker)

    def _reset_for(self, shelf: Shelf) -> None:
        """Have idle workers of other tenants forget, one for each caller that no other will serve."""
        while len(shelf.queue) > len(self._promptly(shelf.workers, State.RESETTING)):
            waiter = shelf.queue.peek()
            worker = shelf.to_reset(waiter.wish) if waiter is not None else None
            if worker is None:
                return
            self._reset(worker)
            self._note_passing()

    def _make_room(self, waiting: Iterable[Shelf]) -> None:
        """End idle workers for callers who have no process on its way and no slot to start one in."""
        missing = -self._slots()
        for shelf in waiting:
            if not shelf.breaker.wait_s(self._loop.time()):
                forgetting = len(self._promptly(shelf.workers, State.RESETTING))
                missing += max(0, len(shelf.queue) - shelf.starting() - forgetting)
        while missing > 0 and self._room.for_caller():
            missing -= 1

    def _look_again_when_late(self) -> None:
        if self._again is not None:
            self._again.cancel()
        late = [since + _PROMPT_S for _, since in self._passing.values()]
        due = [when for when in late if when > self._loop.time()]
        self._again = self._loop.call_at(min(due) + _GRAIN_S, self.serve) if due else None

    def _note_passing(self) -> None:
        now, before = self._loop.time(), self._passing
        self._passing = {}
        for worker in (worker for shelf in self._shelves for worker in shelf.workers):
            if worker.state in _PASSING:
                state, since = before.get(worker, (None, now))
                self._passing[worker] = (worker.state, since if state is worker.state else now)

    def _promptly(self, workers: Iterable[Worker], *states: State) -> list[Worker]:
        """Returns those that do so, and not for too long."""
        since = self._loop.time() - _PROMPT_S
        found = ((worker, self._passing.get(worker, (None, 0.0))) for worker in workers)
        return [worker for worker, (state, begun) in found if state in states and begun > since]

    def _slots(self) -> int:
        """Processes that may be started now, or as soon as those that end have ended."""
        self._note_passing()
        workers = [worker for shelf in self._shelves for worker in shelf.workers]
        return max(0, self.max_workers - len(workers)) + len(self._promptly(workers, *ENDING))

    def _starves(self, shelf: Shelf, shelves: list[Shelf]) -> bool:
        """Whether others, who came later, would take every worker that becomes idle from a caller without any."""
        came = shelf.first_came()
        if shelf.workers or came is None or self._loop.time() - came < _PATIENCE_S:
            return False
        later = any(other.workers for other in shelves if (other.first_came() or 0.0) > came)
        return later and self._slots() <= 0 and any(w.age_s > _PATIENCE_S for w in self._idle())

    def _idle(self) -> list[Worker]:
        return [worker for shelf in self._shelves for worker in shelf.idle()]
