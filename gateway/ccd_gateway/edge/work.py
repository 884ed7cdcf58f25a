"""What the requests of one process hold in memory, and how much a body may hold.

A body is small beside what is made of it: in JSON an empty list takes three bytes, in memory 64. So the values in a
body are counted before it is decoded, and count for as much as they will take. And what takes long for a large body is
done by a thread, one body after the other, so that nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ccd_gateway.edge import heap
from ccd_gateway.errors import ApiError, overloaded

T = TypeVar("T")

_SCOPE_NAME = "ccd.work"
_VALUE_BYTES = 64
_LISTS_PER_BODY = 5  # as many full lists may be in one body, or as many values in shorter ones
_SMALL_BYTES = 128 << 10
_FEW_VALUES = 4000
_WORTH_A_TRIM_BYTES = 4 << 20
_TRIM_AFTER_S = 1.0
#: At most one text, and a sign. It never steps back, and a step is short, so that no body makes others wait for it.
_STEP = re.compile(rb'[^",:\[\]{}]*+(?:"[^"]*+"[^",:\[\]{}]*+)?+([\[\]{},:])')
_SIGNS = (b",", b"[", b"{")


class Work:
    """The account of one process.

    Args:
        max_bytes: what all requests together may hold.
        max_items: values in one list, or keys in one object, of a body.
    """

    def __init__(self, max_bytes: int, max_items: int) -> None:
        self.max_items = max_items
        self.bytes = 0
        self._max_bytes = max_bytes
        self._trim: asyncio.TimerHandle | None = None

    def take(self, size_bytes: int) -> None:
        """Count more.

        Raises:
            ApiError: 503, it would be too much.
        """
        if self.bytes + size_bytes > self._max_bytes:
            limit = f"{self._max_bytes} bytes of requests in one process (gateway.max_work_bytes)"
            raise overloaded(f"The gateway is at work on as much as it may hold: {limit}. Try again shortly.")
        self.bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        """Count less; the memory of much is given back to the system soon."""
        self.bytes -= size_bytes
        if size_bytes >= _WORTH_A_TRIM_BYTES and self._trim is None:
            self._trim = asyncio.get_running_loop().call_later(_TRIM_AFTER_S, self._give_back)

    def _give_back(self) -> None:
        self._trim = None
        asyncio.get_running_loop().run_in_executor(_thread(), heap.give_back)


class Share:
    """What one request holds, from its first byte on. To be closed at its end; more often does no harm."""

    __slots__ = ("_bytes", "_work")

    def __init__(self, work: Work) -> None:
        self._work = work
        self._bytes = 0

    def take(self, size_bytes: int) -> None:
        """Count more.

        Raises:
            ApiError: 503, all requests together would hold too much.
        """
        self._work.take(size_bytes)
        self._bytes += size_bytes

    async def check(self, body: bytes) -> None:
        """Count the values in a JSON body.

        Raises:
            ApiError: 413, there are too many; 503 as `take`.
        """
        self.take(_VALUE_BYTES * await apart(body, values_in, body, self._work.max_items))

    async def look(self, text: bytes) -> None:
        """Count the values in a JSON text that is only looked at, such as a line of a file.

        Raises:
            ApiError: 413, there are too many.
        """
        await apart(text, values_in, text, self._work.max_items)

    def close(self) -> None:
        """The request is answered, or its answer keeps nothing of it."""
        size_bytes, self._bytes = self._bytes, 0
        self._work.give(size_bytes)


def values_in(body: bytes, max_items: int) -> int:
    """About how many values there are in a JSON text; it need not be a good one.

    Raises:
        ApiError: 413 when one list or object has more than `max_items`, or all together a few times that.
    """
    most = sum(map(body.count, _SIGNS))  # those in texts included
    return most if most < max_items else _counted(body, max_items)


def _counted(body: bytes, max_items: int) -> int:
    total, counts, here = 0, [], 0
    unescaped = body.replace(rb"\\", b"").replace(
        rb"\"", b""
    )  # every quote that is left begins or ends a text
    step = _STEP.scanner(unescaped).match  # type: ignore[attr-defined]  # typeshed does not know it
    while (found := step()) is not None:
        sign = found[1]
        if sign == b",":
            here += 1
            total += 1
        elif sign in b"[{":
            counts.append(here)
            here = 0
            total += 1
        elif sign == b":":
            total += 1
        elif counts:
            here = counts.pop()
        if here >= max_items or total > _LISTS_PER_BODY * max_items:
            raise ApiError(
                413,
                f"The request body has a list of more than {max_items} values, or too many in all "
                "(server.max_items).",
                code="request_too_large",
            )
    return total


# --- for one request ---


def admit(scope: MutableMapping[str, Any], share: Share) -> None:
    """Make `share` the one that `share_of` finds; for the envelope."""
    scope[_SCOPE_NAME] = share


def share_of(scope: MutableMapping[str, Any]) -> Share:
    """What the request of an ASGI scope holds, or the message that has just come by a WebSocket."""
    share: Share = scope[_SCOPE_NAME]
    return share


async def apart(body: bytes, work: Callable[..., T], *args: Any) -> T:
    """Do what a body asks for: at once if it is small, else in the thread for large ones.

    Raises:
        Exception: whatever `work` raises.
    """
    if len(body) <= _SMALL_BYTES and body.count(b",") <= _FEW_VALUES:
        return work(*args)
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_thread(), context.run, work, *args)


_only: ThreadPoolExecutor | None = None


def _thread() -> ThreadPoolExecutor:
    """The thread for large bodies, of this process."""
    global _only  # noqa: PLW0603 - made after the fork, by whoever needs it first
    _only = _only or ThreadPoolExecutor(1, "ccd-large")
    return _only
