"""What the daemon says of itself beside its pool: the parts of `admin.status` that belong to no other object."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from ccd_daemon.claude.account import LoginWatch
from ccd_daemon.claude.capability import capabilities
from ccd_daemon.claude.program import Program
from ccd_daemon.config import Settings
from ccd_daemon.housekeeping import Housekeeping
from ccd_daemon.pool.pool import Pool
from ccd_daemon.process.cgroup import Groups
from ccd_daemon.rpc.connection import Connection
from ccd_daemon.rpc.methods.remembered import Remembered
from ccd_daemon.session.sessions import Sessions
from ccd_daemon.worker.lifecycle import State


class Report:
    """Looks at the parts when it is asked (see `methods.admin.Facts`). `connections` are those that are open."""

    def __init__(
        self,
        version: str,
        settings: Settings,
        login: LoginWatch,
        program: Program,
        groups: Groups,
        pool: Pool,
        sessions: Sessions,
        remembered: Remembered,
        housekeeping: Housekeeping,
        connections: Collection[Connection],
    ) -> None:
        self.version = version
        self.pool = pool
        self.sessions = sessions
        self._settings = settings
        self._login = login
        self._program = program
        self._groups = groups
        self._remembered = remembered
        self._housekeeping = housekeeping
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._born = self._loop.time()

    def uptime_s(self) -> float:
        """Returns the seconds since start."""
        return self._loop.time() - self._born

    def _account(self) -> str | None:
        return None if self._login.account is None else str(self._login.account)

    def status(self) -> dict[str, object]:
        """Returns the parts of the status that belong to no other object."""
        settings, pool, program = self._settings, self.pool, self._program
        version = pool.cli_version or program.version
        return {
            "socket": str(settings.socket),
            "connections": len(self._connections),
            "cache": self._remembered.stats(),
            "cli": {
                "command": str(program.path),
                "version": version,
                "capabilities": capabilities(version, pool.announced),
            },
            "sessions": {"running": len(self.sessions.processes), **self.sessions.counters},
            "tuning": {"set": settings.engine.tuning, "variables": dict(program.variables)},
            "login": {"kind": self._login.kind, "account": self._account(), "mode": pool.first_mode},
            "settings": {
                "file": str(settings.source) if settings.source else None,
                "data_dir": str(settings.data_dir),
                "max_workers": settings.max_workers,
                "spares": settings.pool.spares,
                "spawn_concurrency": settings.spawn_concurrency,
            },
        }

    def memory(self) -> dict[str, object]:
        """Returns what bounds the workers' memory and ends their trees, and how short of memory the host is."""
        return {
            "caps": self._groups.caps,
            "trees": self._groups.trees,
            "pressure_percent": self._housekeeping.pressure,
        }

    def line(self) -> str:
        """Returns the one line that `systemctl status` shows."""
        workers = self.pool.workers
        busy = sum(worker.state is State.BUSY for worker in workers)
        return (
            f"{len(workers)} of {self._settings.max_workers} CLI processes, {busy} busy; "
            f"{len(self.sessions.processes)} sessions; CLI {self._program.version}, login {self._login.kind}"
        )
