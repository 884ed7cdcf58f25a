"""Checks of ccd's own parts: settings, files, the CLI and its login, the socket, the running programs."""

from __future__ import annotations

import http.client
import json
import os
import stat
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from ccd_cli.doctor.finding import Finding, Level
from ccd_client import Client
from ccd_daemon.claude import binary
from ccd_daemon.claude.login import LoginKind, credentials_file, login_kind, mode_for
from ccd_daemon.config import Settings
from ccd_gateway.settings import GatewaySettings
from ccd_protocol.errors import RpcError

_MAX_CONFIG_BYTES = 64 << 20
_HTTP_TIMEOUT_S = 5.0

_LOGINS = {
    LoginKind.API_KEY: "an API key (ANTHROPIC_API_KEY)",
    LoginKind.TOKEN: "a bearer token (ANTHROPIC_AUTH_TOKEN)",
    LoginKind.PROVIDER: "a cloud provider's credentials",
    LoginKind.OAUTH: "a Claude subscription",
}


def settings_file(settings: Settings) -> Iterator[Finding]:
    """Where the settings come from, and who may change them."""
    if settings.source is None:
        yield Finding("settings", "ok", "no settings file: defaults and variables")
        return
    mode = settings.source.stat().st_mode
    if mode & (stat.S_IWOTH | stat.S_IWGRP):
        mend = f"chmod go-w {settings.source}"
        yield Finding("settings", "warning", f"{settings.source} can be written to by others", mend)
    else:
        yield Finding("settings", "ok", str(settings.source))


def files(
    settings: Settings, http_settings: GatewaySettings, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Directories and files with secrets: there, writable, and closed to others."""
    folder = settings.data_dir
    if not folder.exists():
        yield Finding("files", "note", f"{folder} does not exist yet; ccd makes it when it starts")
    elif not os.access(folder, os.W_OK | os.X_OK):
        mend = f"Run ccd as the owner of {folder}, or set data.dir."
        yield Finding("files", "fault", f"{folder} cannot be written to by this user", mend)
    else:
        yield Finding("files", "ok", f"data in {folder}")
    for path in (http_settings.keys_path(environ), credentials_file({**environ, **settings.cli.env})):
        if path.is_file() and path.stat().st_mode & 0o077:
            yield Finding("files", "warning", f"{path} can be read by others", f"chmod 600 {path}")


def cli(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The Claude Code CLI: there, and new enough."""
    try:
        found = binary.resolve(settings.cli.command, settings.data_dir, environ)
    except binary.CliError as error:
        yield Finding("cli", "fault", str(error), "ccd cli install")
        return
    yield Finding("cli", "ok", f"Claude Code {found.version} ({found.path})")


def login(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Which login the CLI would use. Told from variables and files; no command is run, and no token is read."""
    env = {**environ, **settings.cli.env}
    credentials = credentials_file(env)
    kind = login_kind(env)
    if kind is LoginKind.NONE:
        mend = "ccd login, or set ANTHROPIC_API_KEY where ccd starts; without one: ccd up --offline"
        yield Finding("login", "fault", "no login was found", mend)
        return
    yield Finding("login", "ok", f"{_LOGINS[kind]}; mode {mode_for(settings.engine.body, kind)}")
    if kind is LoginKind.OAUTH:
        yield from _claude_json(credentials)


def _claude_json(credentials: Path) -> Iterator[Finding]:
    """`.claude.json` is written by every CLI process; a torn one makes the CLI ask to log in again."""
    path = credentials.parent.with_name(".claude.json")
    if not path.is_file():
        return
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError("too large")
        json.loads(path.read_text())
    except (OSError, ValueError):
        mend = f"Restore a copy from {credentials.parent}/backups, or remove it and log in again."
        yield Finding("login", "fault", f"{path} is damaged", mend)


def daemon(settings: Settings) -> Iterator[Finding]:
    """The running daemon: does it answer, is it this version, and what does it say of itself?"""
    if not os.path.exists(settings.socket):  # noqa: PTH110 - Path.exists raises where a directory is closed
        yield Finding(
            "daemon", "note", f"not running: no socket at {settings.socket}", "ccd up, or ccd service install"
        )
        return
    try:
        with Client(settings.socket) as client:
            told = client.ping()
            health = client.health()
    except (RpcError, OSError) as error:
        text = error.message if isinstance(error, RpcError) else str(error)
        yield Finding(
            "daemon", "fault", f"{settings.socket}: {text}", "ccd service status; journalctl -u ccd"
        )
        return
    installed = metadata.version("ccdaemon")
    if told["version"] != installed:
        text = f"version {told['version']} runs, {installed} is installed"
        yield Finding("daemon", "warning", text, "Restart it: systemctl restart ccd ccd-gateway")
    state = str(health.get("state", "?"))
    text = f"version {told['version']} answers on {settings.socket}: {state}"
    if state == "ready":
        yield Finding("daemon", "ok", text)
    else:
        yield Finding("daemon", "warning", text, f"{health.get('reason') or 'ccd ctl status'}")


def gateway(http_settings: GatewaySettings) -> Iterator[Finding]:
    """The running gateway: does it answer?"""
    host, _, port = http_settings.bind.rpartition(":")
    if http_settings.bind.startswith("fd://"):
        yield Finding("gateway", "note", f"its address comes from the service manager ({http_settings.bind})")
        return
    target = host.strip("[]") or "127.0.0.1"
    connection = http.client.HTTPConnection(
        {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(target, target), int(port), timeout=_HTTP_TIMEOUT_S
    )
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except ConnectionRefusedError:
        yield Finding("gateway", "note", f"not running: nothing listens on {http_settings.bind}", "ccd up")
    except (OSError, http.client.HTTPException) as error:
        mend = "Another program may have the address: ss -ltnp"
        yield Finding("gateway", "fault", f"{http_settings.bind} does not answer as HTTP: {error}", mend)
    else:
        level: Level = "ok" if status == 200 else "warning"
        yield Finding(
            "gateway", level, f"answers on {http_settings.bind} (health {status})", "ccd ctl status"
        )
    finally:
        connection.close()
