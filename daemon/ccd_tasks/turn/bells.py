"""Who waits for news of which task."""

from __future__ import annotations

from collections.abc import Callable


class Bells:
    """Functions to call when a task has news."""

    def __init__(self) -> None:
        self._by_task: dict[str, set[Callable[[], None]]] = {}

    def listen(self, task_id: str, ring: Callable[[], None]) -> None:
        """Have a function called when a task has news."""
        self._by_task.setdefault(task_id, set()).add(ring)

    def ignore(self, task_id: str, ring: Callable[[], None]) -> None:
        """The opposite of `listen`."""
        bells = self._by_task.get(task_id)
        if bells is not None:
            bells.discard(ring)
            if not bells:
                del self._by_task[task_id]

    def ring(self, task_id: str) -> None:
        """A task has new events."""
        for ring in tuple(self._by_task.get(task_id, ())):
            ring()
