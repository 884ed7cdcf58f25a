"""Whose login the CLI has, as far as that can be told without touching it.

From variables and from `.claude.json`, where the CLI notes the account of a login. The credentials file is looked at
(that it is there, and when it was written) and never opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ccd_daemon.claude.login import LoginKind, config_folder, credentials_file, login_kind

_MAX_BYTES = 64 * 1024 * 1024
_VARIABLES = {
    LoginKind.TOKEN: "ANTHROPIC_AUTH_TOKEN",
    LoginKind.API_KEY: "ANTHROPIC_API_KEY",
}


class Account(NamedTuple):
    """An account as the CLI notes it. Any of it may be unknown."""

    id: str | None
    email: str | None
    organization: str | None

    def __str__(self) -> str:
        named = self.email or self.id or "an account"
        return f"{named} of {self.organization}" if self.organization else named


def noted_in(environ: Mapping[str, str]) -> Path:
    """Returns the file in which the CLI notes the account."""
    own = environ.get("CLAUDE_CONFIG_DIR")
    return Path(own) / ".claude.json" if own else Path(environ.get("HOME") or "/nonexistent") / ".claude.json"


def account(environ: Mapping[str, str]) -> Account | None:
    """Returns the account that the CLI notes; None when there is none, or when the file is just being written."""
    try:
        with noted_in(environ).open("rb") as file:
            text = file.read(_MAX_BYTES)
        noted = json.loads(text).get("oauthAccount")
        if not isinstance(noted, dict):
            return None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    fields = (noted.get(name) for name in ("accountUuid", "emailAddress", "organizationName"))
    return Account(*(value if isinstance(value, str) and value.isprintable() else None for value in fields))


def described(environ: Mapping[str, str]) -> str:
    """Returns which login it is and for whom, in words."""
    kind = login_kind(environ)
    if kind in _VARIABLES:
        at = environ.get("ANTHROPIC_BASE_URL")
        return f"{'an API key' if kind is LoginKind.API_KEY else 'a token'} in {_VARIABLES[kind]}" + (
            f", for {at}" if at else ""
        )
    if kind is LoginKind.PROVIDER:
        return "a cloud provider's"
    if kind is LoginKind.NONE:
        return "none"
    if environ.get("CLAUDE_CODE_OAUTH_TOKEN"):
        return "a subscription, by the token in CLAUDE_CODE_OAUTH_TOKEN"
    owner = account(environ)
    return f"a subscription, in {config_folder(environ)}" + (f", of {owner}" if owner else "")


def stamp(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """Returns what changes when the CLI writes its credentials; None when it has none."""
    try:
        found = os.stat(credentials_file(environ))  # noqa: PTH116 - follows links
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
