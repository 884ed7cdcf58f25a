"""`ccd chat`: a conversation at a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ccd_cli.ask import last
from ccd_cli.completion import words
from ccd_cli.connection import connected
from ccd_cli.ending import EXIT_USAGE, stop
from ccd_cli.options import command, socket_option


@command("chat", "ccd chat", "ccd chat -c -m opus", "ccd chat --conversation notes")
@click.option(
    "-m", "--model", shell_complete=words.models, help="For example sonnet, opus, haiku, or PROFILE/MODEL."
)
@click.option("--profile", shell_complete=words.profiles, help="The kind of worker.  [default: chat]")
@click.option("--system", help="A system prompt.")
@click.option("-c", "--continue", "go_on", is_flag=True, help="Go on with the last conversation.")
@click.option("--conversation", metavar="NAME", help="Go on with, or begin, the conversation of that name.")
@socket_option
def chat(
    model: str | None,
    profile: str | None,
    system: str | None,
    go_on: bool,
    conversation: str | None,
    socket: Path | None,
) -> None:
    """Talk with the model at a terminal: what was said is kept, and Ctrl-C stops an answer, not the program.

    Enter sends, Alt-Enter begins a new line. /help lists what else can be typed.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        stop("chat needs a terminal; in a pipe use: ccd ask", EXIT_USAGE)
    if go_on and conversation:
        raise click.UsageError("--continue and --conversation exclude each other")
    from ccd_cli.ask.talk import Talk  # noqa: PLC0415 - the line editor is this command's alone

    name = last.last_name() if go_on else conversation or last.new_name("chat")
    options = {"model": model, "profile": profile, "system": system}
    with connected(socket) as client:
        client.ping()  # no daemon is told before anything is typed
        Talk(client, name, {key: value for key, value in options.items() if value is not None}).run()
