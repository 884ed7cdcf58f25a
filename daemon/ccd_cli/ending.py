"""How a command ends: its exit status, and the one line that says why.

0 done, 1 failed, 2 wrong usage or settings, 69 not available (no daemon, no CLI), 75 try again later,
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from ccd_protocol.errors import MEANINGS, Code, RpcError
from ccd_settings.settings import SettingsError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69
EXIT_RETRY = 75
EXIT_INTERRUPTED = 130

_T = TypeVar("_T")


def stop(message: str, status: int) -> NoReturn:
    """End the command with one line on stderr."""
    click.echo(f"ccd: {message}", err=True)
    sys.exit(status)


def checked(make: Callable[[], _T]) -> _T:
    """What `make` returns, which reads settings; a wrong one ends the command with a readable line."""
    try:
        return make()
    except SettingsError as error:
        stop(str(error), EXIT_USAGE)


def exit_status(error: RpcError) -> int:
    """The exit status for a failed call: 69 without a daemon, 75 when trying again later can help, else 1."""
    if error.code is Code.LOST:
        return EXIT_UNAVAILABLE
    return EXIT_RETRY if MEANINGS[error.code].retryable else EXIT_FAILED


def error_row(error: RpcError) -> dict[str, Any]:
    """A failure as JSON: its code by name, what it says, and what is known besides."""
    return {"code": error.code.name.lower(), "message": error.message, **error.data}
