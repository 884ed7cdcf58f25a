"""Attempts at webhooks, each written down; who makes the requests is given from outside."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ccd_tasks.store import deliveries
from ccd_tasks.store.journal import Journal
from ccd_tasks.webhooks.signing import headers

log = logging.getLogger("ccd.tasks")

#: Pauses after failed attempts: a little more than a day in all.
PAUSES_S = (5, 30, 120, 600, 1800, 3600, 3 * 3600, 6 * 3600, 14 * 3600)

#: Posts a body to a URL and returns the HTTP status; raises an `Exception` that says why it could not.
Post = Callable[[str, dict[str, str], bytes], Awaitable[int]]


class Deliveries:
    """Webhooks of this host.

    Args:
        journal: where attempts are noted.
        post: makes a request; must not reach what is not public.
        secret: signs what brings no secret of its own.
    """

    def __init__(self, journal: Journal, post: Post, secret: str) -> None:
        self._journal = journal
        self._post = post
        self._secret = secret

    async def fresh(self, task_id: str) -> list[Any]:
        """Webhooks of a task that nobody has tried yet."""
        rows = await self._journal.insist(lambda c: deliveries.of_task(c, task_id))
        return [row for row in rows if row.status == deliveries.PENDING and not row.attempts]

    async def attempt(self, delivery_id: str, generation: int) -> float:
        """One attempt; returns the seconds until the next one, 0 when it is over."""
        row = await self._journal.insist(lambda c: deliveries.get(c, delivery_id))
        if row is None or row.status != deliveries.PENDING or row.generation != generation:
            return 0.0
        http_status, error = await self._tried(row)
        if error is None:
            status, pause_s = deliveries.DELIVERED, 0.0
        elif http_status == 410 or row.attempts >= len(PAUSES_S):  # 410: the receiver wants no more
            status, pause_s = deliveries.FAILED, 0.0
            log.warning("webhook %s of task %s was given up: %s", row.id, row.task_id, error)
        else:
            status, pause_s = deliveries.PENDING, float(PAUSES_S[row.attempts])
        await self._journal.insist(
            lambda c: deliveries.note_attempt(
                c,
                row.id,
                status=status,
                http_status=http_status,
                error=error,
                next_at=time.time() + pause_s,
            )
        )
        return pause_s

    async def _tried(self, row: Any) -> tuple[int | None, str | None]:
        try:
            signed = headers(row.secret or self._secret, row.id, time.time(), row.payload)
            head = {"content-type": "application/json", "user-agent": "ccd-webhooks", **signed}
            http_status = await self._post(row.url, head, row.payload.encode())
        except Exception as error:  # whatever it is, it is this delivery's
            return None, str(error)[:500] or type(error).__name__
        return http_status, None if 200 <= http_status < 300 else f"HTTP {http_status}"
