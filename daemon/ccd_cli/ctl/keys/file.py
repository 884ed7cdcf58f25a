"""The file of keys, as the commands use it, and how a key is shown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ccd_cli.ending import EXIT_FAILED, checked, stop
from ccd_gateway.access import keyfile
from ccd_gateway.settings import load_settings

_FIELDS = (
    "name",
    "id",
    "tenant",
    "scopes",
    "profiles",
    "models",
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent",
    "usd_per_day",
)

file_option = click.option(
    "--keys-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file of keys.  [default: gateway.keys_file, else keys.json in the data directory]",
)


def path_of(keys_file: Path | None) -> Path:
    """The file that is meant."""
    return keys_file or checked(lambda: load_settings(os.environ, {})).keys_path(os.environ)


@contextmanager
def failing() -> Iterator[None]:
    """A file that cannot be used ends the command with one line."""
    try:
        yield
    except keyfile.KeyFileError as error:
        stop(str(error), EXIT_FAILED)


def named(keys: Mapping[str, keyfile.Key], name: str) -> keyfile.Key:
    """The key of a name or id; without one the command ends."""
    found = next((key for key in keys.values() if name in (key.name, key.id)), None)
    if found is None:
        stop(f"there is no key {name!r}; see: ccd ctl keys list", EXIT_FAILED)
    return found


def row(key: keyfile.Key) -> dict[str, Any]:
    """What may be shown of a key."""
    shown = {field: getattr(key, field) for field in _FIELDS}
    return {**shown, "created": _time(key.created), "expires": key.expires and _time(key.expires)}


def show_token(key: keyfile.Key, token: str, as_json: bool) -> None:
    """Print the secret of a new key: it is shown once, and only a hash of it is stored.

    To be called while the key may still be taken back: one whose secret nobody has seen is of no use to anybody.
    """
    try:
        click.echo(json.dumps({**row(key), "token": token}) if as_json else token)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else what is still held back fails again at the exit
        stop(f"the key cannot be shown, so none was made: {error.strerror}", EXIT_FAILED)


def say_once(key: keyfile.Key, as_json: bool) -> None:
    """Tell a reader what has just been shown, once it is certain."""
    if not as_json:
        click.echo(f"The key {key.name!r} is shown only now. Clients send it as their API key.", err=True)


def _time(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="seconds")
