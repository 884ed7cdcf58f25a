"""What is asked: the words, standard input that has data, and files, as one message."""

from __future__ import annotations

import base64
import os
import select
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import click

_MAX_BYTES = 32 * 1024 * 1024
_WAIT_S = 3.0  # then whoever waits is told for what
_IMAGES = {b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def message(words: Sequence[str], files: Sequence[Path]) -> str | list[dict[str, Any]]:
    """The content of the question: a text, or parts as OpenAI has them when there are images or documents.

    Standard input is joined when it is a pipe or a file with data in it, or asked for by `-`.

    Raises:
        click.UsageError: nothing is asked, or something cannot be read.
    """
    wants_input = "-" in words
    prompt = " ".join(_text(os.fsencode(word), "the prompt") for word in words if word != "-")
    data = b"" if sys.stdin is None else standard_input(sys.stdin.buffer, wanted=wants_input)
    parts = [_part(data, None)] if data.strip() else []
    parts += [_part(_read(file), file.name) for file in files]
    if prompt.strip():
        parts.insert(0, {"type": "text", "text": prompt})
    if not parts:
        raise click.UsageError("there is no prompt: give one, or pipe a text in, or name a file with -f")
    if all(part["type"] == "text" for part in parts):
        return "\n\n".join(part["text"] for part in parts)
    return parts


def standard_input(stream: BinaryIO, *, wanted: bool) -> bytes:
    """What stands on standard input; nothing when that is a terminal or /dev/null and was not asked for."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # closed, or no file at all: what a program gives instead
        return stream.read(_MAX_BYTES + 1) if not stream.closed else b""
    if not wanted and not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return b""
    if stat.S_ISFIFO(mode) and not select.select([stream], [], [], _WAIT_S)[0]:
        click.echo("ccd: waiting for the end of standard input (use < /dev/null to leave it out)", err=True)
    return _bounded(stream.read(_MAX_BYTES + 1), "standard input")


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return _bounded(opened.read(_MAX_BYTES + 1), str(file))
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from None


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > _MAX_BYTES:
        raise click.UsageError(f"{name} is larger than {_MAX_BYTES >> 20} MiB")
    return data


def _part(data: bytes, name: str | None) -> dict[str, Any]:
    kind = _kind(data)
    if kind is None:
        text = _text(data, name or "the text on standard input")
        return {"type": "text", "text": f"{name}:\n\n{text}" if name else text}
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    if kind == "application/pdf":
        return {"type": "file", "file": {"filename": name or "document.pdf", "file_data": url}}
    return {"type": "image_url", "image_url": {"url": url}}


def _kind(data: bytes) -> str | None:
    """What the bytes show themselves to be, whatever the name says; None is text."""
    if data.startswith(b"%PDF-"):
        return "application/pdf"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for head, kind in _IMAGES.items() if data.startswith(head)), None)


def _text(raw: bytes, name: str) -> str:
    """Whatever the locale, it must be UTF-8."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise click.UsageError(f"{name} is not UTF-8 text, nor an image or PDF")
    return text
