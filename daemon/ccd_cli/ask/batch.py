"""`ccd ask --batch`: many questions from a file of JSON lines, their answers as JSON lines in the same order."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO

import click

from ccd_cli.output import is_lively
from ccd_client import BatchItem, ChatOptions, Client
from ccd_protocol.errors import RpcError

_OWN_KEYS = frozenset({"messages", "prompt", "id"})
_OPTIONS = frozenset(ChatOptions.__annotations__)
Progress = Callable[[int, int, BatchItem], None]


def questions(lines: Iterable[str]) -> list[dict[str, Any]]:
    """One question for each line that is not blank.

    A line is a string, or an object with `prompt` or `messages`, options of `Client.chat`, and perhaps an `id` that
    comes back with the answer.

    Raises:
        click.UsageError: naming the line, before anything is asked.
    """
    found = []
    for number, line in enumerate(_decoded(lines), 1):
        if line.strip():
            try:
                found.append(_question(json.loads(line)))
            except ValueError as error:
                raise click.UsageError(f"line {number}: {error}") from None
    if not found:
        raise click.UsageError("the batch is empty")
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


def run(client: Client, asked: list[dict[str, Any]], options: Mapping[str, Any], concurrency: int) -> int:
    """Ask everything, print the answers in order as they are complete; returns how many failed."""
    ids = [question.pop("id", None) for question in asked]
    waiting: dict[int, BatchItem] = {}
    shown = failed = 0
    with progress_on(sys.stderr, len(asked)) as show:

        def done(count: int, total: int, item: BatchItem) -> None:
            nonlocal shown, failed
            waiting[item.number] = item
            failed += item.error is not None
            while shown in waiting:
                click.echo(json.dumps(_row(waiting.pop(shown), ids[shown]), ensure_ascii=False))
                shown += 1
            show(count, failed)

        client.batch(asked, concurrency=concurrency, progress=done, **options)
    return failed


def _row(item: BatchItem, own_id: Any) -> dict[str, Any]:
    head = {"index": item.number} if own_id is None else {"index": item.number, "id": own_id}
    if item.answer is None:
        return {**head, "error": _error(item.error)}
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


def _error(error: RpcError | None) -> dict[str, Any]:
    assert error is not None
    return {"code": error.code.name.lower(), "message": error.message, **error.data}


@contextlib.contextmanager
def progress_on(stream: TextIO, total: int) -> Iterator[Callable[[int, int], None]]:
    """Shows (done, failed): a bar on a terminal, elsewhere a line for every tenth of the whole."""
    if not is_lively(stream):
        yield _lines(stream, total)
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only for people
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        *(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as bars:
        task = bars.add_task("Asking", total=total)

        def show(done: int, failed: int) -> None:
            word = f"Asking ([red]{failed} failed[/])" if failed else "Asking"
            bars.update(task, completed=done, description=word)

        yield show


def _lines(stream: TextIO, total: int) -> Callable[[int, int], None]:
    last = -1

    def show(done: int, failed: int) -> None:
        nonlocal last
        tenth = 10 * done // total
        if tenth != last:
            last = tenth
            print(f"{done} of {total} done, {failed} failed", file=stream, flush=True)

    return show
