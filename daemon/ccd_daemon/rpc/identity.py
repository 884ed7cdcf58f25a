"""Who is at the other end of a connection: asked of the kernel once, when the connection is made, and kept.

Later would be too late: a process inside of a worker can connect, fork and end, and leave the connection to a child
whose ancestors nobody can tell any more.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
from typing import NamedTuple

from ccd_daemon.process.lineage import Origin

#: Linux's numbers; Python has no names for them.
_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
_UCRED = struct.Struct("3i")
_MOST_AT_ONCE_BYTES = 1024  # that Python's getsockopt takes
_MAX_GROUPS = 65536  # NGROUPS_MAX
_libc = ctypes.CDLL(None, use_errno=True)


class Identity(NamedTuple):
    """A peer, as the kernel says. One that is not `outside` is nobody: it gets answers, and nothing is kept for it.

    Attributes:
        groups: its supplementary groups.
        outside: it is alive, can be read, and no worker of this daemon has started it.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    outside: bool = False


def identify(sock: socket.socket, origin: Origin) -> Identity:
    """Read a new connection's peer."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Identity(pid, uid, gid, _groups(sock), _is_outside(sock, pid, uid, origin))


def _is_outside(sock: socket.socket, pid: int, uid: int, origin: Origin) -> bool:
    try:
        pidfd = _pidfd(sock, pid, uid)
    except OSError:
        return False
    try:
        # Alive after it was read: so its number was its own all the while.
        return origin.is_outside(pid) and _alive(pidfd)
    finally:
        os.close(pidfd)


def _pidfd(sock: socket.socket, pid: int, uid: int) -> int:
    """Returns the process that has connected; before Linux 6.5 only the one that has its number now and its user.

    Raises:
        OSError: it is gone.
    """
    try:
        return int(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
    if pid <= 0:
        raise ProcessLookupError(pid)
    pidfd = os.pidfd_open(pid)
    if os.stat(f"/proc/{pid}").st_uid != uid:  # noqa: PTH116
        os.close(pidfd)
        raise ProcessLookupError(pid)
    return pidfd


def _alive(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def _groups(sock: socket.socket) -> frozenset[int]:
    """Its supplementary groups; none where the kernel does not tell."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_AT_ONCE_BYTES)
    except OSError:
        data = _many_groups(sock.fileno())
    return frozenset(struct.unpack(f"={len(data) // 4}I", data))


def _many_groups(fd: int) -> bytes:
    buffer = (ctypes.c_uint32 * _MAX_GROUPS)()
    size = ctypes.c_uint32(ctypes.sizeof(buffer))
    failed = _libc.getsockopt(fd, socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size))
    return b"" if failed else bytes(buffer)[: size.value]
