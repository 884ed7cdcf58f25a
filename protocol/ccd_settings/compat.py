"""What the settings of the two older projects become in ccd.

`claude-code-api` (Rust) read `CLAUDE_CODE__SECTION__KEY` variables and files in `config/`; `claude_code_api`
(Flask) read plain variables such as `API_PORT`, which are too common to be obeyed unless `CCD_COMPAT=flask` says
so. What they set lies just above ccd's defaults: every setting of ccd's own wins over it. Each setting that is
found gets one line that says what became of it; values are shown only where they cannot be secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ccd_settings.compat_files import LOGIN_NAMES, Found, Given, find
from ccd_settings.settings import SettingsError

_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})
_RUST_TURN_MARGIN_S = 60
_RUST_PORT, _FLASK_PORT = 8080, 5000


class Setting(NamedTuple):
    """A setting of ccd's that an older project's setting sets."""

    source: str  # what set it, for messages
    key: str  # section.key
    value: Any  # text is parsed as in a variable


class Note(NamedTuple):
    """One line for the log: what became of a setting."""

    text: str
    warning: bool
    section: str  # whose matter it is: the section of ccd that is set, or "" for none


class CompatSettings(NamedTuple):
    """What was found, as ccd's settings and as lines for the log."""

    settings: tuple[Setting, ...]
    notes: tuple[Note, ...]

    def notes_for(self, program: str) -> list[Note]:
        """Returns the lines that a program should show: the gateway its own section's, the daemon all others."""
        return [note for note in self.notes if (note.section == "gateway") == (program == "gateway")]


def read(environ: Mapping[str, str], folder: Path | None = None) -> CompatSettings:
    """Returns the older projects' settings in the variables and the working directory (or `folder`).

    Raises:
        SettingsError: one that matters has a value that cannot be used.
    """
    return translate(find(environ, folder or Path()), environ)


def translate(found: Found, environ: Mapping[str, str]) -> CompatSettings:
    """Settings of ccd for those that were found.

    Raises:
        SettingsError: naming the setting.
    """
    work = _Translation(found, environ)
    for text in found.remarks:
        work.note(text, warning=True)
    if "rust" in found.modes:
        _rust(work)
    if "flask" in found.modes:
        _flask(work)
    _login(work)
    return CompatSettings(tuple(work.settings), tuple(work.notes))


class _Translation:
    """Collects settings and notes."""

    def __init__(self, found: Found, environ: Mapping[str, str]) -> None:
        self.found = found
        self.environ = environ
        self.settings: list[Setting] = []
        self.notes: list[Note] = []

    def note(self, text: str, *, warning: bool = False, section: str = "") -> None:
        self.notes.append(Note(text, warning, section))

    def set(self, given: Given, key: str, value: Any, *, shown: bool = True, why: str = "") -> None:
        """Set a setting of ccd; the first to set one wins."""
        if any(setting.key == key for setting in self.settings):
            self.note(
                f"{given.name}: has no effect: {key} is set already", warning=True, section=_section(key)
            )
            return
        self.settings.append(Setting(given.name, key, value))
        what = f"{key} = {value}" if shown else key
        self.note(f"{given.name}: {what}{f' ({why})' if why else ''}", section=_section(key))


def _section(key: str) -> str:
    return key.partition(".")[0]


# --- the Rust project ---

_Rule = Callable[[_Translation, Given], None]


def _to(key: str, why: str = "") -> _Rule:
    """Returns the same value under ccd's name; the loader checks it."""
    return lambda work, given: work.set(given, key, _scalar(given), why=why)


def _nothing(why: str) -> _Rule:
    return lambda work, given: work.note(f"{given.name}: no effect: {why}")


def _kept(work: _Translation, given: Given) -> None:
    """Settings of agents that work in a project; checked as far as the older project did."""
    work.note(
        f"{given.name}: kept for agent profiles, NO EFFECT YET: ccd answers without tools of its own",
        warning=True,
    )


def _command(work: _Translation, given: Given) -> None:
    if given.value == "claude":
        work.note(f"{given.name}: claude is what ccd looks for by itself")
    else:
        work.set(given, "cli.command", given.value)


def _timeout(work: _Translation, given: Given) -> None:
    seconds = _number(given)
    work.set(given, "deadlines.turn_s", seconds)
    work.set(
        given, "gateway.request_timeout_s", seconds + _RUST_TURN_MARGIN_S, why="so that it is not cut earlier"
    )


def _auth(work: _Translation, given: Given) -> None:
    if _boolean(given):
        work.set(given, "gateway.require_keys", True, why="make keys with `ccd ctl keys`")
    else:
        work.note(f"{given.name}: as it is in ccd while there are no keys", section="gateway")


def _directories(work: _Translation, given: Given) -> None:
    _paths(given)
    _kept(work, given)


def _kept_if_true(work: _Translation, given: Given) -> None:
    if _boolean(given):
        _kept(work, given)
    else:
        work.note(f"{given.name}: as it is in ccd")


def _bypass(work: _Translation, given: Given) -> None:
    if _boolean(given):
        work.set(given, "sessions.allow_bypass", True, why="for sessions that ask for bypassPermissions")
    else:
        work.note(f"{given.name}: as it is in ccd")


def _interactive(work: _Translation, given: Given) -> None:
    _boolean(given)
    work.note(f"{given.name}: no effect: ccd always keeps processes warm and uses them again")


def _minutes(work: _Translation, given: Given) -> None:
    work.set(given, "conversations.retention_s", _number(given) * 60)


def _tokens(work: _Translation, given: Given) -> None:
    work.set(given, "conversations.max_bytes", int(_number(given) * 4), why="4 bytes for a token, as there")


def _cache(work: _Translation, given: Given) -> None:
    work.set(given, "cache.enabled", _boolean(given))


_RULES: Mapping[str, _Rule] = {
    "claude.command": _command,
    "claude.timeout_seconds": _timeout,
    "claude.max_concurrent_sessions": _to("pool.max_workers"),
    "claude.use_interactive_sessions": _interactive,
    "database.url": _nothing("ccd keeps conversations in its data directory (data.dir)"),
    "database.max_connections": _nothing("ccd keeps conversations in its data directory (data.dir)"),
    "auth.enabled": _auth,
    "auth.secret_key": _nothing("keys are made with `ccd ctl keys`"),
    "auth.token_expiry_hours": _nothing("keys are made with `ccd ctl keys`"),
    "file_access.skip_permissions": _bypass,
    "file_access.additional_dirs": _directories,
    "mcp.enabled": _kept_if_true,
    "mcp.config_file": _kept,
    "mcp.config_json": _kept,
    "mcp.strict": _kept_if_true,
    "mcp.debug": _kept_if_true,
    "cache.enabled": _cache,
    "cache.max_entries": _to("cache.max_entries"),
    "cache.ttl_seconds": _to("cache.ttl_s"),
    "conversation.max_history_messages": _to("conversations.max_messages"),
    "conversation.session_timeout_minutes": _minutes,
    "conversation.max_context_tokens": _tokens,
}
#: Keys that are worked out together.
_TOGETHER = frozenset(
    {"server.host", "server.port", "process_pool.size", "process_pool.min_idle", "process_pool.max_idle"}
)
RUST_KEYS = frozenset(_RULES) | _TOGETHER
_SESSION_MINUTES = Given("claude-code-api's default", 30)


def _rust(work: _Translation) -> None:
    given = work.found.rust
    _bind(work, given.get("server.host"), given.get("server.port"), _RUST_PORT)
    _spares(work)
    for key, one in given.items():
        if key in _RULES:
            _RULES[key](work, one)
        elif key not in _TOGETHER:
            work.note(f"{one.name}: unknown, ignored", warning=True)
    if "conversation.session_timeout_minutes" not in given:
        _minutes(work, _SESSION_MINUTES)
    work.set(
        Given("settings of claude-code-api are in use", True),
        "gateway.always_conversations",
        True,
        why="every answer has a conversation_id, as there",
    )
    if "RUST_LOG" in work.found.variables:
        _rust_log(work, work.found.variables["RUST_LOG"])
    if "CLAUDE_SKIP_PERMISSIONS" in work.found.variables:
        _bypass(work, work.found.variables["CLAUDE_SKIP_PERMISSIONS"])


def _bind(work: _Translation, host: Given | None, port: Given | None, default_port: int) -> None:
    """The address: a host that was not asked for is ccd's loopback, not all addresses."""
    if host is None and port is None:
        return
    number = default_port if port is None else _port(port)
    address = "127.0.0.1" if host is None else str(host.value).strip()
    shown = f"[{address}]" if ":" in address and not address.startswith("[") else address
    first, why = host or port, "" if host else "loopback, because no host is named; name one to serve others"
    assert first is not None
    names = " and ".join(one.name for one in (host, port) if one is not None)
    work.set(first._replace(name=names), "gateway.bind", f"{shown}:{number}", why=why)


def _port(given: Given) -> int:
    number = _number(given)
    if number != int(number) or not 0 <= number <= 65535:
        raise SettingsError(f"{given.name}: expected a port from 0 to 65535, got {given.value!r}")
    return int(number)


def _spares(work: _Translation) -> None:
    """Processes kept ready: `size`, at most `max_idle`; `min_idle` where no size is given."""
    size, least, most = (
        work.found.rust.get(f"process_pool.{name}") for name in ("size", "min_idle", "max_idle")
    )
    chosen = size or least
    if chosen is not None:
        count = min(_number(chosen), _number(most)) if most else _number(chosen)
        work.set(chosen, "pool.spares", int(count))
    for one in (least, most):
        if one is not None and one is not chosen:
            _number(one)
            what = "limits pool.spares" if chosen and one is most else "no effect without process_pool.size"
            work.note(f"{one.name}: {what if one is most else 'no effect: process_pool.size is what counts'}")


_LEVELS = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "error": "error",
    "off": "error",
}


def _rust_log(work: _Translation, given: Given) -> None:
    """`info`, or directives such as `claude_code_api=debug,tower_http=info`; the most talkative one counts."""
    words = [part.rpartition("=")[2].strip().lower() for part in str(given.value).split(",")]
    known = [_LEVELS[word] for word in words if word in _LEVELS]
    if known:
        work.set(given, "log.level", min(known, key=("debug", "info", "warning", "error").index))
    else:
        work.note(f"{given.name}: no level in it is known, ignored", warning=True)


# --- the Flask project ---

_FLASK_TO = {
    "CLAUDE_DEFAULT_TIMEOUT": "gateway.flask_timeout_s",
    "CLAUDE_MAX_RETRIES": "gateway.flask_max_retries",
    "RATE_LIMIT_PER_MINUTE": "gateway.flask_requests_per_minute",
}
_FLASK_NOTHING = {
    "LOG_FILE": "ccd logs to standard error; send that where you want it",
    "SECRET_KEY": "ccd signs nothing",
    "FLASK_ENV": "ccd has no debug mode",
}
_FLASK_LEVELS = {"debug", "info", "warning", "error"}


def _flask(work: _Translation) -> None:
    given = work.found.variables
    host, port = given.get("API_HOST"), given.get("API_PORT")
    if host is None and port is None and not any(one.key == "gateway.bind" for one in work.settings):
        port = Given("claude_code_api's default", _FLASK_PORT)
    _bind(work, host, port, _FLASK_PORT)
    for name, key in _FLASK_TO.items():
        if name in given:
            work.set(given[name], key, _number(given[name]) if key.endswith("_s") else _scalar(given[name]))
    for name, why in _FLASK_NOTHING.items():
        if name in given:
            work.note(f"{given[name].name}: no effect: {why}")
    if "rust" not in work.found.modes:  # whose /health is plain
        used = Given("settings of claude_code_api are in use", True)
        work.set(used, "gateway.json_health", True, why="as there")
    if "LOG_LEVEL" in given:
        _flask_level(work, given["LOG_LEVEL"])


def _flask_level(work: _Translation, given: Given) -> None:
    level = str(given.value).strip().lower()
    level = "error" if level == "critical" else level
    if level not in _FLASK_LEVELS:
        raise SettingsError(
            f"{given.name}: expected DEBUG, INFO, WARNING, ERROR or CRITICAL, got {given.value!r}"
        )
    work.set(given, "log.level", level)


def _login(work: _Translation) -> None:
    """Logins for the CLI: from `.env`, and the Flask project's own name for the key. A real variable wins."""
    given = {name: work.found.variables[name] for name in LOGIN_NAMES if name in work.found.variables}
    values = {name: str(one.value) for name, one in given.items() if name not in work.environ}
    own = work.found.variables.get("CLAUDE_API_KEY")
    if own is not None and own.value:
        taken = next((name for name in LOGIN_NAMES[:2] if name in work.environ or name in values), None)
        if taken is None:
            values["ANTHROPIC_API_KEY"] = str(own.value)
            given["ANTHROPIC_API_KEY"] = own
        else:
            work.note(f"{own.name}: no effect: {taken} is set", warning=True, section="cli")
    for name in values:
        work.note(f"{given[name].name}: {name} of the CLI (cli.env)", section="cli")
    if values:
        work.settings.append(Setting(", ".join(given[name].name for name in values), "cli.env", values))


# --- values ---


def _scalar(given: Given) -> Any:
    if isinstance(given.value, (dict, list)):
        raise SettingsError(f"{given.name}: expected a single value")
    return given.value


def _number(given: Given) -> float:
    try:
        if isinstance(given.value, bool) or not isinstance(given.value, (int, float, str)):
            raise ValueError
        number = float(given.value)
    except ValueError:
        raise SettingsError(f"{given.name}: expected a number, got {str(given.value)[:80]!r}") from None
    if not 0 <= number < 2**53:
        raise SettingsError(f"{given.name}: expected a number of at least 0, got {str(given.value)[:80]!r}")
    return int(number) if number.is_integer() else number


def _boolean(given: Given) -> bool:
    word = str(given.value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise SettingsError(f"{given.name}: expected true or false, got {str(given.value)[:80]!r}")
    return word in _TRUE


def _paths(given: Given) -> list[str]:
    """Returns a list, or text: a JSON array, or paths between `:` or `,`."""
    value = given.value
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    elif isinstance(value, str):
        value = [part.strip() for part in value.replace(",", ":").split(":") if part.strip()]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(
            f"{given.name}: expected a list of directories: a JSON array, or with : or , between"
        )
    return value
