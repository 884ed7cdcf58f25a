"""One socket of the blocking client, which its threads take turns at reading.

Theory of operation. All state is guarded by the client's condition. Whoever waits for its call and finds
nobody reading becomes the reader: it polls outside the lock, then receives inside it and tells the others.
There is no thread behind the caller's back, so the client can be used in any program.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque

from ccd_client import _core
from ccd_client._core import Link

_RECHECK_S = 0.05  # how long a blocked writer trusts that somebody else is reading


class Connection:
    """One socket and its link. Every method needs the client's condition to be held."""

    def __init__(self, path: str, condition: threading.Condition) -> None:
        self.link = Link(path)
        self._condition = condition
        self._unsent: deque[memoryview] = deque()
        self._reading = False
        self._waiting = 0  # threads that wait for the reader
        self.closed = False
        self._sock = _core.connected_socket(path)
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
        return self.link.usable

    def flush(self) -> None:
        """Write everything; while the daemon does not take it, read, so that neither waits for the other."""
        out = self.link.peer.outgoing()
        if not out and not self._unsent:
            return
        self._unsent.extend(memoryview(buffer) for buffer in out)
        try:
            while self._unsent and not self.closed and not _core.send_now(self._sock, self._unsent):
                self._wait_writable()
        except OSError as error:
            self._read()  # the daemon's last words, if any
            self.close(f"the connection to the daemon was lost: {error}")

    def wait(self, deadline_s: float | None) -> None:
        """Wait until something may have changed: by reading, or while another thread reads."""
        left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0)
        if self._reading:
            self._waiting += 1
            try:
                self._condition.wait(left_s)
            finally:
                self._waiting -= 1
        else:
            self._poll(self._readable, left_s)
            self.flush()

    def leave_to_parent(self, condition: threading.Condition) -> None:
        """In a forked process: only the parent may use the socket, or each would read the other's answers."""
        self._condition = condition
        self._reading = False
        self.closed = True
        self._sock.close()
        self._unsent.clear()
        self.link.lost("the connection belongs to the process that this one was forked from")

    def close(self, why: str) -> None:
        """Close the socket and fail what is in progress."""
        if not self.closed:
            self.closed = True
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that polls it
            self._sock.close()
        self._unsent.clear()
        self.link.lost(why)
        self._condition.notify_all()

    def _wait_writable(self) -> None:
        poller = select.poll()
        if self._reading:
            poller.register(self._sock, select.POLLOUT)
            self._condition.release()
            try:
                poller.poll(_RECHECK_S * 1000)
            finally:
                self._condition.acquire()
        else:
            poller.register(self._sock, select.POLLIN | select.POLLOUT)
            self._poll(poller, None)

    def _poll(self, poller: select.poll, timeout_s: float | None) -> None:
        """Be the reader for one turn."""
        self._reading = True
        self._condition.release()
        try:
            poller.poll(None if timeout_s is None else timeout_s * 1000)
        finally:
            self._condition.acquire()
            self._reading = False
            if self._waiting:
                self._condition.notify_all()
        self._read()

    def _read(self) -> None:
        try:
            while not self.closed:
                data = self._sock.recv(_core.READ_BYTES)
                self.link.receive(data)
                if not data or self.link.finished:
                    self.close(self._parting())
                if len(data) < _core.READ_BYTES:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            self.close(f"the connection to the daemon was lost: {error}")

    def _parting(self) -> str:
        """Tell the daemon what was wrong, as far as the socket takes it."""
        if not self.link.peer.closed:
            return self.link.goodbye or "the daemon closed the connection"
        _core.send_now(self._sock, deque(memoryview(buffer) for buffer in self.link.peer.outgoing()))
        return "the daemon broke the protocol"
