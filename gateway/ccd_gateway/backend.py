"""The gateway's side of the socket: calls to the daemon, over as few connections as their number allows.

A daemon that restarts is waited for: a call that was lost or refused by a daemon that goes away is sent
once more, as long as nothing of its answer was used. A daemon that is not there is reported within a
second.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Protocol, cast

from ccd_client import AsyncClient
from ccd_gateway.translate import Delta, LineReader
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatAnswer, ChatParams, ChatResult

_CALLS_PER_CONNECTION = 240  # the daemon takes 256
_REFUSED_S = 0.8  # after so long without anybody listening the daemon counts as down
_PROBE_EVERY_S = 0.05
_PROBE_TIMEOUT_S = 2.0
_WINDOW_BYTES = 262144
_RESENDABLE = frozenset({Code.LOST, Code.DRAINING})


class PayloadStream(Protocol):
    """What the gateway needs of a client's stream."""

    result: Any

    async def __anext__(self) -> bytes: ...

    async def close(self) -> None:
        """Cancel the call unless it has ended."""


class Backend:
    """Calls to one daemon, for one worker process. Nothing is opened before the first call.

    Args:
        socket: the daemon's socket.
        max_calls: calls that may be open at a time.
        timeout_s: deadline of a chat.
        reconnect_wait_s: how long to wait for a daemon that goes away to come back.
    """

    def __init__(
        self, socket: str | os.PathLike[str], *, max_calls: int, timeout_s: float, reconnect_wait_s: float
    ) -> None:
        self._socket = socket
        self._lanes: list[_Lane] = []
        self._max_lanes = max(1, -(-max_calls // _CALLS_PER_CONNECTION))
        self._timeout_s = timeout_s
        self._reconnect_wait_s = reconnect_wait_s

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = None) -> Any:
        """A unary call; sent once more when the daemon was lost.

        Raises:
            RpcError: whatever the daemon says; LOST when it cannot be reached.
        """
        try:
            return await self.call_once(method, params, timeout_s=timeout_s)
        except RpcError as error:
            await self._wait_after(error)
        return await self.call_once(method, params, timeout_s=timeout_s)

    async def call_once(self, method: str, params: Any = None, *, timeout_s: float | None = None) -> Any:
        """A unary call that fails at once when the daemon cannot be reached."""
        with self._lane() as lane:
            return await lane.client.call(method, params, timeout_s=timeout_s or self._timeout_s)

    async def complete(self, params: ChatParams) -> ChatAnswer:
        """`chat.complete`; cancelling the caller cancels the turn."""
        return cast(ChatAnswer, await self.call("chat.complete", params))

    async def start(self, params: ChatParams, silence_s: float) -> ChatTurn:
        """Open `chat.stream` and wait until the answer begins, ends, or has been silent for `silence_s`.

        Raises:
            RpcError: the call failed before its answer began.
        """
        try:
            return await self._start_once(params, silence_s)
        except RpcError as error:
            await self._wait_after(error)
        return await self._start_once(params, silence_s)

    async def close(self) -> None:
        """Close the connections."""
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            await lane.client.close()

    async def _start_once(self, params: ChatParams, silence_s: float) -> ChatTurn:
        lane = self._lane()
        lane.open_calls += 1
        stream = lane.client.stream(
            "chat.stream", params, timeout_s=self._timeout_s, window_bytes=_WINDOW_BYTES
        )
        turn = ChatTurn(cast(PayloadStream, stream), lane)
        try:
            await turn.begin(silence_s)
        except BaseException:
            await asyncio.shield(turn.close())
            raise
        return turn

    def _lane(self) -> _Lane:
        """The connection to use next: the fullest that has room, so that a few do for most loads."""
        lane = next((lane for lane in self._lanes if lane.open_calls < _CALLS_PER_CONNECTION), None)
        if lane is None and len(self._lanes) < self._max_lanes:
            lane = _Lane(AsyncClient(self._socket, reconnect_wait_s=0))
            self._lanes.append(lane)
        return lane or min(self._lanes, key=lambda lane: lane.open_calls)

    async def _wait_after(self, error: RpcError) -> None:
        """Return when the daemon can be reached again; raise `error` when it cannot, or is not about that."""
        if error.code not in _RESENDABLE or error.data.get("output_started"):
            raise error
        loop = asyncio.get_running_loop()
        refused_since = now = loop.time()
        until = now + self._reconnect_wait_s
        while now < until:
            state = await self._probe(min(_PROBE_TIMEOUT_S, until - now))
            if state is None:
                return
            now = loop.time()
            if state is not Code.LOST:
                refused_since = now
            elif now - refused_since >= _REFUSED_S:
                break
            await asyncio.sleep(_PROBE_EVERY_S)
            now = loop.time()
        raise error

    async def _probe(self, timeout_s: float) -> Code | None:
        """None when the daemon takes calls, else why not."""
        try:
            await self.call_once("daemon.ping", timeout_s=timeout_s)
        except RpcError as error:
            return error.code
        return None


class _Lane:
    """One connection and the number of calls on it."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.open_calls = 0

    def __enter__(self) -> _Lane:
        self.open_calls += 1
        return self

    def __exit__(self, *args: object) -> None:
        self.open_calls -= 1


class ChatTurn:
    """One open `chat.stream`.

    Attributes:
        first: the deltas that came while waiting for the answer to begin.
        silent: the last wait passed without a payload.
    """

    def __init__(self, stream: PayloadStream, lane: _Lane) -> None:
        self._stream = stream
        self._lane: _Lane | None = lane
        self._reader = LineReader()
        self._ended = False
        self.first: list[Delta] = []
        self.silent = False

    @property
    def result(self) -> ChatResult:
        """Valid once `deltas` has returned None."""
        return cast(ChatResult, self._stream.result)

    async def begin(self, silence_s: float) -> None:
        """Wait for the answer's first line; retries of the CLI that come before it are not yet an answer."""
        while not self._reader.started and not self.silent:
            deltas = await self.deltas(silence_s)
            if deltas is None:
                return
            self.first += deltas

    async def deltas(self, silence_s: float) -> list[Delta] | None:
        """What the next payload says; an empty list also after `silence_s` without one; None at the end.

        Raises:
            RpcError: the turn failed.
        """
        if self._ended:
            return None
        self.silent = False
        try:
            async with asyncio.timeout(silence_s):
                payload = await self._stream.__anext__()
        except TimeoutError:
            self.silent = True
            return []
        except StopAsyncIteration:
            self._ended = True
            return None
        return self._reader.feed(payload)

    async def close(self) -> None:
        """Cancel the turn unless it has ended; once is enough, more does no harm."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.open_calls -= 1
            await self._stream.close()
