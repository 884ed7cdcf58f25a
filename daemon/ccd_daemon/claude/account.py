"""Whose login the CLI has, as far as that can be told without touching it, and that it has become another one.

From variables and from `.claude.json`, where the CLI notes the account of a login. The credentials file is looked at
(that it is there, and when it was written) and never opened. A key, a token or a provider's login comes from variables
and stays for the daemon's life; a subscription's lies in files and is watched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ccd_daemon.claude.login import LoginKind, config_folder, credentials_file, login_kind

_MAX_BYTES = 64 * 1024 * 1024
_MAX_ACCOUNT_BYTES = 65536
_DECODER = json.JSONDecoder()
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
            _, found, after = file.read(_MAX_BYTES).partition(b'"oauthAccount":')
        # The file may be large, and this is asked while others wait: only this one value is decoded.
        noted, _ = _DECODER.raw_decode(after.lstrip()[:_MAX_ACCOUNT_BYTES].decode(errors="replace"))
        if not found or not isinstance(noted, dict):
            return None
    except (OSError, ValueError, RecursionError):
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


class LoginWatch:
    """The login in force.

    Attributes:
        kind: what kind it is now.
        account: whose it is, where the CLI has noted that.
        generation: grows when anything of it changes, a renewed token included.
        account_generation: grows when it becomes another account's, or none's.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.kind = login_kind(environ)
        self.generation = self.account_generation = 0
        self._watched = not self.kind.is_private and not environ.get("CLAUDE_CODE_OAUTH_TOKEN")
        self.account: Account | None = account(environ) if self._watched else None
        self._stamp = stamp(environ)
        self._noted = _written(environ)

    def look(self, *, closely: bool = False) -> None:
        """See whether it has changed. It costs one look at a file (2 µs), and `closely` one more."""
        if not self._watched:
            return
        now = stamp(self._environ)
        if now != self._stamp:
            self._stamp = now
            self.generation += 1
            self._changed()
        elif closely and _written(self._environ) != self._noted:
            self._changed()

    def _changed(self) -> None:
        self._noted = _written(self._environ)
        kind, found = login_kind(self._environ), account(self._environ)
        another = found is not None and self.account is not None and found.id != self.account.id
        if kind is not self.kind or another:
            self.generation += 1
            # The first login of a daemon that had none takes nothing away from anybody.
            self.account_generation += another or kind is LoginKind.NONE
        self.kind, self.account = kind, found or self.account


def _written(environ: Mapping[str, str]) -> int | None:
    """When the CLI last noted something."""
    try:
        return os.stat(noted_in(environ)).st_mtime_ns  # noqa: PTH116 - follows links
    except OSError:
        return None
