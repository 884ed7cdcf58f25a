"""The Unix socket: who owns it, who may connect, and who is connected.

The socket is created 0660 inside a directory that nobody else can write to, and only while a lock file beside it is
held, so two daemons never fight over it and only a socket that nobody serves is ever removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import grp
import logging
import os
import socket
import stat
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ccd_daemon.config import ServerSettings
from ccd_daemon.process.lineage import Origin
from ccd_daemon.rpc.call import Handler
from ccd_daemon.rpc.connection import Connection
from ccd_daemon.rpc.identity import Identity
from ccd_daemon.rpc.rights import Rights
from ccd_protocol import peer as p
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.frames import Limits

log = logging.getLogger("ccd.server")

_MAX_PATH_BYTES = 107  # sun_path without its final NUL
_BACKLOG = 1024
_LEAST_CONNECTIONS = 4
# From 3.13 on the loop removes the socket's file when it stops accepting; that is for `close`, and a socket of the
# service manager is not ours to remove at all.
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class SocketError(Exception):
    """The socket cannot be had; the message says what to do."""


class BadSocketPath(SocketError):
    """The path itself can never be used."""


class SocketLock:
    """Ownership of a socket path, for as long as the process lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            SocketError: another daemon holds it, or the directory is not safe.
        """
        check_path(self.path)
        make_directory(self.path.parent)
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            self._file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            owner = os.pread(self._file, 32, 0).decode(errors="replace").strip()
            raise SocketError(
                f"another ccd daemon (pid {owner or 'unknown'}) serves {self.path}; stop it, or use another --socket"
            ) from None
        except OSError as error:
            raise SocketError(f"cannot use {lock}: {error.strerror}") from None

    def release(self) -> None:
        """Give the lock up."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def check_path(path: Path) -> None:
    """Refuse paths that cannot be protected or bound.

    Raises:
        BadSocketPath: the path is abstract, relative or too long.
    """
    if str(path).startswith(("@", "\0")):
        raise BadSocketPath("an abstract socket has no permissions; name a path in a directory instead")
    if not path.is_absolute():
        raise BadSocketPath(f"the socket path must be absolute, not {path}")
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise BadSocketPath(
            f"the socket path is longer than {_MAX_PATH_BYTES} bytes; use a shorter one: {path}"
        )


def make_directory(folder: Path) -> None:
    """Create the socket's directory 0750, or check that an existing one is safe.

    Raises:
        SocketError: it belongs to somebody else, is a symbolic link, or others can write to it or move it away.
    """
    umask = os.umask(0o022)  # ccd may be started with none at all, and parents are made here too
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        info = folder.lstat()
    except OSError as error:
        raise SocketError(f"cannot use {folder} for the socket: {error.strerror}") from None
    finally:
        os.umask(umask)
    if not stat.S_ISDIR(info.st_mode):
        raise SocketError(f"{folder} is not a directory (a symbolic link is not accepted)")
    if info.st_uid not in (os.getuid(), 0):
        raise SocketError(
            f"{folder} belongs to uid {info.st_uid}, not to the user who runs ccd; use another directory"
        )
    if info.st_mode & stat.S_IWOTH:
        raise SocketError(
            f"{folder} is writable for everybody; put the socket in a directory of its own, or chmod it 0750"
        )
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise SocketError(
                f"{parent} is writable for everybody, who could so replace {folder}; use another one"
            )


def bind(path: Path, group: str | None) -> socket.socket:
    """Bind and listen, with permissions set before anybody can connect. The lock must be held.

    Raises:
        SocketError: something that is not a dead socket is in the way.
    """
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        umask = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(umask)
        if group is not None:
            os.chown(path, -1, _group_id(group))
        path.chmod(0o660)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise SocketError(f"cannot create the socket {path}: {error.strerror}") from None
    return sock


def _remove_stale(path: Path) -> None:
    try:
        info = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(info.st_mode):
        raise SocketError(f"{path} exists and is not a socket; remove it or use another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                path.unlink()
                return
            raise SocketError(f"{path} is in use: {error.strerror}") from None
    raise SocketError(f"another program answers on {path}; stop it, or use another --socket")


def _group_id(name: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise SocketError(f"server.group: there is no group {name!r}") from None


class Server:
    """All connections, and the rules for them (see `connection.ConnectionRules`)."""

    def __init__(
        self,
        settings: ServerSettings,
        handlers: dict[str, Handler],
        agent: str,
        rights: Rights | None = None,
        origin: Origin | None = None,
        connections: set[Connection] | None = None,
    ) -> None:
        self.rights = rights or Rights(settings)
        self.origin = origin or Origin(os.getpid())
        self.handlers = handlers
        self.agent = agent
        self.limits = Limits(settings.max_frame_bytes, settings.max_calls_per_connection)
        self.connections: set[Connection] = set() if connections is None else connections
        self.max_connections = self.backlog = _BACKLOG
        self._settings = settings
        self._per_uid: Counter[int] = Counter()
        self._own = {0, os.getuid()}
        self._group = _group_id(settings.group) if settings.group is not None else None
        self._draining = False
        self._kept_bytes = 0
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._inode = 0
        self._keep_file = False

    def limit_files(self, room: int) -> None:
        """Stay within a number of open files. The loop would accept and silently close whatever comes beyond them.

        It accepts all that wait in the backlog before the first of them can be refused, hence two halves.
        """
        self.backlog = min(_BACKLOG, max(_LEAST_CONNECTIONS, room // 2))
        self.max_connections = max(_LEAST_CONNECTIONS, room - self.backlog)

    async def start(self, sock: socket.socket, path: Path, *, keep: bool = False) -> None:
        """Begin to accept connections. With `keep` the socket's file is somebody else's and stays at the end."""
        self._keep_file = keep
        self._path = path
        self._inode = path.stat().st_ino  # noqa: ASYNC240 - one look at start
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: Connection(self), sock=sock, backlog=self.backlog, **_KEEP_FILE
        )

    def admit(self, connection: Connection) -> RpcError | None:
        """Returns why the peer may not connect, or None; then it is counted."""
        uid = connection.identity.uid
        if (
            uid not in self._own
            and uid not in self._settings.allow_uids
            and not self._in_group(connection.identity)
        ):
            log.warning("refused a connection of uid %d (pid %d)", uid, connection.identity.pid)
            return RpcError(
                Code.DENIED_PEER,
                f"uid {uid} may not use this socket; the operator can add it to server.allow_uids",
            )
        if self._draining:
            return RpcError(Code.DRAINING, "ccd is shutting down")
        if len(self.connections) >= self.max_connections:
            reason = (
                f"ccd has {len(self.connections)} connections open, all that its limit of open files allows"
            )
            return RpcError(Code.BUSY, reason)
        if self._per_uid[uid] >= self._settings.max_connections_per_uid:
            return RpcError(
                Code.BUSY, f"uid {uid} has {self._per_uid[uid]} connections open, which is the limit"
            )
        self._per_uid[uid] += 1
        self.connections.add(connection)
        return None

    def _in_group(self, identity: Identity) -> bool:
        return self._group is not None and self._group in (identity.gid, *identity.groups)

    def gone(self, connection: Connection) -> None:
        """A connection has ended."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._per_uid[connection.identity.uid] -= 1

    def keep(self, nbytes: int) -> bool:
        """More bytes are kept for a client, or fewer when it is negative. Returns False when there are too many."""
        self._kept_bytes += nbytes
        return self._kept_bytes <= self._settings.max_kept_bytes

    def refusal(self, event: p.Called, handler: Handler | None, identity: Identity) -> RpcError | None:
        """Returns why the peer gets no answer to a call of a method, or None."""
        if handler is None:
            return RpcError(Code.NO_METHOD, f"there is no method {event.method[:80]!r}")
        if handler.admin and not self.rights.may_administer(identity):
            return RpcError(
                Code.FORBIDDEN,
                f"{event.method} is for the daemon's user, root and server.admin_uids, "
                "and not for what a worker has started",
            )
        if handler.bare and event.params:
            return RpcError(Code.BAD_PARAMS, f"{event.method} takes no parameters", {"param": ""})
        if handler.streams and not event.window:
            return RpcError(
                Code.BAD_PARAMS,
                f"{event.method} sends ITEMs: the call must give a window",
                {"param": "window"},
            )
        return None

    def lost_socket(self) -> bool:
        """Returns whether somebody removed or replaced the socket file under us."""
        if self._path is None:
            return False
        try:
            return self._path.stat().st_ino != self._inode
        except OSError:
            return True

    def drain(self) -> None:
        """Accept nobody and take no new calls; open ones go on."""
        self._draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.goaway("ccd is shutting down")

    def close(self) -> None:
        """Close what is left and remove the socket, if it is still ours."""
        for connection in list(self.connections):
            connection.abort()
        if self._path is not None and not self._keep_file and not self.lost_socket():
            with contextlib.suppress(OSError):
                self._path.unlink()
