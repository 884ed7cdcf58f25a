"""Every setting of the daemon, with its default, bounds and meaning. The loader is `ccd_settings.settings`.

Order, later wins: defaults, settings of the older projects (`ccd_settings.compat`), TOML file,
`CCD_<SECTION>__<KEY>` variables, flags. `CCD_SOCKET` names the socket and `CCD_CONFIG` the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ccd_settings import compat
from ccd_settings.paths import data_dir
from ccd_settings.settings import SettingsError, config_path, load, setting, socket_in_force

MIB = 1024 * 1024
_PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


@dataclass(frozen=True)
class ServerSettings:
    """`[server]`: the socket and who may use it."""

    socket: Path | None = setting(
        None, "path of the Unix socket; $CCD_SOCKET goes first; default: the usual places"
    )
    group: str | None = setting(None, "group that may connect, besides the daemon's user")
    allow_uids: list[int] = setting([], "user ids that may connect, besides root and the daemon's user")
    admin_uids: list[int] = setting(
        [], "user ids that may use admin methods, besides root and the daemon's user"
    )
    tenant_uids: list[int] = setting([], "user ids that may speak for other tenants (the gateway's user)")
    max_connections_per_uid: int = setting(64, "open connections per user", min=1, max=10000)
    max_calls_per_connection: int = setting(256, "open calls per connection", min=1, max=100000)
    max_frame_bytes: int = setting(64 * MIB, "largest frame accepted", min=65536, max=1024 * MIB)
    # The socket's own limit is part of its protocol, and lower; this one is for the gateway.
    max_items: int = setting(
        100_000, "values in one list of a request to the gateway; more is 413", min=1, max=10_000_000
    )
    max_kept_bytes: int = setting(
        256 * MIB, "bytes of all clients' large requests, unfinished or being served", min=65536
    )


@dataclass(frozen=True)
class CliSettings:
    """`[cli]`: the Claude Code CLI."""

    command: str | None = setting(None, "the executable; default: `claude` on PATH, then ccd's own copy")
    auto_install: bool = setting(False, "install the CLI when there is none, as `ccd cli install` does")
    env: dict[str, str] = setting({}, "variables set for every worker", secret=True)
    max_retries: int = setting(2, "times the CLI itself retries a failed API call", min=0, max=20)
    retry_patience_ms: int = setting(5000, "longest wait for one such retry before the caller is told", min=0)
    max_line_bytes: int = setting(256 * MIB, "longest line of output", min=64 * MIB, max=1024 * MIB)


@dataclass(frozen=True)
class PoolSettings:
    """`[pool]`: how many CLI processes, and how large."""

    spares: int = setting(2, "processes kept warm per profile in use", min=0, max=64)
    rehearse: bool = setting(
        True,
        "with an API key or token: a spare practises a turn, which fails before any request is made; its first "
        "answer then begins in half the time",
    )
    max_workers: int = setting(
        0, "most CLI processes at once; 0: twice the cores, at least 4", min=0, max=1024
    )
    spawn_concurrency: int = setting(0, "processes started at the same time; 0: one per core", min=0, max=64)
    max_idle_s: float = setting(1800.0, "an idle process ends after this long", min=1)
    rss_soft_bytes: int = setting(600 * MIB, "a process larger than this ends when its turn does", min=MIB)
    rss_hard_bytes: int = setting(2048 * MIB, "a process larger than this is killed at once", min=MIB)
    poll_s: float = setting(1.0, "how often memory is looked at", min=0.05, max=60)
    control_groups: bool = setting(True, "use control groups where the host lets the daemon have them")
    max_processes: int = setting(512, "a worker with more processes than this is killed", min=8, max=100000)
    max_pressure: float = setting(
        20.0,
        "percent of time that the host waits for memory, from which no spares are started",
        min=0,
        max=100,
    )


@dataclass(frozen=True)
class EngineSettings:
    """`[engine]`: how requests reach the CLI, and how long a process is used."""

    body: Literal["auto", "full", "keep_system", "replay"] = setting(
        "auto",
        "full: the exact request; keep_system: the CLI composes the system prompt; "
        "replay: documented knobs only; auto: by the kind of login",
    )
    reset_turns: int = setting(20, "turns until a process must forget what it heard", min=1)
    reset_input_tokens: int = setting(100_000, "input tokens until it must forget", min=1)
    max_turns: int = setting(2000, "turns until a process is replaced", min=1)
    tuning: Literal["latency", "balanced", "memory"] = setting(
        "balanced",
        "what processes are tuned for: the first token, little memory, or both in measure; "
        "only what the installed CLI knows is set",
    )
    max_age_s: float = setting(6 * 3600.0, "age at which a process is replaced", min=1)


@dataclass(frozen=True)
class QueueSettings:
    """`[queue]`: requests that wait for a process."""

    max_waiting: int = setting(64, "requests of one tenant that may wait", min=0, max=100000)
    timeout_s: float = setting(30.0, "longest wait", min=0.05)


@dataclass(frozen=True)
class DeadlineSettings:
    """`[deadlines]`: how long each part of a worker's life may take."""

    spawn_timeout_s: float = setting(10.0, "starting a process", min=0.1)
    warm_timeout_s: float = setting(60.0, "until a started process answers its first ping", min=0.1)
    rehearsal_s: float = setting(10.0, "until a spare's rehearsal has ended", min=0.1)
    first_output_s: float = setting(90.0, "from the request to the first output", min=0.1)
    stall_s: float = setting(120.0, "silence in the middle of an answer", min=0.1)
    result_s: float = setting(
        10.0, "from the end of the answer until the CLI says that its turn is over", min=0.1
    )
    turn_s: float = setting(900.0, "a whole answer", min=0.1)
    parked_tool_s: float = setting(600.0, "waiting for a client's tool results", min=0.1)
    hold_timeout_s: float = setting(30.0, "between lease and turn", min=0.1)
    interrupt_grace_s: float = setting(5.0, "until an interrupted turn has ended", min=0.1)
    reset_timeout_s: float = setting(5.0, "until a reset is confirmed", min=0.1)
    drain_grace_s: float = setting(5.0, "until a process whose stdin was closed has ended", min=0.1)
    kill_grace_s: float = setting(2.0, "from TERM to KILL", min=0.05)
    check_s: float = setting(2.0, "checking a JSON schema, or an answer against one", min=0.01, max=60)
    shutdown_s: float = setting(20.0, "for running answers when ccd is stopped", min=0)


@dataclass(frozen=True)
class BreakerSettings:
    """`[breaker]`: when starting processes is paused."""

    deaths: int = setting(5, "processes that died before they were ready", min=1, max=100)
    window_s: float = setting(30.0, "within this time", min=0.1)
    backoff_s: float = setting(1.0, "first pause", min=0.05)
    max_backoff_s: float = setting(60.0, "longest pause", min=0.05)


@dataclass(frozen=True)
class LogSettings:
    """`[log]`: to stderr. Never contains what was asked or answered."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "least severe level shown")
    format: Literal["text", "json"] = setting("text", "text to read, json for machines")


@dataclass(frozen=True)
class UpSettings:
    """`[up]`: `ccd up`, which starts daemon and gateway and looks after them."""

    watchdog_s: float = setting(
        30.0, "a part that misses three pings in a row over this time is killed and started again", min=0.3
    )


@dataclass(frozen=True)
class DataSettings:
    """`[data]`: where ccd keeps files."""

    dir: Path | None = setting(None, "default: /var/lib/ccd for root's service, else ~/.local/share/ccd")


@dataclass(frozen=True)
class ConversationSettings:
    """`[conversations]`: what is remembered by name, in `conversations.db` in the data directory."""

    max_count: int = setting(10_000, "conversations kept; the one used longest ago goes first", min=1)
    max_messages: int = setting(1000, "messages kept of one conversation", min=2)
    max_bytes: int = setting(8 * MIB, "bytes kept of one conversation", min=1024)
    retention_s: float = setting(30 * 86400.0, "an unused conversation is forgotten after this long", min=1)


@dataclass(frozen=True)
class SessionSettings:
    """`[sessions]`: CLI processes with tools of their own, each bound to one session for life."""

    roots: list[Path] = setting(
        [], "directories beneath which a session may work; without cwd it gets an empty one of its own"
    )
    max_count: int = setting(10, "sessions with a running process", min=0, max=1000)
    max_per_tenant: int = setting(5, "those of one tenant", min=0, max=1000)
    idle_s: float = setting(
        1800.0, "a session without clients and without a running turn ends after this", min=1
    )
    turn_s: float = setting(3600.0, "longest turn, without the time that permissions are waited for", min=1)
    permission_s: float = setting(
        600.0, "a permission request that nobody answers is denied after this", min=1
    )
    history_bytes: int = setting(4 * MIB, "what a client that comes later is shown of the past", min=0)
    backlog_bytes: int = setting(8 * MIB, "what may wait for a client that is slower than others", min=MIB)
    allow_bypass: bool = setting(False, "allow the permission mode bypassPermissions")
    setting_sources: list[Literal["user", "project", "local"]] = setting(
        [], "settings files that its CLI reads (user, project, local); project brings CLAUDE.md too"
    )
    trust_projects: bool = setting(
        False,
        "allow project and local in sessions.setting_sources: what lies in a session's directory is then run as ccd's "
        "user before anybody is asked (hooks, apiKeyHelper)",
    )
    env: dict[str, str] = setting({}, "variables set for every session", secret=True)
    uids: list[int] = setting(
        [], "user ids that may open sessions, besides root, the daemon's user and server.tenant_uids"
    )


@dataclass(frozen=True)
class CacheSettings:
    """`[cache]`: answers that are given again to whoever asks the same, in memory, per tenant."""

    enabled: bool = setting(False, "give the same answer to the same request that is not streamed")
    max_entries: int = setting(1000, "answers kept; the oldest goes first", min=0, max=10_000_000)
    max_bytes: int = setting(64 * MIB, "bytes of all of them together", min=0)
    ttl_s: float = setting(3600.0, "how long one is given again", min=0)
    tools: bool = setting(False, "also for requests with tools")


@dataclass(frozen=True)
class Profile:
    """`[profiles.NAME]`: a kind of worker. `chat` always exists: a plain model without any built-in tools."""

    model: str | None = setting(None, "model when the request names none; default: the CLI's own default")
    fallback_model: str | None = setting(None, "model to ask when that one is overloaded or does not exist")
    spares: int | None = setting(None, "overrides pool.spares", min=0, max=64)
    env: dict[str, str] = setting({}, "variables set for this profile's workers", secret=True)
    prefork: bool = setting(False, "start its spares with the daemon instead of at first use")


SECTIONS: Mapping[str, Any] = {
    "server": ServerSettings,
    "cli": CliSettings,
    "pool": PoolSettings,
    "engine": EngineSettings,
    "queue": QueueSettings,
    "deadlines": DeadlineSettings,
    "breaker": BreakerSettings,
    "log": LogSettings,
    "up": UpSettings,
    "data": DataSettings,
    "conversations": ConversationSettings,
    "sessions": SessionSettings,
    "cache": CacheSettings,
    "profiles": dict[str, Profile],
    # The gateway and `ccd worker` read their own sections; here these only have to be tables.
    "gateway": dict[str, Any],
    "tasks": dict[str, Any],
}


@dataclass(frozen=True)
class Settings:
    """All settings in force."""

    server: ServerSettings
    cli: CliSettings
    pool: PoolSettings
    engine: EngineSettings
    queue: QueueSettings
    deadlines: DeadlineSettings
    breaker: BreakerSettings
    log: LogSettings
    up: UpSettings
    data: DataSettings
    conversations: ConversationSettings
    sessions: SessionSettings
    cache: CacheSettings
    profiles: Mapping[str, Profile]
    socket: Path
    data_dir: Path
    source: Path | None  # the file that was read
    compat_notes: tuple[compat.Note, ...] = ()  # what became of settings of the older projects

    def exchange(self, section: str, table: Any) -> None:
        """Put another table in the place of a section; only `reload` does so."""
        object.__setattr__(self, section, table)

    @property
    def max_workers(self) -> int:
        """The limit on CLI processes, worked out."""
        return self.pool.max_workers or max(4, 2 * (os.cpu_count() or 1))

    @property
    def spawn_concurrency(self) -> int:
        """The limit on processes being started, worked out."""
        return self.pool.spawn_concurrency or os.cpu_count() or 1


def read(
    environ: Mapping[str, str],
    *,
    path: Path | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Read and check all settings.

    Raises:
        SettingsError: the message names the file, variable or flag and the key.
    """
    source = path or config_path(environ)
    found = compat.read(environ)
    values = load(SECTIONS, toml_path=source, environ=environ, overrides=overrides, below=found.settings)
    values.pop("gateway")
    values.pop("tasks")
    profiles = {"chat": Profile(prefork=True)} | dict(values.pop("profiles"))
    profiles["chat"] = replace(profiles["chat"], prefork=True)
    for name in profiles:
        if not _PROFILE_NAME.fullmatch(name):
            raise SettingsError(f"profiles.{name}: a profile's name is lower-case letters, digits, - and _")
    flag = (overrides or {}).get("server.socket")
    settings = Settings(
        **values,
        profiles=profiles,
        socket=Path(str(flag)) if flag else socket_in_force(environ, source, serving=True),
        data_dir=values["data"].dir or default_data_dir(environ),
        source=source,
        compat_notes=tuple(found.notes_for("daemon")),
    )
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    pool = settings.pool
    if pool.rss_hard_bytes <= pool.rss_soft_bytes:
        raise SettingsError("pool.rss_hard_bytes: must be larger than pool.rss_soft_bytes")
    sessions = settings.sessions
    if {"project", "local"} & set(sessions.setting_sources) and not sessions.trust_projects:
        raise SettingsError(
            "sessions.setting_sources: project and local have the CLI run what a session's directory says (hooks, "
            "apiKeyHelper), as ccd's user and before any message; set sessions.trust_projects to true if you trust "
            "every directory of sessions.roots, and whoever can write there"
        )


def check_places(settings: Settings) -> None:
    """See that the directories that settings name are there, before anything is started.

    Raises:
        SettingsError: naming the key.
    """
    for root in settings.sessions.roots:
        if not os.path.isdir(root):  # noqa: PTH112 - does not raise where a directory is closed
            raise SettingsError(
                f"sessions.roots: there is no directory {root} that ccd may see; make it first"
            )
    folder = settings.data_dir
    if settings.data.dir is not None and not os.path.isdir(folder.parent):  # noqa: PTH112
        raise SettingsError(f"data.dir: there is no directory {folder.parent} to make {folder.name} in")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(f"data.dir: cannot make the directory {folder}: {error.strerror}") from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise SettingsError(f"data.dir: ccd may not read and write {folder}; change its owner, or data.dir")


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Returns where ccd keeps files when no setting says so."""
    return data_dir(environ)
