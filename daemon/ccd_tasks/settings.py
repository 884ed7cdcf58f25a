"""Settings of `ccd worker`: the `[tasks]` section, and where its files and sockets are."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ccd_daemon.config import ServerSettings
from ccd_settings.paths import data_dir, tasks_socket
from ccd_settings.settings import config_path, load, socket_in_force

MIB = 1024 * 1024


def setting(default: Any, help: str, **bounds: Any) -> Any:
    """A field with its help text and, for numbers, its bounds."""
    metadata = {"help": help, **bounds}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TasksSettings:
    """`[tasks]`: durable work."""

    database_url: str | None = setting(
        None,
        "postgresql://… shared by several hosts; default: tasks.sqlite3 in the data directory",
        secret=True,
    )
    concurrency: int = setting(
        0, "turns at a time of this host; 0: twice the cores, at least 4", min=0, max=1024
    )
    max_waiting: int = setting(10_000, "unfinished tasks of one tenant; more are 429", min=1)
    max_items: int = setting(50_000, "lines of one batch", min=1, max=1_000_000)
    max_item_bytes: int = setting(32 * MIB, "one step or line", min=1024, max=48 * MIB)
    max_file_bytes: int = setting(200 * MIB, "one file of the Files API", min=1024)
    max_files_bytes: int = setting(2048 * MIB, "all files of one tenant", min=1024)
    max_interruptions: int = setting(
        3, "times that a step is begun again after its process died; then it has failed", min=0, max=100
    )
    step_timeout_s: float = setting(900.0, "a step that names no timeout", min=1)
    retention_s: float = setting(30 * 86400.0, "a finished task, and a file, is forgotten after this", min=1)
    poll_idle_s: float = setting(2.0, "how often an empty queue is looked at", min=0.05, max=60)
    poll_busy_s: float = setting(0.05, "how often a queue with work is looked at", min=0.01, max=10)
    heartbeat_s: float = setting(5.0, "how often a host says that it lives", min=0.1, max=60)
    dead_s: float = setting(20.0, "a host that has been silent for so long is dead", min=0.5, max=3600)
    webhook_networks: list[str] = setting(
        [], "addresses that webhooks may go to although they are not public, for example 10.0.0.0/8"
    )
    webhook_secret: str | None = setting(
        None, "whsec_… that signs webhooks which bring no secret of their own", secret=True
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; the loader puts the section's name before the message."""
        for network in self.webhook_networks:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise ValueError(f"webhook_networks: not an address or network: {network!r}") from None
        url = self.database_url
        if url is not None and not url.startswith(("postgresql://", "postgres://")):
            raise ValueError("database_url: expected postgresql://USER@HOST/NAME")
        if self.dead_s < 2 * self.heartbeat_s:
            raise ValueError("dead_s: must be at least twice heartbeat_s")

    @property
    def turns(self) -> int:
        """Turns at a time, worked out."""
        return self.concurrency or max(4, 2 * (os.cpu_count() or 1))


@dataclass(frozen=True)
class _WorkerData:
    """The `[data]` section, which is the daemon's."""

    dir: Path | None = None


@dataclass(frozen=True)
class _LogSection:
    """The `[log]` section, which is the daemon's."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


@dataclass(frozen=True)
class WorkerSettings:
    """All that `ccd worker` needs to know."""

    tasks: TasksSettings
    daemon_socket: Path
    socket: Path
    folder: Path  # its own, in the data directory
    server: ServerSettings  # who may connect: as for the daemon's socket
    log_level: str
    log_format: Literal["text", "json"]

    @property
    def database(self) -> str:
        """The URL of the database in force."""
        if self.tasks.database_url is None:
            return f"sqlite:///{self.folder / 'tasks.sqlite3'}"
        return "postgresql+psycopg" + self.tasks.database_url[self.tasks.database_url.index("://") :]


def read(
    environ: Mapping[str, str], *, socket: Path | None = None, overrides: Mapping[str, object] | None = None
) -> WorkerSettings:
    """The settings in force.

    Args:
        environ: `CCD_CONFIG` names the file, `CCD_TASKS__KEY` sets a key.
        socket: the daemon's, where a flag names it.
        overrides: flags, as `"tasks.key"`.

    Raises:
        SettingsError: naming the file, variable or flag, and the key.
    """
    source = config_path(environ)
    loaded = load(
        {"tasks": TasksSettings, "data": _WorkerData, "log": _LogSection, "server": ServerSettings},
        toml_path=source,
        environ=environ,
        overrides=overrides,
        others_allowed=True,
    )
    daemon_socket = socket or socket_in_force(environ, source)
    folder: Path = loaded["data"].dir or data_dir(environ)
    log = loaded["log"]
    places = (daemon_socket, tasks_socket(daemon_socket), folder / "tasks")
    return WorkerSettings(loaded["tasks"], *places, loaded["server"], log.level, log.format)
