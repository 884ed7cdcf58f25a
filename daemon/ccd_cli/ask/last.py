"""Which conversation was the last one, for `--continue`: its name in a file of this user's own."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import click

_MAX_BYTES = 1000


def state_dir(environ: Mapping[str, str]) -> Path:
    """Where the commands keep what they remember from one time to the next."""
    home = environ.get("XDG_STATE_HOME")
    base = Path(home) if home else Path(environ.get("HOME") or "/nonexistent") / ".local" / "state"
    return base / "ccd"


def new_name(kind: str) -> str:
    """A name for a conversation that was given none."""
    return f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def last_name() -> str:
    """The last conversation's name.

    Raises:
        click.UsageError: there is none.
    """
    try:
        with _file().open(encoding="utf-8") as file:
            name = file.read(_MAX_BYTES).strip()
    except (OSError, UnicodeDecodeError):
        name = ""
    if not name:
        raise click.UsageError("there is no conversation to continue yet; ask something first")
    return name


def remember(name: str) -> None:
    """Note a conversation as the last one. Where nothing can be kept, nothing is; that hinders no answer."""
    try:
        _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = _file().with_name(f"{_file().name}.{os.getpid()}")
        part.write_text(f"{name}\n", encoding="utf-8")
        part.replace(_file())
    except OSError:
        pass


def _file() -> Path:
    return state_dir(os.environ) / "last-conversation"
