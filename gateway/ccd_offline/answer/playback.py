"""A stream's steps in time: what the server iterates over while it sends. Knows whether the client stayed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from ccd_offline.answer.stream import StreamStep

# A reader that learns of the cut together with the last bytes may throw these away.
_CUT_PAUSE_S = 0.025


class CutError(Exception):
    """The connection is to be closed in the middle of the answer."""


class Playback:
    """An async iterator over the bytes of a stream.

    `finished` is called exactly once: with complete, cut or disconnected. Being closed or cancelled before
    the last step means that the client went away.
    """

    def __init__(self, steps: Iterator[StreamStep], finished: Callable[[str], None]) -> None:
        self._steps = steps
        self._finished = finished
        self._then = "go on"

    def __aiter__(self) -> Playback:
        return self

    async def __anext__(self) -> bytes:
        if self._then == "cut":
            await asyncio.sleep(_CUT_PAUSE_S)
            self._end("cut")
            raise CutError
        if self._then == "hang":
            await asyncio.Event().wait()  # until the client goes away
        step = next(self._steps, None)
        if step is None:
            self._end("complete")
            raise StopAsyncIteration
        if step.delay_ms:
            await asyncio.sleep(step.delay_ms / 1000)
        self._then = step.then
        return step.data

    async def close(self) -> None:
        """The server stopped iterating, at the end or because the client went away."""
        self._end("disconnected")

    def _end(self, outcome: str) -> None:
        finished, self._finished = self._finished, _ignore
        finished(outcome)


def _ignore(outcome: str) -> None:
    """Later ends than the first say nothing."""
