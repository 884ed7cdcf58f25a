"""The loop of `ccd chat`: a line editor, the answers, and what can be typed besides questions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from ccd_cli.ask import last
from ccd_cli.ask.shown import Shown
from ccd_client import Client, RpcError

_HELP = """\
/model NAME     ask another model from now on; /model alone says which
/system TEXT    another system prompt
/save FILE      write what was said to a file
/new            begin another conversation
/quit           end (so does Ctrl-D)
Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer."""


class Talk:
    """One conversation at the terminal.

    Args:
        client: to the daemon.
        name: of the conversation.
        options: of `Client.chat`.
    """

    def __init__(self, client: Client, name: str, options: dict[str, Any]) -> None:
        self._client = client
        self._name = name
        self._options = options
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/model": self._model,
            "/new": self._new,
            "/save": self._save,
            "/system": self._system,
        }

    def run(self) -> None:
        """Read and answer until the end of input or /quit."""
        session: PromptSession[str] = PromptSession(
            history=_history(), key_bindings=_keys(), multiline=True, prompt_continuation="… "
        )
        click.echo(f"Conversation {self._name}. /help lists what can be typed, Ctrl-D ends.")
        while True:
            try:
                line = session.prompt("> ").strip()
            except KeyboardInterrupt:
                continue  # what was typed is dropped
            except EOFError:
                return
            if line in ("/quit", "/exit"):
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._ask(line)

    def _ask(self, question: str) -> None:
        options: dict[str, Any] = {**self._options, "extra": {"conversation_id": self._name}}
        try:
            with self._client.chat(question, stream=True, **options) as chat:
                Shown().show(chat)
        except KeyboardInterrupt:
            click.echo("(stopped)", err=True)
            return
        except RpcError as error:
            click.echo(f"ccd: {error.message}", err=True)
            return
        last.remember(self._name)

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        act = self._commands.get(word)
        if act is None:
            click.echo(f"There is no {word}; /help lists what there is.", err=True)
        else:
            act(rest.strip())

    def _help(self, _: str) -> None:
        click.echo(_HELP)

    def _model(self, name: str) -> None:
        if name:
            self._options["model"] = name
        click.echo(f"Model: {self._options.get('model', 'the default')}")

    def _system(self, text: str) -> None:
        if text:
            self._options["system"] = text
        click.echo(f"System prompt: {self._options.get('system', 'none')}")

    def _new(self, _: str) -> None:
        self._name = last.new_name("chat")
        click.echo(f"Conversation {self._name}")

    def _save(self, name: str) -> None:
        if not name:
            click.echo("Say where: /save FILE", err=True)
            return
        try:
            said = self._client.conversation(self._name).messages()
            with Path(name).expanduser().open("x", encoding="utf-8") as file:
                file.write(
                    "\n\n".join(f"## {message['role']}\n\n{_text(message['content'])}" for message in said)
                    + "\n"
                )
        except RpcError as error:
            click.echo(f"ccd: {error.message}", err=True)
        except OSError as error:
            click.echo(f"ccd: {name} cannot be written: {error.strerror}", err=True)
        else:
            click.echo(f"Saved to {name}")


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(block.get("text", f"({block.get('type')})") for block in content)


def _history() -> History:
    """What was typed before, in a file of this user's own; in memory where there can be none."""
    file = last.state_dir(os.environ) / "chat-history"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(file)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    @keys.add("c-j")  # what Enter is when it is typed ahead, while an answer comes
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def another_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
