"""What `ccd up` will run: the settings are read and judged before anything is started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click

from ccd_cli.serve import port
from ccd_daemon import config as settings_module
from ccd_daemon.claude import argv
from ccd_daemon.claude.login import LoginKind, login_kind
from ccd_gateway.settings import GatewaySettings, load_settings

_OFFLINE_KEY = "offline"
_SKIP_PORTS = 9  # 8081 and its neighbours are where other parts of ccd like to be


@dataclass(frozen=True)
class Plan:
    """What to run."""

    settings: settings_module.Settings
    environ: dict[str, str]
    bind: str | None
    offline: bool
    show_answer: bool
    default_socket: bool

    @property
    def socket(self) -> Path:
        """Where the daemon listens."""
        return self.settings.socket

    @property
    def json_log(self) -> bool:
        """Whether every line of the log is to be a JSON object."""
        return self.settings.log.format == "json"

    @property
    def login_environ(self) -> dict[str, str]:
        """The variables that say which login the CLI would use."""
        return {**self.environ, **self.settings.cli.env}

    @classmethod
    def make(
        cls, environ: Mapping[str, str], *, offline: bool, try_it: bool, bind: str | None, socket: Path | None
    ) -> Plan:
        """Read the settings, so that mistakes are reported before anything is started.

        Raises:
            SettingsError: naming the key.
        """
        settings = settings_module.read(environ, overrides={"server.socket": str(socket) if socket else None})
        gateway = load_settings(environ, {"gateway.bind": bind})
        plan = cls(settings, dict(environ), bind, offline, try_it, default_socket=socket is None)
        return plan.for_a_try(gateway) if try_it else plan

    def for_a_try(self, gateway: GatewaySettings) -> Plan:
        """Offline when there is no login, and on a free port when the usual one is taken; both are said."""
        plan = self
        if not plan.offline and login_kind(plan.login_environ) is LoginKind.NONE:
            click.echo(
                "No Claude login is configured, so ccd runs offline: answers come from an echo, not from a model."
            )
            plan = replace(plan, offline=True)
        host, _, number = gateway.bind.rpartition(":")
        if plan.bind is None and host == "127.0.0.1" and not port.is_free(host, int(number)):
            other = port.free_near(host, int(number) + _SKIP_PORTS)
            click.echo(
                f"Port {number} is taken by {port.holder(int(number))}, so ccd listens on port {other}."
            )
            plan = replace(plan, bind=f"{host}:{other}")
        return plan


def offline_environ(environ: Mapping[str, str], url: str) -> dict[str, str]:
    """The same environment, with every trace of a real login replaced by the offline API."""
    env = {name: value for name, value in environ.items() if name not in argv.LOGIN_ENV}
    # As settings, so that a key in the settings file cannot win over it.
    worker_env = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": _OFFLINE_KEY}
    return {**env, "CCD_CLI__ENV": json.dumps(worker_env), "CCD_ENGINE__BODY": "full"}
