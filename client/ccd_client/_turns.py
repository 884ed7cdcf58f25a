"""One socket of the blocking client, which its threads take turns at reading.

Theory of operation. All state is guarded by the client's lock. Whoever waits for its call and finds nobody
reading becomes the reader: it waits for the socket outside the lock, then acts on what came inside it and tells
the others. There is no thread behind the caller's back, so the client can be used in any program.

A call that answers once ends by what comes from the socket and nothing else, so its reader may simply block
there. A stream may also be cancelled by another thread, whatever the daemon says to that, so its reader polls a
bell, too.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import repeat
from typing import Final

from ccd_client import _core
from ccd_client._core import Exchange, Link

_RECHECK_S: Final = 0.05  # how long a blocked writer trusts that somebody else is reading


class TurnsConnection:
    """One socket and its link. Every method needs the client's lock to be held.

    Args:
        path: where the daemon listens.
        lock: the client's.
        changed: a condition of that lock, for threads that wait while another one reads.
    """

    def __init__(self, path: str, lock: threading.Lock, changed: threading.Condition) -> None:
        self.link = Link(path)
        self._lock = lock
        self._changed = changed
        self._unsent: deque[bytes | memoryview] = deque()
        self._received: list[bytes] = []
        self._reading = False
        self._waiting = 0  # threads that wait for the reader
        self._awaited: Exchange | None = None  # the stream that the reader waits for
        self._bell = -1  # made for the first stream; the reader of one polls it
        self.closed = False
        self._sock = _core.connected_socket(path)
        self._sock.setblocking(True)
        # Each receives and keeps in one step: an interrupt may come between two, and what came would be lost.
        keep, recv, size = self._received.append, self._sock.recv, repeat(_core.READ_BYTES)
        self._receive = map(keep, map(recv, size)).__next__
        self._receive_now = map(keep, map(recv, size, repeat(socket.MSG_DONTWAIT))).__next__
        self._readable = select.poll()
        self._readable.register(self._sock, select.POLLIN)

    def greet(self, deadline_s: float) -> None:
        """Exchange HELLO.

        Raises:
            EOFError: the daemon closed the connection first, which a busy one does.
            RpcError: LOST, it says nothing or refuses.
        """
        try:
            self.flush()
            while not self.link.greeted and not self.closed:
                if time.monotonic() >= deadline_s:
                    raise _core.silent(self.link.path)
                self.wait(deadline_s)
        except BaseException:
            self.close("the greeting failed")
            raise
        if not self.link.greeted:
            raise self.link.ungreeted()

    def alive(self) -> bool:
        """Whether new calls may be sent; reads what came while nobody waited, so a dead socket is noticed."""
        if not self._reading and not self.closed and self._readable.poll(0):
            self._read()
        return self.link.peer.usable

    def flush(self) -> None:
        """Write everything; while the daemon does not take it, read, so that neither waits for the other."""
        out = self.link.peer.outgoing()
        if not out and not self._unsent:
            return
        self._unsent.extend(out)
        try:
            while self._unsent and not self.closed and not _core.send_now(self._sock, self._unsent):
                self._wait_writable()
        except OSError as error:
            if not self._reading:
                self._read()  # the daemon's last words, if any
            self.close(f"the connection to the daemon was lost: {error}")

    def wait(self, deadline_s: float | None, stream: Exchange | None = None) -> None:
        """Wait until something may have changed: by reading, or while another thread reads.

        Args:
            deadline_s: when to return in any case.
            stream: what is waited for, if `wake` may be called for it.
        """
        if self._reading:
            self._wait_for_reader(deadline_s)
        elif self._received or (deadline_s is None and stream is None):
            self._block()
            self.flush()
        else:
            if stream is not None and self._bell < 0:
                self._hang_bell()
            self._awaited = stream
            try:
                self._poll(self._readable, deadline_s)
            finally:
                self._awaited = None
            self.flush()

    def wake(self, stream: Exchange) -> None:
        """Have a thread that waits for a stream look again."""
        if self._waiting:
            self._changed.notify_all()
        if self._awaited is stream:
            os.eventfd_write(self._bell, 1)

    def leave_to_parent(self, lock: threading.Lock, changed: threading.Condition) -> None:
        """In a forked process: only the parent may use the socket, or each would read the other's answers."""
        self._lock, self._changed = lock, changed
        self._reading, self._waiting, self._awaited = False, 0, None
        self.closed = True
        self._let_go()
        self._unsent.clear()
        self.link.lost("the connection belongs to the process that this one was forked from")

    def close(self, why: str) -> None:
        """Close the socket and fail what is in progress."""
        if not self.closed:
            self.closed = True
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
            self._let_go()
        self._unsent.clear()
        self.link.lost(why)
        self._changed.notify_all()

    def _let_go(self) -> None:
        """Give the descriptors back, unless a thread is about to use them: it does so afterwards."""
        if not self._reading:
            self._sock.close()
            if self._bell >= 0:
                os.close(self._bell)
                self._bell = -1

    def _hang_bell(self) -> None:
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._readable.register(self._bell, select.POLLIN)

    def _wait_for_reader(self, deadline_s: float | None) -> None:
        self._waiting += 1
        try:
            self._changed.wait(_left_s(deadline_s))
        finally:
            self._waiting -= 1

    def _wait_writable(self) -> None:
        poller = select.poll()
        if self._reading:
            poller.register(self._sock, select.POLLOUT)
            self._lock.release()
            try:
                poller.poll(_RECHECK_S * 1000)
            finally:
                self._lock.acquire()
        else:
            poller.register(self._sock, select.POLLIN | select.POLLOUT)
            self._poll(poller, None)

    def _block(self) -> None:
        """Be the reader until something comes."""
        try:
            if not self._received:
                self._unlocked(self._receive)
        except OSError as error:
            self.close(f"the connection to the daemon was lost: {error}")
        finally:
            self._act_on_received()

    def _poll(self, poller: select.poll, deadline_s: float | None) -> None:
        """Be the reader for one turn, until the deadline at most."""
        left_s = _left_s(deadline_s)
        self._unlocked(poller.poll, None if left_s is None else left_s * 1000)
        if self._bell >= 0:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._bell)
        self._read()

    def _unlocked(self, wait: Callable[..., object], *args: object) -> None:
        """Wait as the reader."""
        self._reading = True
        try:
            self._lock.release()
            wait(*args)
        finally:
            self._lock.acquire()
            self._reading = False
            if self._waiting:
                self._changed.notify_all()
            if self.closed:
                self._let_go()

    def _read(self) -> None:
        """Act on all that has come."""
        self._act_on_received()
        try:
            while not self.closed:
                self._receive_now()
                if self._act_on_received() < _core.READ_BYTES:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            self.close(f"the connection to the daemon was lost: {error}")

    def _act_on_received(self) -> int:
        """Act on what was received; returns how many bytes that were."""
        size = 0
        link = self.link
        try:
            while self._received and not self.closed:
                data = self._received.pop(0)
                size += len(data)
                link.receive(data)
                if not data or (not link.peer.usable and link.finished):
                    self.close(self._parting())
        except BaseException:
            self.close("an interrupt came while answers were taken, so some may be lost")
            raise
        return size

    def _parting(self) -> str:
        """Tell the daemon what was wrong, as far as the socket takes it."""
        if not self.link.peer.closed:
            return self.link.goodbye or "the daemon closed the connection"
        with contextlib.suppress(OSError):
            _core.send_now(self._sock, deque(self.link.peer.outgoing()))
        return "the daemon broke the protocol"


def _left_s(deadline_s: float | None) -> float | None:
    return None if deadline_s is None else max(deadline_s - time.monotonic(), 0)
