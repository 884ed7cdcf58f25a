"""One streamed answer as it comes over the socket, with a clock for its silences.

A task of its own takes the payloads, because a client's stream cancels the call when waiting for it is
given up, and a keep-alive comment must be possible without that. It runs only a few payloads ahead of
the reader, so a slow HTTP client still holds the daemon back.
"""

from __future__ import annotations

import asyncio
from typing import cast

from ccd_client import AsyncClient, AsyncStream
from ccd_gateway.metering import Run
from ccd_gateway.translate import Delta, LineReader
from ccd_protocol.methods import ChatResult

_PAYLOADS_AHEAD = 8


class Lane:
    """One connection to the daemon and the number of calls on it."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.open_calls = 0

    def __enter__(self) -> Lane:
        self.open_calls += 1
        return self

    def __exit__(self, *args: object) -> None:
        self.open_calls -= 1


class ChatTurn:
    """One open `chat.stream`. Whoever has one must `close` it.

    Attributes:
        first: the deltas that came while waiting for the answer to begin.
        silent: the last wait passed without a payload.
    """

    def __init__(self, stream: AsyncStream, lane: Lane, run: Run | None = None) -> None:
        self.first: list[Delta] = []
        self.silent = False
        self._stream = stream
        self._run = run
        self._lane: Lane | None = lane
        lane.open_calls += 1
        self._reader = LineReader()
        self._inbox: list[bytes] = []
        self._error: Exception | None = None
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._waiting_since_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._pump = self._loop.create_task(self._take_payloads())

    @property
    def result(self) -> ChatResult:
        """Valid once `deltas` has returned None."""
        return cast(ChatResult, self._stream.result)

    async def begin(self, silence_s: float) -> None:
        """Wait for the answer's first line; what the CLI says before it (retries) is not yet an answer."""
        while not self._reader.started and not self.silent:
            deltas = await self.deltas(silence_s)
            if deltas is None:
                return
            self.first += deltas

    async def deltas(self, silence_s: float) -> list[Delta] | None:
        """What came since the last time, waiting if nothing did; None at the end.

        An empty list with `silent` set means `silence_s` without a payload.

        Raises:
            RpcError: the turn failed.
        """
        self.silent = False
        if not self._inbox and not self._ended:
            await self._wait(silence_s)
        if self._inbox:
            payloads, self._inbox = self._inbox, []
            _wake(self._room)
            return self._reader.feed(payloads[0] if len(payloads) == 1 else b"".join(payloads))
        if not self._ended:
            self.silent = True
            return []
        if self._error is not None:
            raise self._error
        return None

    def close(self) -> None:
        """Cancel the turn unless it has ended; once is enough, more does no harm."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.open_calls -= 1
            self._stream.cancel("the HTTP request is over")
            self._pump.cancel()
            if self._timer is not None:
                self._timer.cancel()
            if self._run is not None:
                self._run.cut()

    async def _wait(self, silence_s: float) -> None:
        """Wait for a payload, the end, or silence.

        The timer is not stopped when a payload comes: when it goes off it looks how long the wait has really
        been. Most waits are far shorter than a silence, and a timer for each would cost more.
        """
        self._waiting_since_s = self._loop.time()
        self._waiter = self._loop.create_future()
        if self._timer is None:
            self._timer = self._loop.call_later(silence_s, self._look, silence_s)
        await self._waiter

    def _look(self, silence_s: float) -> None:
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return  # the next wait starts it again
        silent_at_s = self._waiting_since_s + silence_s
        if self._loop.time() >= silent_at_s:
            waiter.set_result(None)
        else:
            self._timer = self._loop.call_at(silent_at_s, self._look, silence_s)

    async def _take_payloads(self) -> None:
        try:
            async for payload in self._stream:
                if self._run is not None:
                    self._run.saw(payload)
                self._inbox.append(payload)
                _wake(self._waiter)
                if len(self._inbox) >= _PAYLOADS_AHEAD:
                    self._room = self._loop.create_future()
                    await self._room
            if self._run is not None:
                await self._run.end(self.result)
        except Exception as error:  # for the reader, who alone knows what to do about it
            self._error = error
        finally:
            self._ended = True
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
