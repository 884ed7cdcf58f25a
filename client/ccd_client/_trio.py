"""The trio client: a nursery, and the socket's readiness."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import trio

from ccd_client import _core
from ccd_client._async import AsyncCalls, answer, persistently
from ccd_client._core import Exchange, Link
from ccd_protocol.peer import Called


class _TrioConnection:
    """One connection: bytes between the socket and the link, and the tasks of callbacks."""

    def __init__(self, path: str, sock: socket.socket, nursery: trio.Nursery, live: set[Any]) -> None:
        self.link = Link(path)
        self.link.on_callback = self._start_callback
        self.link.on_callback_cancelled = self._stop_callback
        self.now_s = trio.current_time
        self.greeting = trio.Event()
        self._sock = sock
        self._nursery = nursery
        self._live = live
        live.add(self)
        self._token = trio.lowlevel.current_trio_token()
        self._unsent: deque[bytes | memoryview] = deque()
        self._writing = False
        self._scopes: dict[int, trio.CancelScope] = {}
        self._life = trio.CancelScope()
        nursery.start_soon(self._read)
        self.flush()

    async def _read(self) -> None:
        try:
            with self._life:
                while not self.link.finished:
                    await trio.lowlevel.wait_readable(self._sock)
                    data = self._sock.recv(_core.READ_BYTES)
                    if not data:
                        break
                    self.link.receive(data)
                    self.flush()
                    if self.link.greeted:
                        self.greeting.set()
        except OSError:
            pass  # a reset is an end like any other
        finally:
            self.close()

    def close(self) -> None:
        """Close the socket and fail what is in progress."""
        self._live.discard(self)
        self._life.cancel()
        self._unsent.clear()
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        self.link.lost()
        self.greeting.set()

    def flush(self) -> None:
        """Write what the link has to say; what the socket does not take now is written by a task."""
        self._unsent.extend(self.link.peer.outgoing())
        if self._unsent and not self._writing and not self._sent_all():
            self._writing = True
            self._nursery.start_soon(self._write)

    def _sent_all(self) -> bool:
        """Send without waiting; whether nothing is left. A reset is noticed by the reader."""
        with contextlib.suppress(OSError):
            return _core.send_now(self._sock, self._unsent)
        self._unsent.clear()
        return True

    async def _write(self) -> None:
        try:
            with contextlib.suppress(trio.ClosedResourceError):
                while not self._sent_all():
                    await trio.lowlevel.wait_writable(self._sock)
        finally:
            self._writing = False

    def sweep_soon(self) -> None:
        """Cancel the streams that were dropped without being closed."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._sweep)

    def _sweep(self) -> None:
        self.link.sweep()
        self.flush()

    async def changed(self, exchange: Exchange, deadline_s: float | None) -> None:
        """Wait until something happens to a call, or until the deadline."""
        event = trio.Event()
        exchange.notify = event.set
        with trio.move_on_at(float("inf") if deadline_s is None else deadline_s):
            await event.wait()

    def _start_callback(self, exchange: Exchange, called: Called) -> None:
        self._scopes[called.id] = trio.CancelScope()
        self._nursery.start_soon(self._run_callback, exchange.handlers[called.method], called)

    def _stop_callback(self, call_id: int) -> None:
        if call_id in self._scopes:
            self._scopes[call_id].cancel()
            self.link.answer_cancelled(call_id)

    async def _run_callback(self, handler: _core.Handler, called: Called) -> None:
        with self._scopes[called.id]:
            await answer(self.link, handler, called)
        del self._scopes[called.id]
        self.flush()


class TrioClient(AsyncCalls):
    """The trio client; use it in `async with`. One connection carries any number of concurrent calls."""

    _connection: _TrioConnection | None = None
    _nursery: trio.Nursery | None = None

    async def __aenter__(self) -> TrioClient:
        self._connecting = trio.Lock()
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
            self._nursery = None
            await self._manager.__aexit__(None, None, None)

    async def close(self) -> None:
        """Close the client for good; calls in progress fail LOST, later ones raise RuntimeError."""
        self._closed = True
        self._connection = None
        for connection in list(self._live):
            connection.close()

    async def sleep(self, pause_s: float) -> None:
        """Let others run for a while."""
        await trio.sleep(pause_s)

    async def _together(self, work: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for one in work:
                    nursery.start_soon(one)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _connected(self) -> _TrioConnection:
        """A connection that takes new calls."""
        _core.check_open(self)
        connection = self._connection
        if connection is not None and connection.link.usable:
            return connection
        if self._nursery is None:
            raise RuntimeError("use the client in: async with TrioClient() as client")
        async with self._connecting:
            if self._connection is None or not self._connection.link.usable:
                self._connection = await self._connect(self._nursery)
            return self._connection

    async def _connect(self, nursery: trio.Nursery) -> _TrioConnection:
        patience_s = 0.0 if self._connection is None else self._reconnect_wait_s
        self._connection = None
        plan = _core.ConnectPlan(self.path, trio.current_time(), patience_s)
        return await persistently(plan, lambda: self._attempt(nursery), trio.current_time, trio.sleep)

    async def _attempt(self, nursery: trio.Nursery) -> _TrioConnection:
        connection = _TrioConnection(self.path, _core.connected_socket(self.path), nursery, self._live)
        try:
            with trio.fail_after(_core.HELLO_TIMEOUT_S):
                await connection.greeting.wait()
            if not connection.link.greeted:
                raise connection.link.ungreeted()
        except trio.TooSlowError:
            connection.close()
            raise _core.silent(self.path) from None
        except BaseException:
            connection.close()
            raise
        return connection
