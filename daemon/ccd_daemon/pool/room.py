"""Makes room for another process, where there may be no more: who has to go.

The one used longest ago goes first; one at a time, as what ends needs a moment to do so, but for callers as many as are
needed. A process that waits for a client's tool results goes last, when there is none that rests or ends, and only for
somebody who waits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ccd_daemon.pool.recognition import Miss, Recognition
from ccd_daemon.pool.shelf import Shelf
from ccd_daemon.worker.lifecycle import Event, State
from ccd_daemon.worker.worker import Worker


class Room:
    """The room that the workers of some shelves take."""

    def __init__(self, shelves: Collection[Shelf], recognition: Recognition) -> None:
        self._shelves = shelves
        self._recognition = recognition

    def for_caller(self) -> bool:
        """End a worker for somebody who waits: an idle one, else a parked one; False when nothing more can be done."""
        idle = [worker for shelf in self._shelves for worker in shelf.idle()]
        if idle or self._ending():
            return self._end_one(idle)
        return self._end_one(worker for shelf in self._shelves for worker in shelf.parked())

    def for_spare(self) -> None:
        """End an idle worker that is bound to a conversation: without a spare each new one would wait for a start."""
        if not self._ending():
            idle = (worker for shelf in self._shelves for worker in shelf.idle())
            self._end_one(worker for worker in idle if worker.parking.place is not None)

    def for_the_host(self) -> None:
        """End an idle worker, as the host is short of memory."""
        self._end_one(worker for shelf in self._shelves for worker in shelf.idle())

    def forget(self, tenant: str, name: str) -> None:
        """A named conversation is deleted: the process that has heard it ends, also when it waits for tool results."""
        for worker in [
            worker for shelf in self._shelves for bound in shelf.bound.values() for worker in bound
        ]:
            if (worker.tenant, worker.parking.name) == (tenant, name):
                worker.feed(Event.CANCEL if worker.state is State.PARKED else Event.STOP)

    def _ending(self) -> bool:
        return any(worker.state is State.DRAINING for shelf in self._shelves for worker in shelf.workers)

    def _end_one(self, workers: Iterable[Worker]) -> bool:
        worker = min(workers, key=lambda worker: worker.last_used, default=None)
        if worker is None:
            return False
        if worker.parking.place is not None:
            self._recognition.left(worker.parking.place, Miss.EVICTED)
        worker.feed(Event.STOP)
        return True
