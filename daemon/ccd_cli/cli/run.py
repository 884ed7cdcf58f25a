"""`ccd cli run`, `ccd login`, `ccd logout`: the CLI that ccd found, with the login that ccd uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ccd_cli.cli.ensure import ensure_cli
from ccd_cli.ending import EXIT_UNAVAILABLE, EXIT_USAGE, checked, stop
from ccd_cli.options import command
from ccd_daemon import config
from ccd_daemon.claude import binary
from ccd_daemon.claude.account import described
from ccd_daemon.claude.login import LoginKind, login_kind

#: Not passed on: by these a program that runs inside of another Claude Code would speak for it.
_OF_ANOTHER = ("CLAUDECODE", "CLAUDE_CODE_SESSION", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SSE_PORT")


@command("run", "ccd cli run --version", "ccd cli run", pass_on=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(arguments: tuple[str, ...]) -> None:
    """Run the Claude Code CLI that ccd uses, in the environment and with the login that ccd gives it."""
    sys.exit(run_cli(arguments))


@command(
    "login", "ccd login", "ccd login --console   # an API account instead of a subscription", pass_on=True
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def login(options: tuple[str, ...]) -> None:
    """Log in: the Claude Code CLI asks for it, and a running daemon notices by itself within a second.

    Options are the CLI's own: --console, --sso, --email ADDRESS.
    """
    environ = _environ()
    kind = login_kind(environ)
    if kind.is_private:
        stop(f"ccd uses {described(environ)}, which goes before a login; unset that, then log in", EXIT_USAGE)
    status = run_cli(("auth", "login", *options))
    if status == 0 and login_kind(environ) is LoginKind.NONE:
        stop("the CLI ended well, but there is no login", EXIT_UNAVAILABLE)
    if status == 0:
        click.echo(f"Logged in: {described(environ)}. A running daemon goes on with it by itself.", err=True)
    sys.exit(status)


@command("logout", "ccd logout")
def logout() -> None:
    """Log out: the login that the Claude Code CLI keeps for this user is removed."""
    sys.exit(run_cli(("auth", "logout")))


def run_cli(arguments: Sequence[str]) -> int:
    """Run the CLI at this terminal and return its exit status; 128 and the signal where one ended it."""
    settings = checked(lambda: config.read(os.environ))
    _check_user(settings.socket)
    ensure_cli(settings, os.environ)
    found = binary.find(settings.cli.command, settings.data_dir, os.environ.get("PATH", os.defpath))
    if found is None:
        stop("the CLI has gone; install it with: ccd cli install", EXIT_UNAVAILABLE)
    # Ctrl-C is the CLI's. A handler is not inherited, as being ignored would be.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        status = subprocess.Popen([found, *arguments], env=_environ()).wait()
    except OSError as error:
        stop(f"{found} cannot be run: {error.strerror}", EXIT_UNAVAILABLE)
    finally:
        signal.signal(signal.SIGINT, before)
    return status if status >= 0 else 128 - status


def _environ() -> dict[str, str]:
    settings = checked(lambda: config.read(os.environ))
    own = {name: value for name, value in os.environ.items() if not name.startswith(_OF_ANOTHER)}
    return {**own, **settings.cli.env}


def _check_user(socket: Path) -> None:
    """A daemon of another user has another HOME, and so another login."""
    try:
        owner = socket.stat().st_uid
    except OSError:
        return
    if owner != os.getuid():
        stop(
            f"the daemon at {socket} runs as user {_name(owner)}; its login is that user's: "
            f"sudo -u {_name(owner)} -H ccd login",
            EXIT_USAGE,
        )


def _name(uid: int) -> str:
    import pwd  # noqa: PLC0415

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
