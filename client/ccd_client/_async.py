"""What the two asynchronous clients share: calls and streams over a connection that can wait.

An `AsyncConnection` is a connection of one framework; everything else here is the same under asyncio, uvloop and trio.
"""

from __future__ import annotations

import inspect
import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from typing import Any, Protocol, Self, TypeVar

from ccd_client import _core
from ccd_client._calls.api import AsyncApi
from ccd_client._core import DEFAULT_WINDOW_BYTES, Exchange, Handler, Handlers, Link
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.peer import Called

_C = TypeVar("_C")


class AsyncConnection(Protocol):
    """A connection, as calls and streams use it."""

    link: Link

    def flush(self) -> None:
        """Write what the link has to say."""

    def now_s(self) -> float:
        """The clock of deadlines."""

    async def changed(self, exchange: Exchange, deadline_s: float | None) -> None:
        """Wait until something happens to a call, or until the deadline."""

    def sweep_soon(self) -> None:
        """Have orphaned streams cancelled by the event loop; called from finalisers, in any thread."""


def _abandon(
    connection: AsyncConnection, exchange: Exchange, reason: str, error: RpcError | None = None
) -> None:
    connection.link.abandon(exchange, reason, error)
    connection.flush()


def _guard_s(connection: AsyncConnection, timeout_s: float | None) -> float | None:
    return None if timeout_s is None else connection.now_s() + timeout_s + _core.GUARD_S


async def persistently(
    plan: _core.ConnectPlan,
    attempt: Callable[[], Awaitable[_C]],
    now_s: Callable[[], float],
    sleep: Callable[[float], Awaitable[object]],
) -> _C:
    """Attempt to connect, as often as the plan says."""
    while True:
        try:
            return await attempt()
        except (OSError, EOFError) as error:
            pause_s = plan.after(error, now_s())
        await sleep(pause_s)


async def answer(link: Link, handler: Handler, called: Called) -> None:
    """Run the handler of a callback, which may be a coroutine function, and answer with what comes of it."""
    try:
        result = handler(called.params)
        link.answer(called, await result if inspect.isawaitable(result) else result)
    except Exception as error:
        link.answer_error(called, error)


class _Passage:
    """Hands what comes during a wait to a sink."""

    __slots__ = ("_connection", "_error", "_exchange", "_heard_s", "_sink")

    def __init__(self, connection: AsyncConnection, exchange: Exchange, sink: Sink) -> None:
        self._connection = connection
        self._exchange = exchange
        self._sink = sink
        self._heard_s = 0.0  # by the connection's clock; 0 is never
        self._error: Exception | None = None

    def take(self) -> bool:
        """`Exchange.passage`: False wakes the task that waits."""
        if self._error is not None or not self._sink.ready:
            return False
        self._heard_s = self._connection.now_s()
        try:
            self._sink.take(self._connection.link.take_all(self._exchange))
        except Exception as error:  # it is the task's, not the connection's
            self._error = error
        return self._error is None

    def heard_until(self, until_s: float, wait_s: float) -> float:
        """When the wait for a further payload is over.

        Raises:
            Exception: what the sink raised.
        """
        if self._error is not None:
            raise self._error
        return self._heard_s + wait_s if self._heard_s else until_s


async def _wait(
    connection: AsyncConnection,
    exchange: Exchange,
    timeout_s: float | None,
    deadline_s: float | None,
) -> None:
    """Wait for a change; being cancelled meanwhile, or the deadline, cancels the call."""
    try:
        await connection.changed(exchange, deadline_s)
    except BaseException:
        _abandon(connection, exchange, "the caller was cancelled")
        raise
    _check_deadline(connection, exchange, timeout_s, deadline_s)


def _check_deadline(
    connection: AsyncConnection, exchange: Exchange, timeout_s: float | None, deadline_s: float | None
) -> None:
    if deadline_s is not None and not exchange.done and connection.now_s() >= deadline_s:
        _abandon(connection, exchange, "deadline", _core.deadline_error(timeout_s))


class Sink(Protocol):
    """Takes payloads where they arrive, without a task being woken for them; see `AsyncStream.next_within`."""

    @property
    def ready(self) -> bool:
        """Whether `take` may be called now; what comes while it may not waits for the task."""

    def take(self, payloads: list[bytes]) -> None:
        """Use what came. It is called by the connection, so it must neither block nor wait.

        What it raises, the waiting task gets.
        """


class AsyncStream(AsyncIterator[bytes]):
    """A streaming call. Iterate for payloads; awaiting it only opens it.

    It is sent when first awaited or iterated. Taking a payload returns its credit to the daemon. Leaving the
    `async with` block early, `cancel`, or being cancelled while waiting cancels the call.
    """

    __slots__ = ("_client", "_connection", "_deadline_s", "_exchange", "_request", "_timeout_s")

    def __init__(self, client: AsyncCalls, handlers: Handlers | None, request: tuple[Any, ...]) -> None:
        self._client = client
        self._exchange = Exchange(handlers)
        self._request: tuple[Any, ...] | None = request
        self._timeout_s: float | None = request[2]
        self._connection: AsyncConnection | None = None
        self._deadline_s: float | None = None

    async def open(self) -> Self:
        """Send the call, unless it was sent.

        Raises:
            RpcError: LOST when the daemon cannot be reached, or what `Peer.call` raises.
        """
        request = self._request
        if self._connection is None and not self._exchange.done and request is not None:
            connection = await self._client._connected()
            connection.link.start(self._exchange, *request)
            self._connection = connection
            self._deadline_s = _guard_s(connection, self._timeout_s)
            self._request = None  # it may be large, and the stream long
            connection.flush()
        return self

    async def __anext__(self) -> bytes:
        if self._connection is None:
            await self.open()
        connection, exchange = self._connection, self._exchange
        while connection is not None:
            payload = connection.link.take(exchange)
            if payload is not None:
                connection.flush()
                return payload
            if exchange.done:
                break
            await _wait(connection, exchange, self._timeout_s, self._deadline_s)
        exchange.outcome()
        raise StopAsyncIteration

    async def next_within(self, wait_s: float, sink: Sink | None = None) -> list[bytes] | None:
        """All payloads that have come, waiting for the first; None at the end, an empty list after `wait_s`.

        Unlike a timeout around the iteration, a wait in vain leaves the call as it is.

        Args:
            wait_s: how long to wait for the first payload, or for the next one that the sink takes.
            sink: is given what comes during the wait, as long as it is ready, and the wait then goes on.

        Raises:
            RpcError: the call failed.
        """
        if self._connection is None:
            await self.open()
        connection, exchange = self._connection, self._exchange
        until_s = 0.0
        while connection is not None:
            payloads = connection.link.take_all(exchange)
            if payloads:
                connection.flush()
                return payloads
            if exchange.done:
                break
            now_s = connection.now_s()
            until_s = until_s or now_s + wait_s
            if now_s >= until_s:
                return []
            # Not by `_wait`: this coroutine may wait as long as a stream lasts, and another one would cost memory.
            passage = None if sink is None else _Passage(connection, exchange, sink)
            exchange.passage = None if passage is None else passage.take
            deadline_s = self._deadline_s
            try:
                await connection.changed(
                    exchange, until_s if deadline_s is None else min(until_s, deadline_s)
                )
            except BaseException:
                _abandon(connection, exchange, "the caller was cancelled")
                raise
            finally:
                exchange.passage = None
            _check_deadline(connection, exchange, self._timeout_s, deadline_s)
            until_s = until_s if passage is None else passage.heard_until(until_s, wait_s)
        exchange.outcome()
        return None

    @property
    def result(self) -> Any:
        """What the call ended with. Raises RuntimeError before the end, RpcError after a failure."""
        return self._exchange.final()

    def cancel(self, reason: str = "the caller cancelled") -> None:
        """Stop the call; iterating it further raises CANCELLED. The connection stays usable."""
        if self._connection is not None:
            _abandon(self._connection, self._exchange, reason)
        elif not self._exchange.done:
            self._exchange.settle(None, RpcError(Code.CANCELLED, reason))

    async def close(self) -> None:
        """Cancel the call unless it has ended."""
        self.cancel("the stream was closed")

    def __await__(self) -> Generator[Any, None, Self]:
        return self.open().__await__()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._connection is not None and not self._exchange.done:
            self._connection.link.orphan(self._exchange)
            self._connection.sweep_soon()


class AsyncCalls(AsyncApi):
    """`call` and `stream` of an asynchronous client.

    Args:
        path: the socket; by default `ccd_settings.paths.socket_path()`.
        timeout_s: the deadline of calls that name none; None is none.
        reconnect_wait_s: how long a call waits for a daemon that was there before and is gone.
        retries: how often a typed call that may succeed later is sent again, after as long as the daemon says.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        timeout_s: float | None = None,
        reconnect_wait_s: float = 1.0,
        retries: int = 0,
    ) -> None:
        self.path = _core.resolved(path)
        self.retries = retries
        self._closed = False
        self._timeout_s = timeout_s
        self._reconnect_wait_s = reconnect_wait_s
        self._live: set[Any] = set()  # connections, also those that only finish their calls

    @abstractmethod
    async def _connected(self) -> AsyncConnection:
        """A connection that takes new calls."""

    @abstractmethod
    async def close(self) -> None:
        """Close the client for good; calls in progress fail LOST, later ones raise RuntimeError."""

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call a method that answers once. Cancelling the task cancels the call.

        Raises:
            RpcError: the call failed; LOST when the daemon cannot be reached or went away.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        connection = await self._connected()
        exchange = Exchange()
        connection.link.start(exchange, method, params, timeout_s, 0)
        connection.flush()
        deadline_s = _guard_s(connection, timeout_s)
        while not exchange.done:
            await _wait(connection, exchange, timeout_s, deadline_s)
        return exchange.outcome()

    def call_stream(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        handlers: Handlers | None = None,
    ) -> AsyncStream:
        """Call a method that sends payloads before it answers.

        Args:
            method: what to call.
            params: its parameters.
            timeout_s: deadline of the whole stream.
            window_bytes: how much the daemon may send ahead of the application.
            handlers: functions or coroutine functions that answer the daemon's callbacks, by method. They get
                the
                parameters; what they raise is sent as the failure.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return AsyncStream(self, handlers, (method, params, timeout_s, window_bytes))

    def __repr__(self) -> str:
        return _core.shown(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
