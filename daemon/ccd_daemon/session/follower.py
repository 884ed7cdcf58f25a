"""One client that is attached to a session: lines wait here while it does not read, but not without end.

A session speaks to several clients at once. Only when none of them reads is its CLI held back; one that is slower than
the others is cut off when too much waits for it, and may attach again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ccd_protocol.errors import Code, RpcError


class Follower:
    """A bounded queue in front of one stream (see `connection.Source`).

    Args:
        send: passes lines on; may call `pause` when the client's window is used up.
        max_bytes: how much may wait.

    Attributes:
        paused: the client's window is used up.
        flow_changed: called when `paused` has changed.
        ended: set to the reason, or to a failure, when everything has been passed on.
    """

    def __init__(self, send: Callable[[bytes], None], max_bytes: int) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._send = send
        self._max_bytes = max_bytes
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self.paused = False
        self.flow_changed: Callable[[], None] = _nothing
        self._last: str | RpcError | None = None

    def tell(self, lines: bytes) -> None:
        """Pass lines on, now or when the client reads again."""
        if self._last is not None or not lines:
            return
        if not self.paused and not self._held:
            self._send(lines)
            return
        self._held.append(lines)
        self._held_bytes += len(lines)
        if self._held_bytes > self._max_bytes:
            self._held.clear()
            problem = "this client does not read as fast as the session speaks; attach again"
            self.finish(RpcError(Code.BUSY, problem, {"reason": "slow"}))

    def finish(self, last: str | RpcError) -> None:
        """Nothing more will come: end the stream when everything before has been passed on."""
        if self._last is None:
            self._last = last
            self._end_if_empty()

    def pause(self) -> None:
        """The client's window is used up."""
        if not self.paused:
            self.paused = True
            self.flow_changed()

    def resume(self) -> None:
        """The client can take more."""
        self.paused = False
        while self._held and not self.paused:
            lines = self._held.popleft()
            self._held_bytes -= len(lines)
            self._send(lines)
        self._end_if_empty()
        self.flow_changed()

    def _end_if_empty(self) -> None:
        if self._held or self.ended.done() or self._last is None:
            return
        if isinstance(self._last, RpcError):
            self.ended.set_exception(self._last)
            self.ended.exception()  # the client may be gone; nobody need be waiting
        else:
            self.ended.set_result(self._last)


def _nothing() -> None:
    """Nobody is interested in the flow."""
