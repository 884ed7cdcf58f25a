"""What `ccd up` will run: the settings are read and judged before anything is started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from ccd_daemon import config as settings_module
from ccd_daemon.claude import argv
from ccd_daemon.claude.login import LoginKind, login_kind
from ccd_gateway.settings import load_settings

_OFFLINE_KEY = "offline"


@dataclass(frozen=True)
class Plan:
    """What to run."""

    environ: dict[str, str]
    socket: Path
    bind: str | None
    offline: bool
    show_answer: bool
    watchdog_s: float
    json_log: bool

    @classmethod
    def make(
        cls, environ: Mapping[str, str], *, offline: bool, try_it: bool, bind: str | None, socket: Path | None
    ) -> Plan:
        """Read the settings, so that mistakes are reported before anything is started.

        Raises:
            SettingsError: naming the key.
        """
        settings = settings_module.read(environ, overrides={"server.socket": str(socket) if socket else None})
        load_settings(environ, {"gateway.bind": bind})
        if try_it and not offline and login_of(settings, environ) is LoginKind.NONE:
            click.echo(
                "No Claude login is configured, so ccd runs offline: answers come from an echo, not from a model."
            )
            offline = True
        return cls(
            environ=dict(environ),
            socket=settings.socket,
            bind=bind,
            offline=offline,
            show_answer=try_it,
            watchdog_s=settings.up.watchdog_s,
            json_log=settings.log.format == "json",
        )


def login_of(settings: settings_module.Settings, environ: Mapping[str, str]) -> LoginKind:
    """The login that the CLI would use."""
    return login_kind({**environ, **settings.cli.env})


def offline_environ(environ: Mapping[str, str], url: str) -> dict[str, str]:
    """The same environment, with every trace of a real login replaced by the offline API."""
    env = {name: value for name, value in environ.items() if name not in argv.LOGIN_ENV}
    # As settings, so that a key in the settings file cannot win over it.
    worker_env = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": _OFFLINE_KEY}
    return {**env, "CCD_CLI__ENV": json.dumps(worker_env), "CCD_ENGINE__BODY": "full"}
