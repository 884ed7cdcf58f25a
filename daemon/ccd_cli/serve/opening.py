"""What `ccd up` says of itself: the truth before it is ready, and what to type next when it is."""

from __future__ import annotations

import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path

import click

from ccd_cli.serve.plan import Plan
from ccd_client import Client, RpcError
from ccd_daemon.claude.account import described
from ccd_daemon.claude.login import LoginKind, login_kind


def facts(plan: Plan, url: str, cli_version: str | None) -> list[str]:
    """Version, CLI, login and addresses, a line each."""
    login = "offline: answers are an echo, not a model's" if plan.offline else described(plan.login_environ)
    return [
        f"ccd {metadata.version('ccdaemon')}, Claude Code {cli_version or '(version not known yet)'}",
        f"  login   {login}",
        f"  HTTP    {url}/v1",
        f"  socket  {plan.socket}",
    ]


def why_not(plan: Plan) -> tuple[str | None, str | None]:
    """Why a request sent now would not be answered, and the CLI's version; None when it would be."""
    try:
        with Client(plan.socket, timeout_s=5) as client:
            health = client.health()
    except RpcError as error:
        return error.message, None
    version = health["cli_version"]
    if not plan.offline and login_kind(plan.login_environ) is LoginKind.NONE:
        return f"there is no login; log in with: {own_command()} login", version
    return (None if health["ready"] else health["reason"] or health["state"]), version


def own_command() -> str:
    """The command by which a shell finds this program: `ccd` if that is what it would run, else the whole path."""
    script = Path(sys.executable).with_name("ccd")
    found = shutil.which("ccd")
    if found is not None and (not script.exists() or Path(found).resolve() == script.resolve()):
        return "ccd"
    return shlex.quote(str(script)) if script.exists() else f"{shlex.quote(sys.executable)} -m ccd_cli"


def say_next(plan: Plan) -> None:
    """The three commands to type next, as they work in any shell of this user."""
    ccd = own_command()
    socket = "" if plan.default_socket else f" --socket {shlex.quote(str(plan.socket))}"
    click.echo("\nccd goes on serving; Ctrl-C stops it. In another terminal:\n")
    click.echo(f'    {ccd} ask{socket} "Why is the sky blue?"')
    click.echo(f"    {ccd} chat{socket}")
    click.echo(f"    {ccd} ctl status{socket}")
