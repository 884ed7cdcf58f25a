"""The asyncio client: a Protocol and futures. Works the same under uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ccd_client import _core
from ccd_client._async import AsyncCalls, answer, persistently
from ccd_client._core import Exchange, Link
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.peer import Called


class _LoopConnection(asyncio.Protocol):
    """One connection: bytes between the transport and the link, and the tasks of callbacks."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self.link = Link(path)
        self.link.on_callback = self._start_callback
        self.link.on_callback_cancelled = self._stop_callback
        self.greeting: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] | None = None  # while the transport holds too much unsent
        self.now_s = loop.time
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._pid = os.getpid()
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream socket has a full transport
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.link.receive(data)
        self.flush()
        if self.link.greeted and not self.greeting.done():
            self.greeting.set_result(None)
        if self.link.finished:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        self.link.lost()
        if not self.greeting.done():
            self.greeting.set_exception(self.link.ungreeted())
            self.greeting.exception()  # whoever waits for it is told; nobody need be waiting
        self.closed.set_result(None)

    def pause_writing(self) -> None:
        self.drained = self._loop.create_future()

    def resume_writing(self) -> None:
        if self.drained is not None and not self.drained.done():
            self.drained.set_result(None)
        self.drained = None

    def flush(self) -> None:
        """Write what the link has to say."""
        out = self.link.peer.outgoing()
        if out and self._transport is not None:
            # `writelines` of 3.12.0 to .8 and 3.13.0 to .1 never pauses the writer, so the last goes by `write`.
            if len(out) > 1:
                self._transport.writelines(out[:-1])
            self._transport.write(out[-1])

    def close(self) -> None:
        """Close the socket; `closed` tells when calls have been failed."""
        if self._transport is not None:
            self._transport.close()
        elif not self.closed.done():
            self.closed.set_result(None)

    def forget(self) -> None:
        """Its event loop will not run again: fail what is in progress, and hang up unless a parent uses it."""
        for exchange in self.link.open.values():
            exchange.notify = _core.nothing
        self.link.lost("the event loop of the connection has ended")
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is not None and self._pid == os.getpid():
            with contextlib.suppress(OSError, TypeError):  # TypeError: uvloop lets nobody do that
                sock.shutdown(socket.SHUT_RDWR)

    def sweep_soon(self) -> None:
        """Cancel the streams that were dropped without being closed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._sweep)

    def _sweep(self) -> None:
        self.link.sweep()
        self.flush()

    async def changed(self, exchange: Exchange, deadline_s: float | None) -> None:
        """Wait until something happens to a call, or until the deadline."""
        waiter = self._loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        exchange.notify = wake
        if deadline_s is None:
            await waiter
            return
        timer = self._loop.call_at(deadline_s, wake)
        try:
            await waiter
        finally:
            timer.cancel()

    def _start_callback(self, exchange: Exchange, called: Called) -> None:
        task = self._loop.create_task(self._run_callback(exchange.handlers[called.method], called))
        self._tasks[called.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(called.id))

    def _stop_callback(self, call_id: int) -> None:
        if call_id in self._tasks:
            self._tasks[call_id].cancel()
            self.link.answer_cancelled(call_id)

    async def _run_callback(self, handler: _core.Handler, called: Called) -> None:
        await answer(self.link, handler, called)
        self.flush()


class AsyncClient(AsyncCalls):
    """The asyncio client. One connection carries any number of concurrent calls; the first call opens it.

    It belongs to the event loop that uses it, and may be used in another one when that has ended.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _pid = 0
    _connection: _LoopConnection | None = None
    _connecting: asyncio.Future[_LoopConnection] | None = None

    async def close(self) -> None:
        """Close the client for good; calls in progress fail LOST, later ones raise RuntimeError."""
        self._closed = True
        self._settle_in()
        if self._connecting is not None:
            self._connecting.cancel()
        self._connection = None
        for connection in list(self._live):
            connection.close()
            await connection.closed

    async def sleep(self, pause_s: float) -> None:
        """Let others run for a while."""
        await asyncio.sleep(pause_s)

    async def _together(self, work: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for one in work:
                    group.create_task(one())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _connected(self) -> _LoopConnection:
        """A connection that takes new calls and has room for their bytes; callers share one attempt."""
        _core.check_open(self)
        self._settle_in()
        connection = self._connection
        if connection is None or not connection.link.usable:
            if self._connecting is None:
                self._connecting = asyncio.ensure_future(self._connect())
                self._connecting.add_done_callback(self._connect_ended)
            connection = await self._shared(self._connecting)
        if connection.drained is not None:
            await asyncio.shield(connection.drained)
        return connection

    def _settle_in(self) -> None:
        """Connections of an event loop that has ended are of no use in this one."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and self._loop.is_running() and self._pid == os.getpid():
            raise RuntimeError("this AsyncClient is used in another event loop: make one for each")
        for connection in self._live:
            connection.forget()
        self._live.clear()
        self._connection, self._connecting = None, None
        self._loop, self._pid = loop, os.getpid()

    async def _shared(self, attempt: asyncio.Future[_LoopConnection]) -> _LoopConnection:
        """Wait for an attempt that other callers wait for, too, so that being cancelled does not end it."""
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            if not attempt.cancelled():
                raise
            raise RpcError(Code.LOST, "the client was closed while it connected") from None

    def _connect_ended(self, attempt: asyncio.Future[_LoopConnection]) -> None:
        self._connecting = None
        failed = attempt.cancelled() or attempt.exception() is not None
        self._connection = None if failed else attempt.result()

    async def _connect(self) -> _LoopConnection:
        loop = asyncio.get_running_loop()
        patience_s = 0.0 if self._connection is None else self._reconnect_wait_s
        plan = _core.ConnectPlan(self.path, loop.time(), patience_s)
        return await persistently(plan, lambda: self._attempt(loop), loop.time, asyncio.sleep)

    async def _attempt(self, loop: asyncio.AbstractEventLoop) -> _LoopConnection:
        connection = _LoopConnection(self.path, loop)
        self._live.add(connection)
        connection.closed.add_done_callback(lambda _: self._live.discard(connection))
        try:
            await _open(loop, connection, self.path)
            async with asyncio.timeout(_core.HELLO_TIMEOUT_S):
                await asyncio.shield(connection.greeting)
        except TimeoutError:
            connection.close()
            raise _core.silent(self.path) from None
        except BaseException:
            connection.close()
            raise
        return connection


async def _open(loop: asyncio.AbstractEventLoop, connection: _LoopConnection, path: str) -> None:
    """Connect, by the way that is right for the loop.

    asyncio's own connecting takes EAGAIN of a full backlog for success, so there a connected socket is handed
    in. uvloop reports EAGAIN, but closes a handed-in socket twice when the other side closes it early.
    """
    if not isinstance(loop, asyncio.SelectorEventLoop):
        await loop.create_unix_connection(lambda: connection, path)
        return
    sock = _core.connected_socket(path)
    try:
        await loop.create_unix_connection(lambda: connection, sock=sock)
    except BaseException:
        sock.close()
        raise
