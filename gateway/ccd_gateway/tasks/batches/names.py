"""Ids of batches and their files, which are their task's under another name; and times. Pure."""

from __future__ import annotations

import datetime
import re

_HEX = re.compile(r"[0-9a-f]{32}")
_OUTPUT = re.compile(r"file-(output|errors)-([0-9a-f]{32})")


def renamed(task_id: str, prefix: str) -> str:
    """`task_…` as `batch_…` or `msgbatch_…`."""
    return f"{prefix}_{task_id.removeprefix('task_')}"


def task_of(name: str, prefix: str) -> str:
    """The task of a batch; what cannot be one names a task that does not exist."""
    rest = name.removeprefix(f"{prefix}_")
    return f"task_{rest}" if name.startswith(f"{prefix}_") and _HEX.fullmatch(rest) else "none"


def output_file(task_id: str, kind: str) -> str:
    """The file of a batch's answers (`output`) or failures (`errors`)."""
    return f"file-{kind}-{task_id.removeprefix('task_')}"


def batch_of(file_id: str) -> tuple[str, str] | None:
    """The kind and the task of such a file; None for another file."""
    match = _OUTPUT.fullmatch(file_id)
    return (match[1], f"task_{match[2]}") if match else None


def seconds(at_s: float | None) -> int | None:
    """A time in whole seconds since 1970, as OpenAI writes it."""
    return None if at_s is None else int(at_s)


def rfc3339(at_s: float | None) -> str | None:
    """A time as Anthropic writes it."""
    if at_s is None:
        return None
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat().replace("+00:00", "Z")
