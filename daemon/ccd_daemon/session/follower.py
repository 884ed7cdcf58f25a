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
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self.paused = False
        self.flow_changed: Callable[[], None] = _nothing
        self._last: str | RpcError | None = None

    def tell(self, lines: bytes) -> None:
        """Pass lines on, now or when the client reads again."""
        if self._last is not None or not lines:
            return
        if not self.paused and not self._waiting:
            self._send(lines)
            return
        self._waiting.append(lines)
        self._waiting_bytes += len(lines)
        if self._waiting_bytes > self._max_bytes:
            self._waiting.clear()
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
        while self._waiting and not self.paused:
            lines = self._waiting.popleft()
            self._waiting_bytes -= len(lines)
            self._send(lines)
        self._end_if_empty()
        self.flow_changed()

    def _end_if_empty(self) -> None:
        if self._waiting or self.ended.done() or self._last is None:
            return
        if isinstance(self._last, RpcError):
            self.ended.set_exception(self._last)
            self.ended.exception()  # the client may be gone; nobody need be waiting
        else:
            self.ended.set_result(self._last)


class Followers:
    """The clients that are attached to one session.

    Args:
        flow_changed: called when one has come or gone, or reads again or no longer.
    """

    def __init__(self, flow_changed: Callable[[], None]) -> None:
        self._all: set[Follower] = set()
        self._flow_changed = flow_changed

    def __len__(self) -> int:
        return len(self._all)

    @property
    def paused(self) -> bool:
        """Whether there are some and none of them reads."""
        return bool(self._all) and all(follower.paused for follower in self._all)

    def add(self, follower: Follower) -> None:
        """A client has attached."""
        self._all.add(follower)
        follower.flow_changed = self._flow_changed
        self._flow_changed()

    def remove(self, follower: Follower) -> None:
        """A client has gone."""
        self._all.discard(follower)
        self._flow_changed()

    def tell(self, lines: bytes) -> None:
        """Pass lines on to every one of them."""
        for follower in list(self._all):
            follower.tell(lines)

    def finish(self, last: str | RpcError) -> None:
        """Nothing more will come, for this reason or because of this failure."""
        for follower in list(self._all):
            follower.finish(last)


def _nothing() -> None:
    """Nobody is interested in the flow."""
