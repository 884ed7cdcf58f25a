"""The composition root of `ccd worker`: builds it from its parts, serves, and takes it down in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import uuid
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import uvloop

from ccd_client import AsyncClient
from ccd_daemon.rpc.call import Call, Handler
from ccd_daemon.rpc.rights import Rights
from ccd_daemon.rpc.server import Server, SocketError, SocketLock, bind
from ccd_protocol.errors import RpcError
from ccd_settings import logs
from ccd_tasks.engine import durable
from ccd_tasks.engine.dbos_process import DbosProcess
from ccd_tasks.engine.engine import Engine
from ccd_tasks.engine.hosts import Hosts
from ccd_tasks.rpc.file_methods import FileMethods
from ccd_tasks.rpc.methods import TaskMethods
from ccd_tasks.settings import WorkerSettings
from ccd_tasks.store.database import DatabaseError, open_database
from ccd_tasks.store.journal import Journal
from ccd_tasks.turn.purse import Purse
from ccd_tasks.turn.step import Outputs
from ccd_tasks.webhooks.delivery import Deliveries, Post
from ccd_tasks.webhooks.signing import new_secret

log = logging.getLogger("ccd.tasks")

_PATIENCE_S = 60.0  # how long a call waits for a daemon that was there before
_DRAIN_S = 15.0  # for turns that run when the worker is stopped
EXIT_DAMAGED = 70  # the database broke under a running worker; the next start sets it aside


class Outside:
    """What this package is given by those who may use other parts of ccd.

    Attributes:
        post: makes the requests of webhooks, and reaches nothing that is not public.
        purse: admits turns of tasks with a key.
        outputs: writes answers into files.
    """

    def __init__(self, post: Post, purse: Purse | None = None, outputs: Outputs | None = None) -> None:
        self.post = post
        self.purse = purse
        self.outputs = outputs


class WorkerProcess:
    """One process of `ccd worker`."""

    def __init__(self, settings: WorkerSettings, outside: Outside) -> None:
        self._settings = settings
        self._outside = outside
        self._stopping = asyncio.Event()
        self._exit_status = 0

    async def run(self, ready: Callable[[], None]) -> int:
        """Serve until SIGTERM; returns the exit status.

        Raises:
            SocketError: the socket cannot be had. DatabaseError: the database cannot be used.
        """
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stopping.set)
        settings = self._settings
        lock = SocketLock(settings.socket)
        lock.acquire()
        try:
            make_folder(settings.folder)
            engine = open_database(settings.database)
            journal = Journal(engine, lambda: loop.call_soon_threadsafe(self._on_damage))
            try:
                await self._serve(journal, ready)
            finally:
                journal.close()  # the threads of the loop ended with DBOS
        finally:
            lock.release()
        return self._exit_status

    def _on_damage(self) -> None:
        log.critical("the tasks database is damaged; this worker ends, and the next one sets the file aside")
        self._exit_status = EXIT_DAMAGED
        self._stopping.set()

    async def _serve(self, journal: Journal, ready: Callable[[], None]) -> None:
        settings, tasks = self._settings, self._settings.tasks
        dbos = DbosProcess(settings.database, stable_id(settings.folder))
        client = AsyncClient(settings.daemon_socket, reconnect_wait_s=_PATIENCE_S)
        secret = tasks.webhook_secret or kept_secret(settings.folder)
        deliveries = Deliveries(journal, self._outside.post, secret)
        engine = Engine(
            *(tasks, journal, client, dbos, deliveries),
            purse=self._outside.purse,
            outputs=self._outside.outputs,
        )
        durable.serve_with(engine)
        hosts = Hosts(engine)
        server = self._server(engine, hosts, journal)
        try:
            await dbos.launch(tasks.turns, tasks.poll_idle_s)
        except Exception as error:
            raise DatabaseError(f"the tasks database cannot be used: {error}") from None
        try:
            await hosts.arrive()
        except RpcError as error:
            raise DatabaseError(error.message) from None
        await server.start(bind(settings.socket, settings.server.group), settings.socket)
        beside = asyncio.ensure_future(hosts.run())
        ready()
        try:
            await self._stopping.wait()
        finally:
            beside.cancel()
            await self._stop(engine, server)
            await client.close()

    def _server(self, engine: Engine, hosts: Hosts, journal: Journal) -> Server:
        version, rights = metadata.version("ccdaemon"), Rights(self._settings.server)

        def may_name(call: Call) -> bool:
            return rights.may_speak_for_others(call.identity)

        told = {"pid": os.getpid(), "version": version}
        handlers = {
            **TaskMethods(engine, hosts, may_name).handlers(),
            **FileMethods(journal, self._settings.tasks, may_name).handlers(),
            "daemon.ping": Handler(lambda _: told, at_once=True),
        }
        return Server(self._settings.server, handlers, f"ccd-worker/{version}", rights)

    async def _stop(self, engine: Engine, server: Server) -> None:
        """Take nothing new, give the turns that run a while, and leave the rest to the next start."""
        engine.stopping = True
        server.drain()
        if not self._exit_status:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    await engine.drained()
        engine.abandon_all()
        server.close()
        durable.serve_with(None)
        await engine.dbos.close()


def make_folder(folder: Path) -> None:
    """The worker's own directory, which nobody else may read."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseError(f"cannot use {folder}: {error.strerror}") from None


def stable_id(folder: Path) -> str:
    """The host's name for the engine: made once, and kept."""
    return _kept(folder / "host-id", lambda: f"host-{uuid.uuid4().hex}")


def kept_secret(folder: Path) -> str:
    """The secret that signs webhooks without one of their own: made once, and kept."""
    return _kept(folder / "webhook-secret", new_secret)


def _kept(path: Path, make: Callable[[], str]) -> str:
    try:
        text = path.read_text().strip()
        if text:
            return text
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DatabaseError(f"cannot read {path}: {error.strerror}") from None
    text = make()
    try:
        fresh = path.with_name(f"{path.name}.new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:  # noqa: PTH123
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise DatabaseError(f"cannot write {path}: {error.strerror}") from None
    return text


def serve(settings: WorkerSettings, outside: Outside, *, ready: Callable[[], None]) -> int:
    """Run the worker in this process; returns the exit status.

    Raises:
        SocketError: the socket cannot be had. DatabaseError: the database cannot be used.
    """
    logs.configure(settings.log_level, settings.log_format)
    logging.getLogger("dbos").setLevel(logging.ERROR)

    async def main() -> int:
        return await WorkerProcess(settings, outside).run(ready)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


__all__ = ["DatabaseError", "Outside", "SocketError", "serve"]
