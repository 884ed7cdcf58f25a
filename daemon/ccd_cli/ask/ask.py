"""`ccd ask`: one question over the socket, the answer as it comes; or a batch of questions."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ccd_cli.ask import batch as ask_batch
from ccd_cli.ask import last
from ccd_cli.ask.question import message
from ccd_cli.ask.shown import Shown
from ccd_cli.completion import words as completed
from ccd_cli.connection import connected
from ccd_cli.options import command, json_option, seconds, socket_option


@command(
    "ask",
    "ccd ask why is the sky blue",
    'git diff | ccd ask "write a commit message"',
    'ccd ask -f report.pdf -f chart.png "what do they say?"',
    'ccd ask -c "and in one sentence?"',
    "ccd ask --batch questions.txt --concurrency 8 > answers.jsonl",
    "ccd ask --batch questions.txt --resume answers.jsonl >> answers.jsonl",
)
@click.argument("words", nargs=-1, metavar="[PROMPT]...")
@click.option(
    "-m",
    "--model",
    shell_complete=completed.models,
    help="For example sonnet, opus, haiku, or PROFILE/MODEL.",
)
@click.option("--profile", shell_complete=completed.profiles, help="The kind of worker.  [default: chat]")
@click.option("--system", help="A system prompt.")
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A text, image or PDF to go with the prompt; repeatable.",
)
@click.option(
    "--schema",
    type=click.File("rb"),
    metavar="FILE",
    help="A JSON schema; the answer is a JSON text that fits it.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="End the answer after this many tokens.")
@click.option("-c", "--continue", "go_on", is_flag=True, help="Go on with the last conversation.")
@click.option("--conversation", metavar="NAME", help="Go on with, or begin, the conversation of that name.")
@click.option("--forget", is_flag=True, help="Keep nothing of it: it cannot be continued.")
@click.option(
    "--timeout", "timeout_s", callback=seconds, metavar="TIME", help="Give up after this long: 30s, 5m."
)
@click.option("--markdown", is_flag=True, help="Render the answer; on a terminal only, when it is whole.")
@click.option("-v", "--verbose", is_flag=True, help="Say on stderr what it took: model, tokens, cost, times.")
@click.option(
    "--batch",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Ask every line of a file of JSON lines or plain lines, or of - for stdin.",
)
@click.option(
    "--resume",
    type=click.File(encoding="utf-8"),
    metavar="ANSWERS",
    help="The answers of an earlier run of this batch: what they answer is not asked again.",
)
@click.option("--concurrency", type=click.IntRange(1, 256), default=4, show_default=True, help="Of a batch.")
@json_option
@socket_option
def ask(words: tuple[str, ...], socket: Path | None, as_json: bool, **given: Any) -> None:
    """Ask the model; the answer streams to standard output. What is piped in goes along with the prompt.

    The words of the prompt need no quotes. With --json the whole answer is one JSON object: text, model, stop_reason,
    usage and more, or "error"; the exit status says which.

    With --batch, each line of the file is a JSON string, or an object with "prompt" or "messages", chat options such as
    "model" or "tools", and an "id" of your own; in a file without any JSON each line is a prompt. The answers are JSON
    lines in the same order; one that failed has "error", and the exit status is 1 then. What is still unanswered is
    asked by --resume: append the rows that come to those of the earlier run.
    """
    batch, resume, concurrency = (given.pop(name) for name in ("batch", "resume", "concurrency"))
    options = _options(given)
    if batch is not None:
        _ask_many(words, batch, resume, concurrency, options, given, socket)
    elif resume is not None:
        raise click.UsageError("--resume goes with --batch")
    else:
        _ask_one(words, options, given, as_json, socket)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The options of the chat, taken from what was given."""
    names = ("model", "profile", "system", "max_tokens", "timeout_s")
    options = {name: value for name in names if (value := given.pop(name)) is not None}
    schema = given.pop("schema")
    if schema is not None:
        form = {"name": "answer", "schema": _schema(schema)}
        options["response_format"] = {"type": "json_schema", "json_schema": form}
    return options


def _schema(file: Any) -> dict[str, Any]:
    try:
        schema = json.load(file)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--schema: {file.name} is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise click.UsageError(f"--schema: {file.name} is no JSON schema: expected an object")
    return schema


def _ask_many(
    words: tuple[str, ...],
    batch: Any,
    resume: Any,
    concurrency: int,
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    socket: Path | None,
) -> None:
    useless = [name for name in _FLAGS if given[name]]
    if words:
        raise click.UsageError("give either PROMPT or --batch")
    if useless:
        raise click.UsageError(f"{_FLAGS[useless[0]]} does not go with --batch")
    asked: list[Any] = ask_batch.questions(batch)
    if resume is not None:
        asked = ask_batch.unanswered(asked, resume)
    with connected(socket) as client:
        client.ping()  # no daemon is one failure, not one for every line
        sys.exit(ask_batch.run(client, asked, options, concurrency))


_FLAGS = {
    "files": "--file",
    "go_on": "--continue",
    "conversation": "--conversation",
    "forget": "--forget",
    "markdown": "--markdown",
    "verbose": "--verbose",
}


def _ask_one(
    words: tuple[str, ...],
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    as_json: bool,
    socket: Path | None,
) -> None:
    name = _conversation(given)
    content = message(words, given["files"])
    messages: Any = content if isinstance(content, str) else [{"role": "user", "content": content}]
    asked = {**options, **({"extra": {"conversation_id": name}} if name else {})}
    with connected(socket, as_json=as_json) as client:
        if as_json:
            answer = client.chat(messages, **asked)
            click.echo(json.dumps({"text": answer.text, **answer.result}, ensure_ascii=False))
        else:
            shown = Shown(markdown=given["markdown"], verbose=given["verbose"])
            shown.show(client.chat(messages, stream=True, **asked))
    if name:
        last.remember(name)


def _conversation(given: Mapping[str, Any]) -> str | None:
    """The name of the conversation that the question belongs to; None when nothing of it is to be kept."""
    chosen = [flag for flag in ("go_on", "conversation", "forget") if given[flag]]
    if len(chosen) > 1:
        raise click.UsageError(f"{_FLAGS[chosen[0]]} and {_FLAGS[chosen[1]]} exclude each other")
    if given["go_on"]:
        return last.last_name()
    if given["forget"]:
        return None
    return str(given["conversation"] or last.new_name("ask"))
