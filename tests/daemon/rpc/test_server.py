"""Whose socket it is, what may lie in its way, and who may connect."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
import uvloop

from ccd_daemon.config import ServerSettings as Settings
from ccd_daemon.rpc.connection import Connection
from ccd_daemon.rpc.identity import Identity
from ccd_daemon.rpc.server import Server, SocketError, SocketLock, bind, check_path, make_directory
from ccd_protocol.errors import Code

OTHER_UID = 54321


@pytest.mark.parametrize("path", ["@ccd", "\0ccd", "run/ccd.sock", "/" + "x" * 200])
def test_paths_that_cannot_be_protected_or_bound(path: str) -> None:
    with pytest.raises(SocketError):
        check_path(Path(path))


def test_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        make_directory(tmp_path / "a" / "run")
    finally:
        os.umask(umask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "a" / "run").stat().st_mode & 0o777 == 0o750


def test_directories_that_others_control(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(SocketError, match="symbolic link"):
        make_directory(tmp_path / "link")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(SocketError, match="writable for everybody"):
        make_directory(tmp_path / "open")
    with pytest.raises(SocketError, match="could so replace"):
        make_directory(tmp_path / "open" / "run")
    (tmp_path / "open").chmod(0o1777)
    make_directory(tmp_path / "open" / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(SocketError):
        make_directory(tmp_path / "file")


def test_only_a_dead_socket_is_ever_removed(tmp_path: Path) -> None:
    path = tmp_path / "ccd.sock"
    for make in (lambda: path.write_text("precious"), lambda: path.symlink_to(tmp_path / "none"), path.mkdir):
        make()
        with pytest.raises(SocketError, match="not a socket"):
            bind(path, None)
        assert path.is_symlink() or path.exists()
        path.rmdir() if path.is_dir() else path.unlink()
    with bind(path, None) as alive:
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(SocketError, match="another program answers"):
            bind(path, None)
        assert alive.fileno() >= 0
    with bind(path, None):  # over the socket of the one that was closed
        assert path.is_socket()


def test_the_lock_has_one_holder_and_says_who(tmp_path: Path) -> None:
    path = tmp_path / "run" / "ccd.sock"
    first, second = SocketLock(path), SocketLock(path)
    first.acquire()
    with pytest.raises(SocketError, match=str(os.getpid())):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    lock = path.with_name("ccd.sock.lock")
    lock.unlink()
    lock.symlink_to(tmp_path / "victim")
    with pytest.raises(SocketError, match="cannot use"):
        SocketLock(path).acquire()
    assert not (tmp_path / "victim").exists()
    lock.unlink()
    lock.mkdir()
    with pytest.raises(SocketError, match="Is a directory"):
        SocketLock(path).acquire()


def peer(server: Server, uid: int, gid: int = 0) -> Connection:
    connection = Connection(server)
    connection.identity = Identity(pid=os.getpid(), uid=uid, gid=gid)
    return connection


def test_who_may_connect() -> None:
    async def main() -> None:
        server = Server(Settings(allow_uids=[7], max_connections_per_uid=2), {}, "test")
        refusal = server.admit(peer(server, OTHER_UID))
        assert refusal is not None
        assert refusal.code is Code.DENIED_PEER
        assert server.admit(peer(server, 7)) is None
        assert server.admit(peer(server, os.getuid())) is None
        second = peer(server, 7)
        assert server.admit(second) is None
        full = server.admit(peer(server, 7))
        assert full is not None
        assert full.code is Code.BUSY
        server.gone(second)
        server.gone(second)  # told twice, counted once
        assert server.admit(peer(server, 7)) is None
        assert server.admit(peer(server, 7)) is not None

    asyncio.run(main())


def test_a_group_may_be_one_of_several() -> None:
    async def main() -> None:
        server = Server(Settings(group="4711"), {}, "test")
        for gid, groups, welcome in ((4711, (), True), (5, (6, 4711), True), (5, (6,), False)):
            connection = Connection(server)
            connection.identity = Identity(1, OTHER_UID, gid, frozenset(groups))
            assert (server.admit(connection) is None) is welcome

    asyncio.run(main())


def test_few_files_mean_few_connections() -> None:
    async def main() -> None:
        server = Server(Settings(), {}, "test")
        server.limit_files(44)
        assert (server.backlog, server.max_connections) == (22, 22)
        server.limit_files(-5)
        assert server.backlog == server.max_connections == 4
        for _ in range(4):
            assert server.admit(peer(server, os.getuid())) is None
        refusal = server.admit(peer(server, os.getuid()))
        assert refusal is not None
        assert refusal.code is Code.BUSY
        server.limit_files(20_000)
        assert server.backlog == 1024
        assert server.max_connections > 18_000

    asyncio.run(main())


def test_a_socket_that_is_removed_or_replaced_is_noticed_and_not_unlinked(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "ccd.sock"
        server = Server(Settings(), {}, "test")
        assert not server.lost_socket()
        await server.start(bind(path, None), path)
        assert not server.lost_socket()
        path.unlink()
        assert server.lost_socket()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            assert server.lost_socket()
            server.drain()
            server.close()
            assert path.exists(), "it is somebody else's"

    asyncio.run(main())


@pytest.mark.parametrize("keep", [False, True])
def test_the_socket_of_a_service_manager_outlives_the_daemon_that_accepted_on_it(
    tmp_path: Path, keep: bool
) -> None:
    """And ours goes last, not when it stops accepting: until then it shows that somebody else has removed it."""
    path = tmp_path / "ccd.sock"

    async def serve_and_stop() -> None:
        server = Server(Settings(), {}, "test")
        await server.start(bind(path, None), path, keep=keep)
        server.drain()
        await asyncio.sleep(0)
        assert path.exists() and not server.lost_socket()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_and_stop())
    assert path.exists() is keep
