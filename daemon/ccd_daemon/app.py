"""The composition root: builds the daemon from its parts, runs it, and takes it down in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path

import uvloop

from ccd_daemon.claude import argv
from ccd_daemon.claude.binary import CliBroken, CliNotFound
from ccd_daemon.claude.binary import find as find_cli
from ccd_daemon.claude.binary import resolve as resolve_cli
from ccd_daemon.claude.capability import capabilities
from ccd_daemon.claude.login import login_kind, mode_for
from ccd_daemon.claude.probe import traces_in
from ccd_daemon.claude.tuning import TRACES, Tuning, sparing, speeding
from ccd_daemon.config import Settings
from ccd_daemon.housekeeping import Housekeeping
from ccd_daemon.pool.pool import Pool
from ccd_daemon.process import cgroup, memory, reaper
from ccd_daemon.process.lineage import Origin
from ccd_daemon.process.process import WORKER_MARKER
from ccd_daemon.rpc.call import Handler, handlers
from ccd_daemon.rpc.methods.admin import AdminMethods
from ccd_daemon.rpc.methods.cache import CacheMethods
from ccd_daemon.rpc.methods.chat import ChatMethods
from ccd_daemon.rpc.methods.conversation import ConversationMethods
from ccd_daemon.rpc.methods.daemon import DaemonMethods
from ccd_daemon.rpc.methods.model import ModelMethods
from ccd_daemon.rpc.methods.remembered import Remembered
from ccd_daemon.rpc.methods.session import SessionMethods
from ccd_daemon.rpc.server import Server, SocketError, SocketLock, bind
from ccd_daemon.session.process import SessionWish
from ccd_daemon.session.session import Session
from ccd_daemon.session.sessions import Sessions
from ccd_daemon.store.answer_cache import AnswerCache
from ccd_daemon.store.conversations import ConversationStore
from ccd_daemon.watchdog import Watchdog
from ccd_daemon.worker.lifecycle import State
from ccd_daemon.worker.worker import Worker
from ccd_settings import logs
from ccd_settings.service_manager import Notifier, credentials, take_socket

log = logging.getLogger("ccd")

_FDS_PER_WORKER = 4  # three pipes and a pidfd
_FDS_SPARE = 40


def version() -> str:
    """ccd's own version."""
    return metadata.version("ccdaemon")


class Daemon:
    """A running daemon."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.version = version()
        self.settings = settings
        self._environ = environ
        self._loop = asyncio.get_running_loop()
        self._born = self._loop.time()
        self._stopping = asyncio.Event()
        # Beside the socket, so that whoever holds its lock may clear what a killed daemon left.
        self._home = settings.socket.with_name(settings.socket.name + ".workers")
        self._owner = str(settings.socket)
        self.login = login_kind({**environ, **settings.cli.env})
        self.mode = mode_for(settings.engine.body, self.login)
        self.command = self._find_cli()
        self._tuned = self._probe()
        if not self._private_config():
            # Processes that share a configuration tear it when they start at the same time.
            self.settings = settings = replace(settings, pool=replace(settings.pool, spawn_concurrency=1))
        places = cgroup.find() if settings.pool.control_groups else cgroup.Places()
        self.groups = cgroup.Groups(self._owner, places)
        self.conversations = ConversationStore(settings.data_dir / "conversations.db", settings.conversations)
        self._cache = AnswerCache(settings.cache)
        self._remembered = Remembered(self._cache, self._loop.time, with_tools=settings.cache.tools)
        self.pool = Pool(settings, self.mode, self._launch, private_login=self.login.is_key)
        alone = contextlib.nullcontext if self._private_config() else self.pool.spawner.stopped
        self.sessions = Sessions(settings, self._launch_session, alone)
        self.housekeeping = Housekeeping(
            self.pool, self.sessions, settings, self.command, self._round, self._replaced
        )
        marker = f"{reaper.DAEMON_MARKER}={self._owner}"
        origin = Origin(os.getpid(), group=self.groups.prefix, marker=marker)
        self.server = Server(settings.server, {}, f"ccd/{self.version}", settings.sessions.uids, origin)
        self.server.limit_files(file_room(settings, raise_fd_limit()))
        self.server.handlers.update(self._handlers())

    def _find_cli(self) -> Path:
        """The CLI, its version checked. One that does not tell is tried all the same: the breaker will show."""
        command, data_dir = self.settings.cli.command, self.settings.data_dir
        try:
            cli = resolve_cli(command, data_dir, self._environ)
        except CliBroken as error:
            log.warning("%s", error)
            path = find_cli(command, data_dir, self._environ.get("PATH", os.defpath))
            if path is None:
                raise CliNotFound(str(error)) from error
            self.cli_version = "unknown"
            return path
        self.cli_version = cli.version
        return cli.path

    def _probe(self) -> dict[str, str]:
        """What makes the installed CLI faster, and each request one call. Blocks while its file is searched, once."""
        cache = self.settings.data_dir / "cli-probe.json"
        known = traces_in(self.command, TRACES, cache)
        return speeding(Tuning(self.settings.engine.tuning), known) | sparing(known)

    def _replaced(self) -> None:
        """The CLI's file is another one: idle processes end, and what the new one knows is looked up meanwhile."""
        self.pool.roll()
        probing = self._loop.run_in_executor(None, self._probe)
        probing.add_done_callback(self._probed)

    def _probed(self, probing: asyncio.Future[dict[str, str]]) -> None:
        if not probing.cancelled() and probing.exception() is None:
            self._tuned = probing.result()

    def _handlers(self) -> dict[str, Handler]:
        chat = ChatMethods(
            self.pool,
            self.server,
            self.settings.profiles,
            self.conversations,
            self._remembered,
            betas=self.login.is_key,
        )
        named = ConversationMethods(
            self.conversations, lambda call: self.server.may_speak_for_others(call.identity)
        )
        sessions = SessionMethods(self.sessions, self.server, self.settings.sessions)
        return handlers(
            {
                "chat": chat,
                "conversation": named,
                "session": sessions,
                "cache": CacheMethods(self._remembered),
                "model": ModelMethods(self.pool, self.settings.profiles),
                "daemon": DaemonMethods(self.pool, self.version),
                "admin": AdminMethods(self),
            }
        )

    # --- workers ---

    def _launch(self, worker: Worker) -> None:
        home = self._home / worker.id
        marker = f"{worker.id}/{os.getpid()}"
        env = argv.worker_env(
            self._environ,
            login=self.login,
            extra=(self.settings.cli.env, self.settings.profiles[worker.profile].env),
            markers={reaper.DAEMON_MARKER: self._owner, WORKER_MARKER: marker},
            max_retries=self.settings.cli.max_retries,
            config_dir=str(home) if self._private_config() else None,
            tuned=self._tuned,
        )
        limits = self.settings.pool
        group = partial(self.groups.open, worker.id, limits.rss_hard_bytes, limits.max_processes)
        worker.start(self.command, argv.worker_argv(worker.mode), env, home, group)

    def _launch_session(self, session: Session, folder: int | None, wish: SessionWish) -> None:
        limits = self.settings.pool
        home = self._home / f"s-{session.id}"
        marker = f"{session.id}/{os.getpid()}"
        env = argv.session_env(
            self._environ,
            extra=(self.settings.cli.env, self.settings.sessions.env),
            markers={reaper.DAEMON_MARKER: self._owner, WORKER_MARKER: marker},
            max_retries=self.settings.cli.max_retries,
            config_dir=str(home / "config") if self._private_config() else None,
        )
        arguments = argv.session_argv(
            self.settings.sessions.setting_sources, may_bypass=self._may_bypass(env, wish)
        )
        group = partial(self.groups.open, home.name, limits.rss_hard_bytes, limits.max_processes)
        session.view.state["cwd"] = session.view.state["cwd"] or str(home / "work")
        session.process.start(self.command, arguments, env, home, group, folder, wish)

    def _may_bypass(self, env: Mapping[str, str], wish: SessionWish) -> bool:
        """Whether the CLI may skip permissions. As root, outside of a sandbox, it does not start when told so."""
        works = os.getuid() != 0 or bool(env.get("IS_SANDBOX"))
        return self.settings.sessions.allow_bypass and (works or wish.permission_mode == "bypassPermissions")

    def _private_config(self) -> bool:
        """With a key each worker has its own configuration; a login lives in the one of the user."""
        return self.login.is_private

    def uptime_s(self) -> float:
        """Seconds since start."""
        return self._loop.time() - self._born

    def status(self) -> dict[str, object]:
        """The parts of `admin.status` that only the root knows."""
        settings = self.settings
        return {
            "socket": str(settings.socket),
            "connections": len(self.server.connections),
            "cache": self._remembered.stats(),
            "cli": {
                "command": str(self.command),
                "version": self.pool.cli_version or self.cli_version,
                "capabilities": capabilities(self.pool.cli_version or self.cli_version, self.pool.announced),
            },
            "sessions": {"running": len(self.sessions.processes), **self.sessions.counters},
            "tuning": {"set": settings.engine.tuning, "variables": dict(self._tuned)},
            "login": {"kind": self.login, "mode": self.mode},
            "settings": {
                "file": str(settings.source) if settings.source else None,
                "data_dir": str(settings.data_dir),
                "max_workers": settings.max_workers,
                "spares": settings.pool.spares,
                "spawn_concurrency": settings.spawn_concurrency,
            },
        }

    def memory(self) -> dict[str, object]:
        """What bounds the workers' memory and ends their trees, and how short of memory the host is."""
        return {
            "caps": self.groups.caps,
            "trees": self.groups.trees,
            "pressure_percent": self.housekeeping.pressure,
        }

    # --- life ---

    async def run(
        self, ready: Callable[[], None], manager: Notifier, given: socket.socket | None = None
    ) -> None:
        """Serve until told to stop.

        Args:
            ready: called once, when the socket answers and a worker is warm.
            manager: the service manager, which is told so too.
            given: the listening socket, where the service manager holds it; it stays when the daemon goes.
        """
        watchdog = Watchdog(manager, self.housekeeping.alive, self._summary)
        lock = SocketLock(self.settings.socket)
        lock.acquire()
        try:
            memory.return_large_blocks()
            reaper.become_subreaper()
            self.groups.clear_leftovers()
            reaper.sweep_leftovers(self._owner)
            self._make_home()
            sock = given or bind(self.settings.socket, self.settings.server.group)
            await self.server.start(sock, self.settings.socket, keep=given is not None)
            self._on_signals(self._stopping.set)
            log.info(
                "serving %s: CLI %s, login %s, mode %s", self._owner, self.cli_version, self.login, self.mode
            )
            self.pool.start()
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(self.housekeeping.run())
                announcing = tasks.create_task(self._announce(ready, watchdog))
                await self._stopping.wait()
                watchdog.stopping()
                keeping.cancel()
                announcing.cancel()
            await self._stop()
        finally:
            watchdog.close()
            self.server.close()
            self.groups.close()
            self.conversations.close()
            shutil.rmtree(self._home, ignore_errors=True)
            lock.release()

    def _summary(self) -> str:
        """Returns the one line that `systemctl status` shows."""
        busy = sum(worker.state is State.BUSY for worker in self.pool.workers)
        return (
            f"{len(self.pool.workers)} of {self.settings.max_workers} CLI processes, {busy} busy; "
            f"{len(self.sessions.processes)} sessions; CLI {self.cli_version}, login {self.login}"
        )

    async def _announce(self, ready: Callable[[], None], watchdog: Watchdog) -> None:
        while not self.pool.warm:
            if self.pool.broken():
                break  # up, though degraded: what is wrong is said to whoever asks
            await asyncio.sleep(0.01)
        gc.collect()
        gc.freeze()  # what is alive now stays; the collector need not look at it again
        ready()
        watchdog.ready()

    def _round(self) -> None:
        self._cache.purge(self._loop.time())
        if self.server.lost_socket():
            log.error(
                "the socket %s was removed or replaced; stopping, so that a supervisor can start afresh",
                self._owner,
            )
            self._stopping.set()

    async def _stop(self) -> None:
        log.info("stopping")
        self._on_signals(self._hurry)  # a second one does not wait for running answers
        self.server.drain()
        grace_s = self.settings.deadlines.shutdown_s
        ending = asyncio.ensure_future(self.sessions.stop(grace_s))
        with contextlib.suppress(TimeoutError):
            await self.pool.stop(grace_s)
        await ending
        for _ in range(100):
            if not self.housekeeping.sweep():
                break
            await asyncio.sleep(0.01)

    def _hurry(self) -> None:
        self.pool.hurry()
        self.sessions.hurry()

    def _make_home(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
        try:
            self._home.mkdir(mode=0o700)
        except OSError as error:
            raise SocketError(f"cannot create {self._home}: {error.strerror}") from None

    def _on_signals(self, act: Callable[[], None]) -> None:
        """SIGHUP, a terminal that is closed, ends it like the others, unless it was started with nohup."""
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                self._loop.add_signal_handler(signum, act)


def raise_fd_limit() -> int:
    """Use all file descriptors that the hard limit allows; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def file_room(settings: Settings, limit: int) -> int:
    """How many of the open files are left for connections; says so when they are few."""
    room = limit - _FDS_PER_WORKER * (settings.max_workers + settings.sessions.max_count) - _FDS_SPARE
    if room < 2 * settings.server.max_connections_per_uid:
        log.warning(
            "with at most %d open files only %d connections can be had; raise LimitNOFILE", limit, room // 2
        )
    return room


def serve(settings: Settings, environ: Mapping[str, str], *, ready: Callable[[], None]) -> None:
    """Run the daemon in this process until SIGTERM or SIGINT.

    Raises:
        SocketError: the socket cannot be had. CliError: there is no usable CLI.
    """
    logs.configure(settings.log.level, settings.log.format)
    for note in settings.compat_notes:
        log.log(logging.WARNING if note.warning else logging.INFO, "%s", note.text)
    sys.setswitchinterval(0.05)  # helper threads only delete directories; they need not share the loop's time

    manager, given = Notifier(os.environ), take_socket(os.environ, "ccd")
    given_by_manager = credentials(os.environ, argv.LOGIN_ENV)

    async def main() -> None:
        await Daemon(settings, {**given_by_manager, **environ}).run(ready, manager, given)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
