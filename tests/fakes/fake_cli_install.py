"""Puts the scripted CLI where a test wants it, with its faults beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).with_name("fake_cli.py")


def install_fake_cli(directory: Path, **faults: Any) -> Path:
    """A copy of the scripted CLI at `directory/claude`, run by this interpreter; the result is its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "claude"
    _, _, rest = _SOURCE.read_text().partition("\n")
    path.write_text(f"#!{sys.executable} -IS\n{rest}")
    path.chmod(0o755)
    set_faults(path, **faults)
    return path


def set_faults(path: Path, **faults: Any) -> None:
    """The faults of all processes started from now on."""
    path.with_name("claude.faults").write_text(json.dumps(faults))


def started_pids(path: Path) -> list[int]:
    """The processes started so far, grandchildren included, in order."""
    pids = path.with_name("claude.pids")
    return [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
