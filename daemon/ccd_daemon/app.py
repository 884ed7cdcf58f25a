"""The composition root: every part of the daemon is made here, after those that it needs, and given what it needs.

A constructor assigns; it starts nothing, and nothing is patched into a part that was made before. What two parts need
of each other (a pool, and whoever hears of its workers' ends) is made first and given to both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata

import uvloop

from ccd_daemon.claude import argv, program
from ccd_daemon.claude.account import LoginWatch
from ccd_daemon.claude.login import mode_for
from ccd_daemon.claude.tuning import Tuning
from ccd_daemon.config import Settings
from ccd_daemon.daemon import Daemon
from ccd_daemon.housekeeping import Housekeeping
from ccd_daemon.launcher import Launcher
from ccd_daemon.pool.pool import Pool
from ccd_daemon.process import cgroup, reaper
from ccd_daemon.process.lineage import Origin
from ccd_daemon.reload import Reloading
from ccd_daemon.report import Report
from ccd_daemon.rpc.call import handlers
from ccd_daemon.rpc.connection import Connection
from ccd_daemon.rpc.methods.admin import AdminMethods
from ccd_daemon.rpc.methods.cache import CacheMethods
from ccd_daemon.rpc.methods.chat import ChatMethods
from ccd_daemon.rpc.methods.conversation import ConversationMethods
from ccd_daemon.rpc.methods.daemon import DaemonMethods
from ccd_daemon.rpc.methods.model import ModelMethods
from ccd_daemon.rpc.methods.remembered import Remembered
from ccd_daemon.rpc.methods.session import SessionMethods
from ccd_daemon.rpc.rights import Rights
from ccd_daemon.rpc.server import Server
from ccd_daemon.schema.checker import Checker
from ccd_daemon.session.sessions import Sessions
from ccd_daemon.store.answer_cache import AnswerCache
from ccd_daemon.store.conversations import ConversationStore
from ccd_daemon.sweeper import Sweeper
from ccd_settings import logs
from ccd_settings.service_manager import Notifier, credentials, take_socket

log = logging.getLogger("ccd")

_FDS_PER_WORKER = 4  # three pipes and a pidfd
_FDS_SPARE = 40


def build(settings: Settings, environ: Mapping[str, str], reread: Callable[[], Settings]) -> Daemon:
    """Returns a daemon that is ready to run. To be called in its event loop.

    Args:
        settings: those in force.
        reread: reads them once more, as they were read for this.
        environ: the daemon's environment, and what the service manager gave it.

    Raises:
        CliError: there is no usable CLI.
    """
    version = metadata.version("ccdaemon")
    watch = LoginWatch({**environ, **settings.cli.env})
    login = watch.kind
    mode = mode_for(settings.engine.body, login)
    cli = program.found(settings.cli.command, settings.data_dir, environ, Tuning(settings.engine.tuning))
    if not login.is_private:
        # Processes that share a configuration tear it when they start at the same time.
        settings = replace(settings, pool=replace(settings.pool, spawn_concurrency=1))

    groups = cgroup.Groups(
        str(settings.socket), cgroup.find() if settings.pool.control_groups else cgroup.Places()
    )
    checker = Checker(settings.deadlines.check_s)
    sweeper = Sweeper(others=lambda: checker.pids)
    launcher = Launcher(settings, environ, login, cli, groups, sweeper)
    pool = Pool(settings, mode, launcher.worker, sweeper.ended, private_login=login.is_key, login_watch=watch)
    alone = contextlib.nullcontext if login.is_private else pool.spawner.stopped
    sessions = Sessions(settings, launcher.session, sweeper.ended, alone, watch)
    housekeeping = Housekeeping(pool, sessions, sweeper, cli, watch, settings)

    conversations = ConversationStore(settings.data_dir / "conversations.db", settings.conversations)
    cache = AnswerCache(settings.cache)
    remembered = Remembered(cache, asyncio.get_running_loop().time, with_tools=settings.cache.tools)

    reloading = Reloading(settings, reread, pool)
    rights = Rights(settings.server, settings.sessions.uids)
    connections: set[Connection] = set()
    report = Report(
        version, settings, watch, cli, groups, pool, sessions, remembered, housekeeping, connections
    )
    serves = handlers(
        {
            "chat": ChatMethods(
                pool, rights, settings.profiles, conversations, remembered, checker, betas=login.is_key
            ),
            "conversation": ConversationMethods(conversations, rights, pool.room.forget),
            "session": SessionMethods(sessions, rights, settings.sessions),
            "cache": CacheMethods(remembered),
            "model": ModelMethods(pool, settings.profiles),
            "daemon": DaemonMethods(pool, version),
            "admin": AdminMethods(report, reloading),
        }
    )
    origin = Origin(os.getpid(), group=groups.prefix, marker=f"{reaper.DAEMON_MARKER}={launcher.owner}")
    server = Server(settings.server, serves, f"ccd/{version}", rights, origin, connections)
    server.limit_files(file_room(settings, raise_fd_limit()))
    return Daemon(
        settings,
        pool,
        sessions,
        sweeper,
        housekeeping,
        launcher,
        conversations,
        cache,
        checker,
        report,
        server,
        reloading,
    )


def raise_fd_limit() -> int:
    """Use all file descriptors that the hard limit allows; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def file_room(settings: Settings, limit: int) -> int:
    """Returns how many of the open files are left for connections; says so when they are few."""
    room = limit - _FDS_PER_WORKER * (settings.max_workers + settings.sessions.max_count) - _FDS_SPARE
    if room < 2 * settings.server.max_connections_per_uid:
        log.warning(
            "with at most %d open files only %d connections can be had; raise LimitNOFILE", limit, room // 2
        )
    return room


def serve(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    ready: Callable[[], None],
    reread: Callable[[], Settings],
) -> None:
    """Run the daemon in this process until SIGTERM or SIGINT.

    Args:
        settings: those in force.
        environ: the daemon's environment.
        ready: called once when it serves.
        reread: reads the settings once more; it raises SettingsError when they are wrong.

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
        await build(settings, {**given_by_manager, **environ}, reread).run(ready, manager, given)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
