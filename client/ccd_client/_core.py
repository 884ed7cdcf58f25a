"""What the three clients share: calls in progress over one connection, without I/O and without waiting.

Theory of operation. A `Link` is one connection, an `Exchange` one call on it. Bytes go into `Link.receive`,
which settles exchanges and calls their `notify`; how a caller waits for that is all that a client adds. The
link belongs to whoever holds the client's lock or runs its event loop; only `orphan` may be called from
anywhere, because finalisers run anywhere.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from ccd_protocol import frames
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.peer import (
    Called,
    CallFailed,
    Cancelled,
    Closed,
    Ended,
    GoingAway,
    Greeted,
    Item,
    Peer,
    PeerEvent,
)
from ccd_settings.paths import socket_path

AGENT: Final = "ccd-client/0.1.0"
DEFAULT_WINDOW_BYTES: Final = 262_144
READ_BYTES: Final = 65_536  # larger buffers are mapped and unmapped for every read
GUARD_S: Final = 0.5  # how long after its own deadline the daemon may still answer DEADLINE itself
RETRY_PAUSE_S: Final = 0.02
HELLO_TIMEOUT_S: Final = frames.HELLO_TIMEOUT_S
CONNECT_PATIENCE_S: Final = HELLO_TIMEOUT_S  # with a full backlog, or a daemon out of descriptors

Handler: TypeAlias = Callable[[dict[str, Any]], Any]
Handlers: TypeAlias = Mapping[str, Handler]
_NO_HANDLERS: Final[Handlers] = {}


class Exchange:
    """One call in progress, as its caller sees it."""

    __slots__ = (
        *(
            "__weakref__",
            "callbacks",
            "done",
            "error",
            "handlers",
            "id",
            "items",
            "notify",
            "passage",
            "result",
        ),
    )

    def __init__(self, handlers: Handlers | None = None) -> None:
        self.id = 0
        # Lists and no deques, which take 600 bytes each when empty; there is hardly ever more than one item.
        self.items: list[bytes] = []
        self.callbacks: list[Called] = []
        self.handlers: Handlers = handlers or _NO_HANDLERS
        self.done = False
        self.result: Any = None
        self.error: RpcError | None = None
        self.notify: Callable[[], None] = nothing
        self.passage: Callable[[], bool] | None = (
            None  # takes what comes and says so, else `notify` is called
        )

    def settle(self, result: Any, error: RpcError | None) -> None:
        """Nothing more will come."""
        self.done = True
        self.result = result
        self.error = error
        self.notify()

    def outcome(self) -> Any:
        """The result of a settled call.

        Raises:
            RpcError: the call failed.
        """
        if self.error is not None:
            raise self.error
        return self.result

    def final(self) -> Any:
        """`outcome`, for a property that may be read at any time; RuntimeError before the end."""
        if not self.done or self.items:
            raise RuntimeError("the stream has not ended: iterate it to its end first")
        return self.outcome()


class Link:
    """One connection to the daemon and the calls on it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.peer = Peer("connecting", AGENT)
        self.open: dict[int, Exchange] = {}
        self.greeted = False
        self.goodbye = ""
        self.on_callback: Callable[[Exchange, Called], None] = self._queue_callback
        self.on_callback_cancelled: Callable[[int], None] = self._forget_callback
        self._orphans: deque[Exchange] = deque()

    @property
    def usable(self) -> bool:
        """Whether new calls may be sent here."""
        return self.peer.usable

    @property
    def finished(self) -> bool:
        """Whether to close: the protocol was broken, or the connection leaves and its calls are done."""
        return self.peer.closed or not (self.peer.usable or self.peer.open_calls)

    def start(
        self, exchange: Exchange, method: str, params: Any, timeout_s: float | None, window: int
    ) -> None:
        """Send the call of an exchange.

        Raises:
            RpcError: it cannot be sent; see `Peer.call`.
        """
        if self._orphans:
            self.sweep()
        timeout_ms = 0 if timeout_s is None else min(max(int(timeout_s * 1000), 1), frames.MAX_U32)
        exchange.id = self.peer.call(method, params, timeout_ms=timeout_ms, window=window)
        self.open[exchange.id] = exchange

    def abandon(self, exchange: Exchange, reason: str, error: RpcError | None = None) -> None:
        """Stop wanting a call: CANCEL is sent and what still comes for it is dropped."""
        if exchange.done:
            return
        if self.open.pop(exchange.id, None) is not None:
            self.peer.cancel(exchange.id, reason)
        for called in exchange.callbacks:
            self.peer.fail(called.id, Code.CANCELLED, reason)
        exchange.callbacks.clear()
        exchange.items.clear()
        exchange.settle(None, error or RpcError(Code.CANCELLED, reason))

    def orphan(self, exchange: Exchange) -> None:
        """A finaliser's way to abandon: done by the next `sweep`."""
        self._orphans.append(exchange)

    def sweep(self) -> None:
        """Abandon what was orphaned."""
        while self._orphans:
            self.abandon(self._orphans.popleft(), "the stream was dropped")

    def take(self, exchange: Exchange) -> bytes | None:
        """The next payload, with its credit returned; None when there is none now."""
        if not exchange.items:
            return None
        payload = exchange.items.pop(0)
        self.peer.consumed(exchange.id, len(payload))
        return payload

    def take_all(self, exchange: Exchange) -> list[bytes]:
        """Every payload that has come, with its credit returned."""
        items = exchange.items
        if not items:
            return []
        exchange.items = []
        size = len(items[0]) if len(items) == 1 else sum(map(len, items))
        self.peer.consumed(exchange.id, size)
        return items

    def receive(self, data: bytes) -> None:
        """Act on received bytes; `peer.closed` afterwards says that the connection is to be closed."""
        for event in self.peer.receive(data):
            if type(event) is Item:
                exchange = self.open.get(event.id)
                if exchange is not None:
                    exchange.items.append(event.payload)
                    if exchange.passage is None or not exchange.passage():
                        exchange.notify()
            elif type(event) is Ended:
                self._settle(event.id, event.result, None)
            else:
                self._rare(event)

    def lost(self, why: str = "") -> None:
        """The connection is gone: every call in progress fails."""
        goodbye = f"; it said: {self.goodbye}" if self.goodbye else ""
        problem = why or "the connection to the daemon was lost"
        message = f"{problem} (socket {self.path}){goodbye}. Is ccd running? Start it with: ccd up"
        for event in self.peer.lost(message):
            self._rare(event)

    def answer(self, called: Called, result: Any) -> None:
        """Answer a callback."""
        self.peer.end(called.id, result)

    def answer_error(self, called: Called, error: BaseException) -> None:
        """Answer a callback whose handler failed."""
        if isinstance(error, RpcError):
            self.peer.fail(called.id, error.code, error.message, error.data)
        else:
            self.peer.fail(called.id, Code.INTERNAL, f"the handler failed: {type(error).__name__}: {error}")

    def answer_cancelled(self, call_id: int) -> None:
        """Answer a callback that is no longer wanted."""
        self.peer.fail(call_id, Code.CANCELLED, "the callback was cancelled")

    def ungreeted(self) -> Exception:
        """Why a connection ended before HELLO: what the daemon said, else EOFError, to be tried again."""
        return RpcError(Code.LOST, self.goodbye) if self.goodbye else EOFError("closed before HELLO")

    def _settle(self, call_id: int, result: Any, error: RpcError | None) -> None:
        exchange = self.open.pop(call_id, None)
        if exchange is not None:
            exchange.settle(result, error)

    def _rare(self, event: PeerEvent) -> None:
        match event:
            case CallFailed():
                self._settle(event.id, None, RpcError(event.code, event.message, event.data))
            case Called():
                self._called(event)
            case Cancelled():
                self.on_callback_cancelled(event.id)
            case Greeted():
                self.greeted = True
            case GoingAway():
                self.goodbye = event.message
            case Closed():
                self.goodbye = f"broken protocol: {event.message}"
            case _:
                pass

    def _called(self, called: Called) -> None:
        exchange = self.open.get(called.parent)
        if exchange is None or called.method not in exchange.handlers:
            self.peer.fail(called.id, Code.NO_METHOD, f"this client has no handler for {called.method}")
        else:
            self.on_callback(exchange, called)

    def _queue_callback(self, exchange: Exchange, called: Called) -> None:
        exchange.callbacks.append(called)
        exchange.notify()

    def _forget_callback(self, call_id: int) -> None:
        for exchange in self.open.values():
            for called in list(exchange.callbacks):
                if called.id == call_id:
                    exchange.callbacks.remove(called)
        self.answer_cancelled(call_id)


def resolved(path: str | os.PathLike[str] | None) -> str:
    """The socket to use, as text."""
    return os.fspath(path) if path is not None else str(socket_path())


def check_open(client: Any) -> None:
    """A closed client stays closed.

    Raises:
        RuntimeError: it is.
    """
    if client._closed:
        raise RuntimeError("this client is closed; make another one")


def shown(client: Any) -> str:
    """The client, for a reader of a log or a debugger."""
    return f"<{type(client).__name__} of {client.path}{', closed' if client._closed else ''}>"


def connected_socket(path: str) -> socket.socket:
    """A connected socket that does not block. On Unix sockets connecting succeeds or fails at once."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def send_now(sock: socket.socket, unsent: deque[bytes | memoryview]) -> bool:
    """Send what the socket takes without waiting, also if it may block; whether nothing is left.

    Raises:
        OSError: the connection is gone.
    """
    while unsent:
        try:
            sent = sock.send(unsent[0], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if sent == len(unsent[0]):
            unsent.popleft()
        else:
            unsent[0] = memoryview(unsent[0])[sent:]
    return True


def silent(path: str) -> RpcError:
    """The error for a daemon that accepts a connection and says nothing."""
    return RpcError(Code.LOST, f"{path} accepts connections but does not answer; is the daemon hung?")


def unreachable(path: str, error: Exception) -> RpcError:
    """The error for a daemon that cannot be reached, saying what to do about it."""
    if isinstance(error, PermissionError):
        return RpcError(
            Code.LOST, f"no permission to use {path}: add this user to the socket's group, then log in again"
        )
    if isinstance(error, FileNotFoundError):
        problem = f"there is no socket at {path}"
    elif isinstance(error, ConnectionRefusedError):
        problem = f"nobody listens on {path}"
    else:
        problem = f"cannot connect to {path}: {error}"
    return RpcError(Code.LOST, f"{problem}; is ccd running? start it with: ccd up")


class ConnectPlan:
    """Decides, attempt by attempt, whether a failed connect is tried again.

    A full backlog (EAGAIN) and an end of file before HELLO are passing states of a live daemon, so they are
    always tried again. A missing or refusing socket is tried again only for a client that was connected
    before, because the daemon is then probably restarting.
    """

    def __init__(self, path: str, now_s: float, patience_if_absent_s: float) -> None:
        self._path = path
        self._busy_until_s = now_s + CONNECT_PATIENCE_S
        self._absent_until_s = now_s + patience_if_absent_s

    def after(self, error: Exception, now_s: float) -> float:
        """Seconds to pause before the next attempt.

        Raises:
            RpcError: LOST, there is no point in trying again.
        """
        absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
        passing = absent or isinstance(error, BlockingIOError | EOFError | ConnectionError)
        if not passing or now_s >= (self._absent_until_s if absent else self._busy_until_s):
            raise unreachable(self._path, error) from None
        return RETRY_PAUSE_S


def deadline_error(timeout_s: float | None) -> RpcError:
    """The error of the client's own guard, for a daemon that did not answer in time."""
    return RpcError(Code.DEADLINE, f"no answer within the {timeout_s} s that the caller allowed")


def nothing() -> None:
    """The notification of an exchange that nobody waits for."""
