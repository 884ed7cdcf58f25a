"""The `[gateway]` section of the settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ccd_gateway.names import model_name
from ccd_settings import compat
from ccd_settings.paths import data_dir
from ccd_settings.settings import config_path, load, setting, socket_in_force
from ccd_settings.values import SettingsError, Where, convert

DEFAULT_MAX_ITEMS = 100_000
MOST_ITEMS = 10_000_000
_BIND = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_.-]*)):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class GatewaySettings:
    """How the gateway listens and what it admits."""

    bind: str = setting("127.0.0.1:8080", "HOST:PORT to listen on, or fd://N for an open socket")
    admin_bind: str | None = setting(
        "127.0.0.1:8081", "HOST:PORT for /metrics, which are on no other address; empty: none"
    )
    socket: Path | None = setting(None, "the daemon's socket; by default where the daemon itself puts it")
    certfile: Path | None = setting(
        None, "certificate chain (PEM) to serve HTTPS with; read again when it changes"
    )
    keyfile: Path | None = setting(None, "its private key (PEM); default: it is in certfile too")
    workers: int = setting(2, "gateway processes", min=1, max=64)
    max_body_bytes: int = setting(32 << 20, "largest request body; more is 413", min=1024, max=1 << 30)
    max_work_bytes: int = setting(
        256 << 20,
        "what the bodies of all requests in one worker may hold in memory; more is 503",
        min=1 << 20,
        max=1 << 40,
    )
    max_streams: int = setting(1000, "requests at a time in one worker; more is 503", min=1, max=10000)
    keepalive_s: float = setting(15.0, "silence after which a stream gets a comment", min=0.05, max=3600)
    allowed_hosts: list[str] = setting([], "further Host names to answer to; * for any")
    allowed_origins: list[str] = setting([], "Origins of pages that may use the gateway (CORS); * for any")
    request_timeout_s: float = setting(960.0, "longest time for one answer; more is 504", min=1, max=86400)
    reconnect_wait_s: float = setting(10.0, "longest wait for a daemon that restarts", min=0, max=600)
    responses_file: Path | None = setting(
        None, "stored responses; default: responses.sqlite3 in the data directory"
    )
    stored_responses: int = setting(10_000, "responses kept for later requests", min=1, max=10_000_000)
    stored_bytes: int = setting(512 << 20, "size of all of them together", min=1 << 20, max=1 << 40)
    stored_s: float = setting(30 * 86400.0, "how long one is kept after its last use", min=60, max=1e9)
    graceful_timeout_s: int = setting(30, "time that open requests get when stopping", min=0, max=3600)
    model_map: dict[str, str] = setting(
        {}, "models of other vendors' names; keys may hold * and ?, an exact name goes first"
    )
    die_with_parent: bool = setting(True, "stop when the process that started the gateway ends")

    keys_file: Path | None = setting(
        None, "API keys; default: the credential ccd-keys, else keys.json in the data directory"
    )
    usage_file: Path | None = setting(
        None, "what keys have used; default: usage.sqlite3 in the data directory"
    )
    require_keys: bool | None = setting(
        None, "whether every request needs a key; default: as soon as there is one"
    )
    insecure_no_auth: bool = setting(
        False, "serve other machines without keys; something else guards the way"
    )
    header_timeout_s: float = setting(30.0, "longest time for a request's head; then 408", min=0.05, max=3600)
    body_timeout_s: float = setting(60.0, "longest time for a request's body; then 408", min=0.05, max=3600)
    access_log: Path | None = setting(
        None, "file for one JSON line per request, without content; - is stderr"
    )

    allow_agent_without_key: bool = setting(
        False, "let callers without a key have sessions, whose tools run as ccd's user"
    )
    max_message_bytes: int = setting(
        4 << 20, "largest message of a WebSocket's client", min=1024, max=1 << 30
    )
    ping_s: float = setting(
        20.0, "how often a WebSocket's client is asked whether it is there", min=0.05, max=3600
    )

    allowed_roots: list[Path] = setting([], "directories whose files requests may name; default: none")
    fetch_images: bool = setting(
        False, "fetch images that chats name by http and https URLs, instead of leaving https to the API"
    )
    fetch_networks: list[str] = setting(
        [], "addresses and networks to fetch from although they are not public"
    )
    always_conversations: bool = setting(
        False, "begin a conversation for every chat that names none, and answer with its id"
    )
    json_health: bool = setting(False, "answer GET /health with JSON unless text/plain is asked for")
    flask_timeout_s: float = setting(60.0, "time for an answer of POST /api/claude-code", min=1, max=3600)
    flask_max_retries: int = setting(3, "times it is asked again when that can help", min=0, max=10)
    flask_requests_per_minute: int = setting(
        100, "of one caller under /api; more are 429", min=1, max=1000000
    )

    def __post_init__(self) -> None:
        """Refuse addresses that cannot be meant; the loader puts the section's name before the message."""
        if self.keyfile is not None and self.certfile is None:
            raise ValueError("keyfile: needs gateway.certfile, the certificate that the key belongs to")
        for network in self.fetch_networks:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise ValueError(
                    f"fetch_networks: expected addresses such as 127.0.0.1 or 10.0.0.0/8, got {network!r}"
                ) from None
        _check_address("bind", self.bind)
        if self.admin_bind is not None:
            _check_address("admin_bind", self.admin_bind)

    @property
    def bind_host(self) -> str | None:
        """The host part of `bind` without brackets, in lower case; None when it is not known (`fd://`)."""
        match = _BIND.fullmatch(self.bind)
        return (match["v6"] or match["host"]).lower() if match else None

    def keys_path(self, environ: Mapping[str, str]) -> Path:
        """The keys: the setting, else the service manager's credential, else in the data directory."""
        if self.keys_file is not None:
            return self.keys_file
        credential = Path(environ.get("CREDENTIALS_DIRECTORY") or "/nonexistent") / "ccd-keys"
        return credential if credential.exists() else data_dir(environ) / "keys.json"

    def usage_path(self, environ: Mapping[str, str]) -> Path:
        """The ledger: the setting, else in the data directory."""
        return self.usage_file or data_dir(environ) / "usage.sqlite3"

    def model_for(self, name: str) -> str:
        """What `model_map` makes of a model's name; the name itself where nothing fits."""
        exact = self.model_map.get(name)
        if exact is not None:
            return exact
        fitting = (to for pattern, to in self.model_map.items() if fnmatchcase(name, pattern))
        return next(fitting, model_name(name))

    def daemon_socket(self, environ: Mapping[str, str]) -> Path:
        """The daemon's socket: the setting, else where every program of ccd looks."""
        return self.socket or socket_in_force(environ, config_path(environ))

    def responses_path(self, environ: Mapping[str, str]) -> Path:
        """The stored responses: the setting, else in the data directory."""
        return self.responses_file or data_dir(environ) / "responses.sqlite3"


def _check_address(name: str, text: str) -> None:
    if re.fullmatch(r"fd://\d{1,6}", text):
        return
    match = _BIND.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{name}: expected HOST:PORT, for example 127.0.0.1:8080, got {text!r}")
    if match["v6"]:
        ipaddress.IPv6Address(match["v6"])


@dataclass(frozen=True)
class _DataSection:
    """The `[data]` section, which is the daemon's."""

    dir: Path | None = None


def json_log(environ: Mapping[str, str]) -> bool:
    """Whether every line on stderr is to be a JSON object: `log.format` of the daemon's settings."""
    return _of_daemon(environ, "log").get("format") == "json"


def max_items(environ: Mapping[str, str]) -> int:
    """`server.max_items`: how many values one list of a request may have. The section is the daemon's.

    Raises:
        SettingsError: naming the file or variable.
    """
    given = _of_daemon(environ, "server").get("max_items", DEFAULT_MAX_ITEMS)
    where = Where(str(config_path(environ) or "env"), ("server", "max_items"))
    return int(convert(int, given, where, {"min": 1, "max": MOST_ITEMS}))


def _of_daemon(environ: Mapping[str, str], section: str) -> dict[str, Any]:
    """A section of the daemon's settings as it stands there; the daemon says what is wrong with the rest of it."""
    path = config_path(environ)
    found = load({section: dict[str, Any]}, toml_path=path, environ=environ, others_allowed=True)
    return found[section] or {}


def load_settings(environ: Mapping[str, str], overrides: Mapping[str, object]) -> GatewaySettings:
    """The settings in force for a gateway that is started without the daemon's command.

    Args:
        environ: `CCD_CONFIG` names the file, `CCD_GATEWAY__KEY` sets a key; other sections are left alone.
        overrides: flags, as `"gateway.key"`.

    Raises:
        SettingsError: naming the file, variable or flag, and the key.
    """
    loaded = load(
        {"gateway": GatewaySettings, "data": _DataSection},
        toml_path=config_path(environ),
        environ=environ,
        overrides=overrides,
        others_allowed=True,
        below=compat.read(environ).settings,
    )
    settings: GatewaySettings = loaded["gateway"]
    folder: Path | None = loaded["data"].dir
    if folder is None:
        return settings
    if not folder.parent.is_dir():  # else a misspelt one would be a gateway without its keys
        raise SettingsError(f"data.dir: there is no directory {folder.parent} to make {folder.name} in")
    keys = settings.keys_path(environ)
    return replace(
        settings,
        keys_file=folder / "keys.json" if keys == data_dir(environ) / "keys.json" else keys,
        responses_file=settings.responses_file or folder / "responses.sqlite3",
        usage_file=settings.usage_file or folder / "usage.sqlite3",
    )
