"""`ccd ask --batch`: many questions from a file, their answers as JSON lines in the same order.

What was answered is printed, whatever happens afterwards: an interrupted run prints what it has, says what is left, and
`--resume` goes on from there.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click

from ccd_cli.ask.progress import Tally, progress_on
from ccd_cli.ending import EXIT_FAILED, EXIT_INTERRUPTED, error_row
from ccd_client import BatchItem, ChatOptions, Client

_OWN_KEYS = frozenset({"messages", "prompt", "id"})
_OPTIONS = frozenset(ChatOptions.__annotations__)


class Question(NamedTuple):
    """One line of the file."""

    number: int  # which question of the file, from 0
    id: Any  # the asker's own name for it, or None
    asked: dict[str, Any]  # as `Client.batch` takes it

    @property
    def key(self) -> str:
        """What says that two rows are about the same question."""
        return json.dumps(self.number if self.id is None else {"id": self.id}, sort_keys=True)


def questions(lines: Iterable[str]) -> list[Question]:
    """One question for each line that is not blank.

    A line is a JSON string, or an object with `prompt` or `messages`, options of `Client.chat`, and perhaps an `id`
    that comes back with the answer. In a file in which no line looks like either, each line is a prompt as it stands.

    Raises:
        click.UsageError: naming the line, before anything is asked.
    """
    told = [(at, line) for at, line in enumerate(_decoded(lines), 1) if line.strip()]
    if not told:
        raise click.UsageError("the batch is empty")
    plain = not any(line.lstrip().startswith(("{", '"')) for _, line in told)
    found = []
    for number, (at, line) in enumerate(told):
        try:
            asked = {"messages": line.strip()} if plain else _question(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise click.UsageError(f"line {at}: {error}") from None
        found.append(Question(number, asked.pop("id", None), asked))
    return found


def _decoded(lines: Iterable[str]) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError:
        raise click.UsageError("the batch is not UTF-8 text") from None


def _question(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"messages": value}
    if not isinstance(value, dict):
        raise ValueError("expected a string, or an object with prompt or messages")
    unknown = sorted(value.keys() - _OWN_KEYS - _OPTIONS)
    if unknown:
        raise ValueError(
            f"there is no option {unknown[0]!r}; there are: {', '.join(sorted(_OPTIONS | _OWN_KEYS))}"
        )
    if ("prompt" in value) == ("messages" in value):
        raise ValueError("expected either prompt or messages")
    question = dict(value)
    if "prompt" in question:
        question["messages"] = question.pop("prompt")
    return question


def unanswered(asked: Sequence[Question], earlier: Iterable[str]) -> list[Question]:
    """The questions that the rows of an earlier run do not answer, by id, or by number where there is none.

    Raises:
        click.UsageError: a row is none, or an id names two questions.
    """
    twice = [key for key, count in Counter(question.key for question in asked).items() if count > 1]
    if twice:
        raise click.UsageError(
            f"two questions have the same id, so --resume cannot tell them apart: {twice[0]}"
        )
    answered = set()
    for at, line in enumerate(_decoded(earlier), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "error" not in row:
                answered.add(Question(row["number"], row.get("id"), {}).key)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise click.UsageError(
                f"--resume: line {at} is no row of an earlier run; if it was cut short, remove it"
            ) from None
    return [question for question in asked if question.key not in answered]


def run(client: Client, asked: Sequence[Question], options: Mapping[str, Any], concurrency: int) -> int:
    """Ask everything, print the answers in order as they are complete; returns the exit status."""
    waiting: dict[int, BatchItem] = {}
    tally = Tally(len(asked))
    printed = 0

    def done(_: int, __: int, item: BatchItem) -> None:
        nonlocal printed
        waiting[item.number] = item
        tally.count(item)
        while printed in waiting:
            _print(asked[printed], waiting.pop(printed))
            printed += 1
        show(tally)

    try:
        with progress_on(sys.stderr, len(asked)) as show:
            client.batch(
                [question.asked for question in asked], concurrency=concurrency, progress=done, **options
            )
    except KeyboardInterrupt:
        for number, item in sorted(waiting.items()):  # answered out of turn, and paid for
            _print(asked[number], item)
        click.echo(
            f"{tally}; interrupted, {len(asked) - tally.done} left: go on with --resume ANSWERS", err=True
        )
        return EXIT_INTERRUPTED
    click.echo(str(tally), err=True)
    return EXIT_FAILED if tally.failed else 0


def _print(question: Question, item: BatchItem) -> None:
    click.echo(json.dumps(_row(question, item), ensure_ascii=False))


def _row(question: Question, item: BatchItem) -> dict[str, Any]:
    head = (
        {"number": question.number} if question.id is None else {"number": question.number, "id": question.id}
    )
    if item.error is not None:
        return {**head, "error": error_row(item.error)}
    assert item.answer is not None
    calls = [call._asdict() for call in item.answer.tool_calls]
    return {
        **head,
        "text": item.answer.text,
        **({"tool_calls": calls} if calls else {}),
        **_told(item.answer.result),
    }


def _told(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the daemon says about a turn, without the content that was shown already."""
    return {key: value for key, value in result.items() if key not in ("content", "text")}
