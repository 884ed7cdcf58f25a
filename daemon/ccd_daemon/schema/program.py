"""The program of a checking process: questions on stdin, answers on stdout, both msgpack.

It says `true` when it is warm. A question is `[schema]`, which asks whether that is a schema, or `[format, text]`,
which asks whether an answer has a format; schemas are JSON text. The answer is what is wrong, or nil. It opens nothing,
its memory is bounded, and what a schema does to it, its parent ends.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

import msgpack

from ccd_daemon.request import structured

_MAX_MEMORY_BYTES = 1 << 30
_MAX_FRAMES = 5000  # of Python's; a level of a schema takes about ten


def main() -> None:
    """Answer until stdin ends."""
    for limit, value in (
        (resource.RLIMIT_AS, _MAX_MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    sys.setrecursionlimit(_MAX_FRAMES)
    structured.schema_error({})  # its libraries are loaded before they are needed
    _say(True)
    with open(sys.stdin.fileno(), "rb", buffering=0) as stdin:  # noqa: PTH123
        for question in msgpack.Unpacker(stdin, max_buffer_size=0, unicode_errors="surrogatepass"):
            _say(answer(question))


def _say(value: object) -> None:
    sys.stdout.buffer.write(msgpack.packb(value, unicode_errors="surrogatepass"))
    sys.stdout.buffer.flush()


def answer(question: list[Any]) -> str | None:
    """Returns what is wrong, or None."""
    try:
        if len(question) == 1:
            return structured.schema_error(json.loads(question[0]))
        wanted = {"type": question[0]} if question[0] == "json_object" else _by_schema(question[0])
        return structured.problem(question[1], wanted)
    except (RecursionError, MemoryError):
        return "it is nested too deeply, or too large, to be checked"


def _by_schema(text: str) -> dict[str, Any]:
    return {"type": "json_schema", "schema": json.loads(text)}
