"""An answer on a terminal or in a pipe: the text as it comes, and beside it, on stderr, how it goes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from ccd_cli.output import is_lively
from ccd_client import Answer
from ccd_client.events import Event, Retrying, TextDelta


class Shown:
    """Shows one answer.

    Args:
        markdown: render the text, once it is whole; on a terminal only.
        verbose: say at the end what it took.
    """

    def __init__(self, *, markdown: bool = False, verbose: bool = False) -> None:
        self._markdown = markdown and is_lively(sys.stdout)
        self._verbose = verbose
        self._began_s = time.monotonic()
        self._first_s: float | None = None
        self._ends_in_newline = True
        self._spinner = contextlib.ExitStack()

    def show(self, chat: Any) -> None:
        """Show a stream of events to its end.

        Raises:
            RpcError: it failed.
        """
        try:
            self._spin()
            for event in chat:
                self._event(event)
        finally:
            self._spinner.close()
            if not self._ends_in_newline:
                click.echo()
        answer: Answer = chat.answer
        if self._markdown:
            _render(answer.text)
        if self._verbose:
            click.echo(self._summary(answer), err=True)

    def _event(self, event: Event) -> None:
        if isinstance(event, Retrying):
            why = f" (it answered {event.status})" if event.status else ""
            click.echo(f"ccd: the model API is asked again in {event.delay_ms / 1000:.1f} s{why}", err=True)
        if not isinstance(event, TextDelta) or not event.text:
            return
        if self._first_s is None:
            self._first_s = time.monotonic()
        if not self._markdown:
            self._spinner.close()
            click.echo(event.text, nl=False)
            self._ends_in_newline = event.text.endswith("\n")

    def _spin(self) -> None:
        if is_lively(sys.stderr):
            self._spinner.enter_context(_spinning())

    def _summary(self, answer: Answer) -> str:
        now_s = time.monotonic()
        usage = answer.usage
        read = sum(
            usage.get(name, 0)
            for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        )
        first = "" if self._first_s is None else f", first word after {self._first_s - self._began_s:.2f} s"
        return (
            f"{answer.model}: {read} tokens in, {usage.get('output_tokens', 0)} out, ${answer.cost_usd:.4f}{first}, "
            f"{now_s - self._began_s:.2f} s in all"
        )


@contextlib.contextmanager
def _spinning() -> Iterator[None]:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only for readers

    with Console(stderr=True).status("Waiting for the first word"):
        yield


def _render(text: str) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.markdown import Markdown  # noqa: PLC0415

    Console().print(Markdown(text))
