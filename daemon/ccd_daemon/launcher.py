"""How a CLI process is started: with which arguments and variables, in which directory and control group.

All that is fixed for its life; nothing of a request is here. What the arguments and variables are is `claude.argv`'s.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial

from ccd_daemon.claude import argv
from ccd_daemon.claude.login import LoginKind
from ccd_daemon.claude.program import Program
from ccd_daemon.config import Settings
from ccd_daemon.process import reaper
from ccd_daemon.process.cgroup import Group, Groups
from ccd_daemon.process.process import WORKER_MARKER
from ccd_daemon.process.tree import clear_temporary, temporary_of
from ccd_daemon.rpc.server import SocketError
from ccd_daemon.session.process import SessionWish
from ccd_daemon.session.session import Session
from ccd_daemon.sweeper import Sweeper
from ccd_daemon.worker.worker import Worker


class Launcher:
    """Starts the processes of workers and sessions.

    Attributes:
        owner: tells this daemon's processes from another's, in their environment.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        login: LoginKind,
        program: Program,
        groups: Groups,
        sweeper: Sweeper,
    ) -> None:
        self.owner = str(settings.socket)
        self._settings = settings
        self._environ = environ
        self._login = login
        self._program = program
        self._groups = groups
        self._sweeper = sweeper
        # Beside the socket, so that whoever holds its lock may clear what a killed daemon left.
        self._home = settings.socket.with_name(settings.socket.name + ".workers")

    def open(self) -> None:
        """End and remove what an earlier daemon of this socket left; call only while holding the socket's lock.

        Raises:
            SocketError: the directory for the processes' own directories cannot be made.
        """
        self._groups.clear_leftovers()
        reaper.sweep_leftovers(self.owner)
        shutil.rmtree(self._home, ignore_errors=True)
        clear_temporary(self._home)
        try:
            self._home.mkdir(mode=0o700)
        except OSError as error:
            raise SocketError(f"cannot create {self._home}: {error.strerror}") from None

    def close(self) -> None:
        """Remove what was made for the processes."""
        self._groups.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def worker(self, worker: Worker) -> None:
        """Start a worker's process."""
        settings, home = self._settings, self._home / worker.id
        env = argv.worker_env(
            self._environ,
            login=self._login,
            extra=(settings.cli.env, settings.profiles[worker.profile].env),
            markers=self._markers(worker.id),
            max_retries=settings.cli.max_retries,
            config_dir=str(home) if self._login.is_private else None,
            temporary=str(temporary_of(home)),
            tuned=self._program.variables,
        )
        self._sweeper.started(worker)
        worker.start(self._program.path, argv.worker_argv(worker.mode), env, home, self._group(worker.id))

    def session(self, session: Session, folder: int | None, wish: SessionWish) -> None:
        """Start a session's process in an open directory, by its descriptor, or in an empty one of its own."""
        settings, home = self._settings, self._home / f"s-{session.id}"
        env = argv.session_env(
            self._environ,
            extra=(settings.cli.env, settings.sessions.env),
            markers=self._markers(session.id),
            max_retries=settings.cli.max_retries,
            config_dir=str(home / "config") if self._login.is_private else None,
            temporary=str(temporary_of(home)),
        )
        bypass = self._may_bypass(env, wish)
        arguments = argv.session_argv(settings.sessions.setting_sources, may_bypass=bypass)
        session.view.state["cwd"] = session.view.state["cwd"] or str(home / "work")
        self._sweeper.started(session.process)
        group = self._group(home.name)
        session.process.start(self._program.path, arguments, env, home, group, folder, wish)

    def _markers(self, process_id: str) -> dict[str, str]:
        return {reaper.DAEMON_MARKER: self.owner, WORKER_MARKER: f"{process_id}/{os.getpid()}"}

    def _group(self, name: str) -> Callable[[], Group | None]:
        limits = self._settings.pool
        return partial(self._groups.open, name, limits.rss_hard_bytes, limits.max_processes)

    def _may_bypass(self, env: Mapping[str, str], wish: SessionWish) -> bool:
        """Whether the CLI may skip permissions. As root, outside of a sandbox, it does not start when told so."""
        works = os.getuid() != 0 or bool(env.get("IS_SANDBOX"))
        return self._settings.sessions.allow_bypass and (works or wish.permission_mode == "bypassPermissions")
