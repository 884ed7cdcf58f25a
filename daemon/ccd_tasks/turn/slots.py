"""Turns at a time: lower priorities first, then the tenant with the fewest running, then who came first."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class _Waiting:
    priority: int
    tenant: str
    order: int
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Slots:
    """A bounded number of places.

    Args:
        places: how many.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._running: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []
        self._order = 0

    @asynccontextmanager
    async def place(self, priority: int, tenant: str) -> AsyncIterator[None]:
        """One place for the length of a with block."""
        if self._free and not self._waiting:
            self._take(tenant)
        else:
            await self._wait(priority, tenant)
        try:
            yield
        finally:
            self._give(tenant)

    async def _wait(self, priority: int, tenant: str) -> None:
        self._order += 1
        waiting = _Waiting(priority, tenant, self._order)
        self._waiting.append(waiting)
        try:
            await waiting.ready.wait()
        except BaseException:
            if waiting.ready.is_set():
                self._give(tenant)
            else:
                self._waiting.remove(waiting)
            raise

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._running[tenant] += 1

    def _give(self, tenant: str) -> None:
        self._free += 1
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]
        if self._waiting:
            chosen = min(self._waiting, key=lambda w: (w.priority, self._running[w.tenant], w.order))
            self._waiting.remove(chosen)
            self._take(chosen.tenant)
            chosen.ready.set()
