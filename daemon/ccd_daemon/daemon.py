"""The daemon's run: what is done in which order when it starts, and in which when it stops.

What it is made of, `app.build` says. It starts with the socket's lock, under which what an earlier daemon left is
ended; it stops by taking no more calls, letting running answers end, and ending every process, before the socket goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from ccd_daemon.config import Settings
from ccd_daemon.housekeeping import Housekeeping
from ccd_daemon.launcher import Launcher
from ccd_daemon.pool.pool import Pool
from ccd_daemon.process import memory, reaper
from ccd_daemon.reload import Reloading
from ccd_daemon.report import Report
from ccd_daemon.rpc.methods.daemon import is_warm
from ccd_daemon.rpc.server import Server, SocketLock, bind
from ccd_daemon.schema.checker import Checker
from ccd_daemon.session.sessions import Sessions
from ccd_daemon.store.answer_cache import AnswerCache
from ccd_daemon.store.conversations import ConversationStore
from ccd_daemon.sweeper import Sweeper
from ccd_daemon.watchdog import Watchdog
from ccd_protocol.errors import RpcError
from ccd_settings.service_manager import Notifier

log = logging.getLogger("ccd")

_LOOK_S = 0.01
_SWEEPS_AT_END = 100


@dataclass(eq=False)
class Daemon:
    """A daemon that is built, and runs once."""

    settings: Settings
    pool: Pool
    sessions: Sessions
    sweeper: Sweeper
    housekeeping: Housekeeping
    launcher: Launcher
    conversations: ConversationStore
    cache: AnswerCache
    checker: Checker
    report: Report
    server: Server
    reloading: Reloading
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    async def run(
        self, ready: Callable[[], None], manager: Notifier, given: socket.socket | None = None
    ) -> None:
        """Serve until told to stop.

        Args:
            ready: called once, when the socket answers and a worker is warm.
            manager: the service manager, which is told so too.
            given: the listening socket, where the service manager holds it; it stays when the daemon goes.
        """
        path = self.settings.socket
        watchdog = Watchdog(manager, self.housekeeping.alive, self.report.line)
        lock = SocketLock(path)
        lock.acquire()
        try:
            memory.return_large_blocks()
            reaper.become_subreaper()
            self.launcher.open()
            sock = given or bind(path, self.settings.server.group)
            await self.server.start(sock, path, keep=given is not None)
            self._on_signals(self._stopping.set)
            log.info("serving %s: %s, mode %s", path, self.report.line(), self.pool.mode)
            self.pool.spawner.refill()
            self.checker.warm()
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(self.housekeeping.run(self._round))
                announcing = tasks.create_task(self._announce(ready, watchdog))
                await self._stopping.wait()
                watchdog.stopping()
                keeping.cancel()
                announcing.cancel()
            await self._stop()
        finally:
            watchdog.close()
            self.server.close()
            self.launcher.close()
            self.conversations.close()
            lock.release()

    async def _announce(self, ready: Callable[[], None], watchdog: Watchdog) -> None:
        while not is_warm(self.pool):
            if self.pool.broken():
                break  # up, though degraded: what is wrong is said to whoever asks
            await asyncio.sleep(_LOOK_S)
        await self.checker.connected()
        gc.collect()
        gc.freeze()  # what is alive now stays; the collector need not look at it again
        ready()
        watchdog.ready()

    def _round(self) -> None:
        self.cache.purge(self._loop.time())
        if self.server.lost_socket():
            log.error(
                "the socket %s was removed or replaced; stopping, so that a supervisor can start afresh",
                self.settings.socket,
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
        await self.checker.close()
        for _ in range(_SWEEPS_AT_END):
            if not self.sweeper.sweep():
                break
            await asyncio.sleep(_LOOK_S)

    def _hurry(self) -> None:
        self.pool.hurried = True
        self.sessions.hurry()

    def _on_signals(self, act: Callable[[], None]) -> None:
        """What a signal does: TERM and INT `act`; HUP reloads, unless a terminal is closed; USR2 tells how things are.

        Whoever runs it by hand and closes the terminal wants it to end; under a service manager there is no terminal.
        """
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signum, act)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup is obeyed
            self._loop.add_signal_handler(signal.SIGHUP, act if sys.stdin.isatty() else self._reload)
        self._loop.add_signal_handler(signal.SIGUSR2, self._tell)

    def _reload(self) -> None:
        with contextlib.suppress(RpcError):  # it is in the log, and nothing has changed
            self.reloading.reload()

    def _tell(self) -> None:
        """Write to the log what each process does: for whoever cannot reach the socket any more."""
        log.info("state: %s", self.report.line())
        for worker in self.pool.workers:
            log.info(
                "worker %s: profile %s, %s, pid %s, %d turns, %.0f s old, %d MB",
                *(worker.id, worker.profile, worker.state.value, worker.pid, worker.wear.turns, worker.age_s),
                worker.rss_bytes >> 20,
            )
        for session in self.sessions.running:
            log.info("session %s: %s, pid %s", session.id, session.process.state.value, session.process.pid)
