"""`ccd batch`: the group."""

from __future__ import annotations

from ccd_cli.batch.run import run
from ccd_cli.options import group


@group("batch", "ccd batch run questions.jsonl > answers.jsonl")
def batch() -> None:
    """Many questions as one piece of durable work."""


batch.add_command(run)
