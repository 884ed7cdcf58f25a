"""What a check finds, and what the whole of it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "note", "warning", "fault"]

_SIGNS: dict[Level, str] = {"ok": "ok  ", "note": "note", "warning": "WARN", "fault": "FAIL"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: what it belongs to, one word, for example "login".
        level: "ok"; "note": worth knowing; "warning": works, but not as it should; "fault": ccd cannot work so.
        text: what was found.
        mend: what to do, a sentence or a command; empty where there is nothing to do.
    """

    area: str
    level: Level
    text: str
    mend: str = ""


def lines(findings: Sequence[Finding]) -> list[str]:
    """Returns the report for a terminal."""
    shown = []
    for found in findings:
        shown.append(f"{_SIGNS[found.level]}  {found.area:<9} {found.text}")
        if found.mend and found.level != "ok":
            shown.append(f"                -> {found.mend}")
    return shown


def summary(findings: Sequence[Finding]) -> str:
    """Returns the last line of the report."""
    faults = sum(found.level == "fault" for found in findings)
    warnings = sum(found.level == "warning" for found in findings)
    if not faults and not warnings:
        return f"All well: {len(findings)} things looked at."
    return f"{faults} {'fault' if faults == 1 else 'faults'}, {warnings} {'warning' if warnings == 1 else 'warnings'}."


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Returns `{"healthy": bool, "findings": [{"area", "level", "text", "mend"}]}`."""
    return {
        "healthy": not any(found.level == "fault" for found in findings),
        "findings": [asdict(found) for found in findings],
    }
