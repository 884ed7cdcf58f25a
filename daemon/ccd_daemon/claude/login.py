"""Which login the CLI will use, and which way of asking follows from it.

The login is told from variables and the presence of the credentials file alone. No command is ever run to find out:
a short-lived CLI command can start a token refresh, exit before saving it, and so destroy the login.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from ccd_settings.paths import is_file

_PROVIDERS = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")


class LoginKind(StrEnum):
    """Who pays for the model."""

    API_KEY = "api_key"
    TOKEN = "token"
    PROVIDER = "provider"  # a cloud's own login
    OAUTH = "oauth"  # a subscription, in the user's home directory
    NONE = "none"

    @property
    def is_key(self) -> bool:
        """Whether it is a key or a bearer token of the model API's own: nothing of it lies in a home directory."""
        return self in (LoginKind.API_KEY, LoginKind.TOKEN)

    @property
    def is_private(self) -> bool:
        """Whether each process can have a configuration of its own. Otherwise the login is in the user's."""
        return self.is_key or self is LoginKind.PROVIDER


class Mode(StrEnum):
    """How a request reaches the CLI, from the fastest and most exact to the one that any backend takes."""

    FULL = "full"
    KEEP_SYSTEM = "keep_system"
    REPLAY = "replay"

    @property
    def slower(self) -> Mode | None:
        """The next one, to go on in when a backend refuses this one."""
        modes = list(Mode)
        return next(iter(modes[modes.index(self) + 1 :]), None)


def login_kind(environ: Mapping[str, str]) -> LoginKind:
    """Returns which login the CLI will use with this environment; looks whether there is a credentials file."""
    if any(environ.get(name) not in (None, "", "0", "false") for name in _PROVIDERS):
        return LoginKind.PROVIDER
    if environ.get("ANTHROPIC_AUTH_TOKEN"):
        return LoginKind.TOKEN
    if environ.get("ANTHROPIC_API_KEY"):
        return LoginKind.API_KEY
    if environ.get("CLAUDE_CODE_OAUTH_TOKEN") or is_file(credentials_file(environ)):
        return LoginKind.OAUTH
    return LoginKind.NONE


def config_folder(environ: Mapping[str, str]) -> Path:
    """Returns where the CLI keeps a login."""
    return Path(environ.get("CLAUDE_CONFIG_DIR") or f"{environ.get('HOME') or '/nonexistent'}/.claude")


def credentials_file(environ: Mapping[str, str]) -> Path:
    """Returns the CLI's credentials: looked at, never opened."""
    return config_folder(environ) / ".credentials.json"


def mode_for(setting: str, login: LoginKind) -> Mode:
    """Returns the mode for `engine.body`. By default an OAuth login gets only the documented knobs."""
    if setting != "auto":
        return Mode(setting)
    return Mode.FULL if login.is_private else Mode.REPLAY
