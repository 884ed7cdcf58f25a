"""Stands for the pool: counts what a worker tells it."""

from __future__ import annotations

from ccd_daemon.worker.worker import Worker


class WorkerEar:
    """A listener of one worker that has no pool."""

    def __init__(self) -> None:
        self.offered = self.shelved = self.withdrawn = self.idled = self.dead = 0

    def offer(self, worker: Worker) -> None:
        self.offered += 1

    def shelve(self, worker: Worker) -> None:
        self.shelved += 1

    def withdraw(self, worker: Worker) -> None:
        self.withdrawn += 1

    def may_rehearse(self, worker: Worker) -> bool:
        return False

    def rehearsed(self, worker: Worker, fault: str | None) -> None:
        """Spares do not rehearse here."""

    def idle(self, worker: Worker) -> None:
        self.idled += 1

    def ended(self, worker: Worker) -> None:
        self.dead += 1
