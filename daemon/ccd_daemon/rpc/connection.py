"""One client's connection: bytes to peer events to method calls, and back.

A method that answers at once runs inside the read that brought it, without a task; the others get a task each,
which is cancelled when the caller cancels, its deadline passes, or the connection is lost. The one place where an
exception becomes a CCDP code is `fail`.

Not here: who may connect and call (`server`, `rights`), and what a method does. Two obvious simplifications would cost:
a task for every call costs a ping another round of the loop, and a write for every ITEM a system call per token, where
one turn of the loop needs one (`flush_soon`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from ccd_daemon.process.lineage import Origin
from ccd_daemon.rpc.call import Call, Handler
from ccd_daemon.rpc.identity import Identity, identify
from ccd_protocol import frames
from ccd_protocol import peer as p
from ccd_protocol.errors import Code, RpcError

log = logging.getLogger("ccd.connection")

_WRITE_HIGH_BYTES = 1024 * 1024
_MAX_UNREAD_BYTES = 16 * 1024 * 1024
_FREE_BYTES = 256 * 1024  # smaller requests are not worth counting


class ConnectionRules(Protocol):
    """What a connection asks of the server."""

    handlers: dict[str, Handler]
    limits: frames.Limits
    agent: str
    origin: Origin

    def admit(self, connection: Connection) -> RpcError | None:
        """Returns why the peer may not connect, or None."""

    def gone(self, connection: Connection) -> None:
        """The connection has ended."""

    def keep(self, nbytes: int) -> bool:
        """More bytes are kept for a client, or fewer when it is negative. Returns False when there are too many."""

    def refusal(self, event: p.Called, handler: Handler | None, identity: Identity) -> RpcError | None:
        """Returns why the peer gets no answer to a call of a method, or None."""


class Connection(asyncio.Protocol):
    """A connected client."""

    def __init__(self, rules: ConnectionRules) -> None:
        self.peer = p.Peer("accepting", rules.agent, limits=rules.limits)
        self.identity = Identity(0, -1, -1)
        self.choked = False  # the client does not read: nothing more may be buffered for it
        self.flush_is_due = False  # what the peer has queued will be written in this turn of the loop
        self._deaf = False  # too much of what was said is unread: nothing more is listened to
        self._rules = rules
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._calls: dict[int, Call] = {}
        self._frame_bytes = 0  # since the last whole frame
        self._calls_bytes = 0  # of the large calls that are being served
        self._kept_bytes = 0  # what the server knows of both
        self._hello: asyncio.TimerHandle | None = None
        self._on: dict[type, Callable[[Any], None]] = {
            p.Called: self._on_called,
            p.Cancelled: self._on_cancelled,
            p.Credited: self._on_credited,
            p.Closed: self._on_closed,
            p.Greeted: self._on_greeted,
        }

    # --- transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected: find out who it is before a byte is read."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        sock = self._transport.get_extra_info("socket")
        self.identity = identify(sock, self._rules.origin)
        refusal = self._rules.admit(self)
        if refusal is not None:
            self._leave(refusal.code, refusal.message)
            return
        self.flush()
        text = f"no HELLO within {frames.HELLO_TIMEOUT_S:g} s"
        self._hello = self._loop.call_later(frames.HELLO_TIMEOUT_S, self._leave, Code.PROTOCOL, text)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._frame_bytes += len(data)
        events = self.peer.receive(data)
        on = self._on
        for event in events:
            act = on.get(type(event))
            if act is not None:
                act(event)
        if events:
            self._frame_bytes = 0
        if self._kept_bytes or self._frame_bytes > _FREE_BYTES or self._calls_bytes:
            self._tell_kept()
        self.flush()
        if self.choked:
            self._listen_no_more()

    def _listen_no_more(self) -> None:
        """Streams are held back already; what still grows are answers to a client that asks and does not read.

        Not sooner: a client that has lost interest must be able to say so although it does not read.
        """
        if self._transport.get_write_buffer_size() > _MAX_UNREAD_BYTES and not self._transport.is_closing():
            self._deaf = True
            self._transport.pause_reading()

    def _tell_kept(self) -> None:
        """Have the server count what this client makes the daemon keep; who goes beyond what there is must leave."""
        kept = self._calls_bytes + (self._frame_bytes if self._frame_bytes > _FREE_BYTES else 0)
        grown, self._kept_bytes = kept - self._kept_bytes, kept
        if not self._rules.keep(grown) and grown > 0:
            self._leave(Code.BUSY, "ccd holds as much of its clients' requests as it may; try again later")

    def flush(self) -> None:
        """Write what the peer has queued."""
        out = self.peer.outgoing()
        if out and not self._transport.is_closing():
            if len(out) == 1:
                self._transport.write(out[0])
            else:
                self._transport.writelines(out)

    def flush_soon(self) -> None:
        """Write when the reads that the loop already knows of have been handled, many small items as one buffer."""
        self.flush_is_due = True
        self._loop.call_soon(self._flush_joined)

    def _flush_joined(self) -> None:
        self.flush_is_due = False
        out = self.peer.outgoing()
        if out and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def pause_writing(self) -> None:
        """The client does not read: hold back every stream of this connection."""
        self.choked = True

    def resume_writing(self) -> None:
        """The client reads again."""
        self.choked = False
        if self._deaf and not self._transport.is_closing():
            self._deaf = False
            self._transport.resume_reading()
        for call in list(self._calls.values()):
            call.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: whatever it asked for is no longer wanted."""
        if self._hello is not None:
            self._hello.cancel()
        for event in self.peer.lost():
            if isinstance(event, p.Cancelled):
                self._on_cancelled(event)
        self._frame_bytes = 0
        self._tell_kept()  # the calls tell when they are over
        self._rules.gone(self)

    def goaway(self, message: str) -> None:
        """Take no new calls; the connection closes when the last open one is answered."""
        self.peer.goaway(Code.DRAINING, message)
        self.flush()
        self._close_if_done()

    def abort(self) -> None:
        """Close without waiting for what is still buffered."""
        self._transport.abort()

    def _close_if_done(self) -> None:
        if not self.peer.open_calls:
            self._transport.close()

    def _leave(self, code: Code, message: str) -> None:
        self.peer.goaway(code, message)
        self.flush()
        self._transport.close()

    # --- events ---

    def _on_greeted(self, event: p.Greeted) -> None:
        if self._hello is not None:
            self._hello.cancel()
            self._hello = None

    def _on_called(self, event: p.Called) -> None:
        handler = self._rules.handlers.get(event.method)
        refusal = self._rules.refusal(event, handler, self.identity)
        if handler is None or refusal is not None:
            assert refusal is not None
            self.peer.fail(event.id, refusal.code, refusal.message, refusal.data)
            return
        if handler.at_once:
            try:
                self.peer.end(event.id, handler.run(event))
            except Exception as error:
                fail(self.peer, event, error)
            return
        call = Call(self, event)
        self._calls[event.id] = call
        if self._frame_bytes > _FREE_BYTES:
            call.nbytes, self._frame_bytes = self._frame_bytes, 0
            self._calls_bytes += call.nbytes
        call.task = self._loop.create_task(self._serve(call, handler.run))

    def _on_cancelled(self, event: p.Cancelled) -> None:
        call = self._calls.get(event.id)
        if call is None or call.task is None:
            return
        call.task.cancel()
        # a task that is cancelled before its first step never runs: nobody else would answer
        if not call.begun:
            fail(self.peer, call, RpcError(Code.CANCELLED))
            self._served(call)

    def _on_credited(self, event: p.Credited) -> None:
        call = self._calls.get(event.id)
        if call is not None and not self.choked:
            call.resume()

    def _on_closed(self, event: p.Closed) -> None:
        log.info(
            "closing the connection of pid %d (uid %d): %s",
            self.identity.pid,
            self.identity.uid,
            event.message,
        )
        self.flush()
        self._transport.close()

    # --- calls ---

    async def _serve(self, call: Call, run: Callable[[Call], Awaitable[Any]]) -> None:
        call.begun = True
        try:
            async with asyncio.timeout(call.timeout_ms / 1000 if call.timeout_ms else None):
                result = await run(call)
            self.peer.end(call.id, result)
        except asyncio.CancelledError:
            fail(self.peer, call, RpcError(Code.CANCELLED))
        except Exception as error:
            fail(self.peer, call, error)
        finally:
            self._served(call)

    def _served(self, call: Call) -> None:
        self._calls.pop(call.id, None)
        if call.nbytes:
            self._calls_bytes -= call.nbytes
            self._tell_kept()
        self.flush()
        if self.peer.closed or not self.peer.usable:
            self._close_if_done()


def fail(peer: p.Peer, call: Call | p.Called, error: Exception) -> None:
    """The one place where an exception becomes a code on the wire."""
    if isinstance(error, RpcError):
        peer.fail(call.id, error.code, error.message, error.data)
    elif isinstance(error, TimeoutError):
        peer.fail(call.id, Code.DEADLINE, f"not answered within {call.timeout_ms} ms")
    else:
        log.error("%s failed", call.method, exc_info=error)
        peer.fail(call.id, Code.INTERNAL, "a fault inside ccd; its log says more")
