"""Every help text ends in examples, and each of them is a command that there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ccd_cli.root import main

_FILES = ("questions.txt", "questions.jsonl", "answers.jsonl", "prompts.jsonl", "schema.json")


def every(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    below = command.commands.items() if isinstance(command, click.Group) else ()
    return [(path, command), *(pair for name, sub in below for pair in every(sub, f"{path} {name}"))]


ALL = every(main, "ccd")
EXAMPLES = [(path, example) for path, command in ALL for example in getattr(command, "examples", ())]


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_command_has_examples_of_itself(path: str, command: click.Command) -> None:
    examples = getattr(command, "examples", ())
    assert examples
    assert any(path in example for example in examples), examples
    shown = command.get_help(click.Context(command, info_name=path))
    assert shown.rstrip().endswith(examples[-1].strip())


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_an_example_is_understood(
    path: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in _FILES:
        Path(name).write_text("{}")
    for line in commands_in(example):
        words = shlex.split(line, comments=True)
        command: click.Command = main
        rest = words[1:]
        while isinstance(command, click.Group):
            command, rest = command.commands[rest[0]], rest[1:]
        with command.make_context(line, rest):
            pass


def commands_in(example: str) -> list[str]:
    """The `ccd` commands in a line for a shell."""
    text = re.sub(r"\s#.*", "", example)
    inner = re.findall(r"\$\((ccd [^)]*)\)", text)
    outer = re.sub(r'"?\$\(ccd [^)]*\)"?', "x", text)
    pieces = [piece.strip() for piece in re.split(r"\||&&|;", outer)]
    named = [found[0] for piece in pieces if (found := re.search(r"(?<!\S)ccd (?=[a-z]).*", piece))]
    return [re.split(r"\s(?:>>|>|<)\s", piece)[0] for piece in [*inner, *named]]
