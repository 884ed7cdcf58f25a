"""The blocking client: calls and streams over a socket that its threads take turns at."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Self

from ccd_client import _core
from ccd_client._calls.api import BlockingApi
from ccd_client._core import DEFAULT_WINDOW_BYTES, Exchange, Handlers
from ccd_client._turns import TurnsConnection
from ccd_protocol.errors import Code, RpcError


class Stream(Iterator[bytes]):
    """A streaming call. Iterate for payloads; taking one returns its credit to the daemon.

    Callbacks run in the iterating thread, while it waits. Leaving the `with` block early, or `cancel` from
    any thread, cancels the call.
    """

    def __init__(
        self, client: Client, connection: TurnsConnection, exchange: Exchange, timeout_s: float | None
    ) -> None:
        self._client = client
        self._connection = connection
        self._exchange = exchange
        self._timeout_s = timeout_s
        self._deadline_s = _guard_s(timeout_s)

    def __next__(self) -> bytes:
        exchange = self._exchange
        with self._client._lock:
            while True:
                payload = self._connection.link.take(exchange)
                if payload is not None:
                    self._connection.flush()
                    return payload
                if exchange.callbacks:
                    self._client._run_callback(self._connection, exchange)
                elif exchange.done:
                    exchange.outcome()
                    raise StopIteration
                else:
                    self._client._wait(
                        self._connection, exchange, self._timeout_s, self._deadline_s, exchange
                    )

    @property
    def result(self) -> Any:
        """What the call ended with. Raises RuntimeError before the end, RpcError after a failure."""
        return self._exchange.final()

    def cancel(self, reason: str = "the caller cancelled") -> None:
        """Stop the call; iterating it further raises CANCELLED. The connection stays usable."""
        with self._client._lock:
            self._client._abandon(self._connection, self._exchange, reason)

    def close(self) -> None:
        """Cancel the call unless it has ended."""
        self.cancel("the stream was closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._exchange.done:
            self._connection.link.orphan(self._exchange)


class Client(BlockingApi):
    """The blocking client. Any number of threads may share it; the connection is opened by the first call.

    A forked process gets a connection of its own; what was in progress is in progress in its parent.

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
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._connection: TurnsConnection | None = None
        self._leaving: list[TurnsConnection] = []  # they finish their calls and take no new ones
        self._connecting = False
        self._failure = RpcError(Code.LOST)
        _clients.add(self)

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call a method that answers once. An exception while waiting (Ctrl-C) cancels the call.

        Raises:
            RpcError: the call failed; LOST when the daemon cannot be reached or went away.
        """
        if timeout_s is None:
            timeout_s = self._timeout_s
        deadline_s = None if timeout_s is None else _guard_s(timeout_s)
        exchange = Exchange()
        with self._lock:
            connection = self._start(exchange, method, params, timeout_s, 0)
            while not exchange.done:
                self._wait(connection, exchange, timeout_s, deadline_s)
        return exchange.outcome()

    def call_stream(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        handlers: Handlers | None = None,
    ) -> Stream:
        """Call a method that sends payloads before it answers. The call is sent before this returns.

        Args:
            method: what to call.
            params: its parameters.
            timeout_s: deadline of the whole stream.
            window_bytes: how much the daemon may send ahead of the application.
            handlers: functions that answer the daemon's callbacks, by method. They get the parameters; what
                they
                raise is sent as the failure.

        Raises:
            RpcError: LOST when the daemon cannot be reached, or what `Peer.call` raises.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        exchange = Exchange(handlers)
        with self._lock:
            connection = self._start(exchange, method, params, timeout_s, window_bytes)
        return Stream(self, connection, exchange, timeout_s)

    def close(self) -> None:
        """Close the client for good; calls in progress fail LOST, later ones raise RuntimeError."""
        with self._lock:
            self._closed = True
            for connection in (*self._leaving, *filter(None, [self._connection])):
                connection.close("the client was closed")
            self._leaving.clear()
            self._connection = None

    def __repr__(self) -> str:
        return _core.shown(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _forked(self) -> None:
        """What other threads held or waited for stays with the parent, too: they do not exist here."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        for connection in (*self._leaving, *filter(None, [self._connection])):
            connection.leave_to_parent(self._lock, self._changed)
        self._leaving.clear()
        self._connection, self._connecting = None, False

    def _start(
        self, exchange: Exchange, method: str, params: Any, timeout_s: float | None, window: int
    ) -> TurnsConnection:
        connection = self._connected()
        connection.link.start(exchange, method, params, timeout_s, window)
        connection.flush()
        return connection

    def _wait(
        self,
        connection: TurnsConnection,
        exchange: Exchange,
        timeout_s: float | None,
        deadline_s: float | None,
        stream: Exchange | None = None,
    ) -> None:
        try:
            connection.wait(deadline_s, stream)
        except BaseException:
            self._abandon(connection, exchange, "the caller was interrupted")
            raise
        if deadline_s is not None and not exchange.done and time.monotonic() >= deadline_s:
            self._abandon(connection, exchange, "deadline", _core.deadline_error(timeout_s))

    def _abandon(
        self, connection: TurnsConnection, exchange: Exchange, reason: str, error: RpcError | None = None
    ) -> None:
        connection.link.abandon(exchange, reason, error)
        connection.wake(exchange)
        connection.flush()

    def _run_callback(self, connection: TurnsConnection, exchange: Exchange) -> None:
        called = exchange.callbacks.pop(0)
        self._lock.release()
        try:
            result = exchange.handlers[called.method](called.params)
        except Exception as error:
            self._lock.acquire()
            connection.link.answer_error(called, error)
        except BaseException:
            self._lock.acquire()
            self._abandon(connection, exchange, "the caller was interrupted")
            raise
        else:
            self._lock.acquire()
            connection.link.answer(called, result)
        connection.flush()

    def _connected(self) -> TurnsConnection:
        """A connection that takes new calls; threads share one attempt and its failure."""
        _core.check_open(self)
        while self._connecting:
            self._changed.wait()
            if self._connection is None and not self._connecting:
                raise self._failure
        if self._connection is None or not self._connection.alive():
            self._connecting = True
            try:
                self._connection = self._connect(self._connection)
            except RpcError as failure:
                self._connection, self._failure = None, failure
                raise
            finally:
                self._connecting = False
                self._changed.notify_all()
            if self._closed:  # meanwhile
                self._connection.close("the client was closed")
                _core.check_open(self)
        return self._connection

    def _connect(self, old: TurnsConnection | None) -> TurnsConnection:
        if old is not None and not old.link.open:
            old.close("the connection took no new calls")
        elif old is not None:
            self._leaving = [*(leaving for leaving in self._leaving if not leaving.closed), old]
        plan = _core.ConnectPlan(self.path, time.monotonic(), self._reconnect_wait_s if old else 0.0)
        while True:
            try:
                connection = TurnsConnection(self.path, self._lock, self._changed)
                connection.greet(time.monotonic() + _core.HELLO_TIMEOUT_S)
            except (OSError, EOFError) as error:
                self._changed.wait(plan.after(error, time.monotonic()))
            else:
                return connection


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()


os.register_at_fork(after_in_child=_after_fork)


def _guard_s(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s + _core.GUARD_S
