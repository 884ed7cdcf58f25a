"""An answer while it comes: its events, or its text alone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar

from ccd_client._calls.options import PreparedChat
from ccd_client._calls.sending import pause_s
from ccd_client.events import Answer, Decoder, Event, Retrying, TextDelta
from ccd_protocol.errors import RpcError

T = TypeVar("T")


def events_of(events: list[Event]) -> list[Event]:
    """Every event."""
    return events


def texts_of(events: list[Event]) -> list[str]:
    """The text alone."""
    return [event.text for event in events if isinstance(event, TextDelta)]


class _Chat(Generic[T]):
    """What is the same in both kinds of iterator.

    Args:
        opened: opens the stream, and once more for each attempt.
        request: what is asked.
        select: what is iterated, of the events of a payload.
        retries: how often a stream that failed before its first payload is opened again.
    """

    def __init__(
        self,
        opened: Callable[[], Any],
        request: PreparedChat,
        select: Callable[[list[Event]], list[T]],
        retries: int,
    ) -> None:
        self._opened = opened
        self._stream = opened()
        self._request = request
        self._select = select
        self._left = retries
        self._decoder = Decoder()
        self._ready: deque[T] = deque()

    @property
    def result(self) -> Mapping[str, Any]:
        """`ChatResult`, once the iteration has ended."""
        return self._request.told(self._stream.result)

    @property
    def answer(self) -> Answer:
        """The whole answer, once the iteration has ended."""
        return self._decoder.answer(self.result)

    def cancel(self, reason: str = "the caller cancelled") -> None:
        """Stop the turn; the connection stays usable."""
        self._stream.cancel(reason)

    def _take(self, payload: bytes) -> None:
        events = self._decoder.feed(payload)
        if not all(isinstance(event, Retrying) for event in events):
            self._left = 0  # a further attempt would say it twice
        self._ready.extend(self._select(events))

    def _again(self, error: RpcError) -> float:
        """How long to pause before the stream is opened once more; raises the error if it is not to be."""
        wait_s = pause_s(error, self._left)
        self._left -= 1
        return wait_s


class Chat(_Chat[T], Iterator[T]):
    """An answer while it comes: iterate for events, or text. Leaving the `with` block early cancels the turn."""

    def __next__(self) -> T:
        while not self._ready:
            try:
                self._take(next(self._stream))
            except RpcError as error:
                time.sleep(self._again(error))
                self._stream = self._opened()
        return self._ready.popleft()

    def close(self) -> None:
        """Cancel the turn unless it has ended."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncChat(_Chat[T], AsyncIterator[T]):
    """An answer while it comes: iterate for events, or text. Leaving the `async with` block early cancels the turn."""

    def __init__(self, *args: Any) -> None:
        *rest, self._sleep = args
        super().__init__(*rest)

    async def open(self) -> Self:
        """Send the call, unless it was sent."""
        await self._stream
        return self

    async def __anext__(self) -> T:
        while not self._ready:
            try:
                self._take(await self._stream.__anext__())
            except RpcError as error:
                await self._sleep(self._again(error))
                self._stream = self._opened()
        return self._ready.popleft()

    async def close(self) -> None:
        """Cancel the turn unless it has ended."""
        await self._stream.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
