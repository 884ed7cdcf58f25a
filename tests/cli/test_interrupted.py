"""Ctrl-C while a command still loads what it needs: it ends as interrupted, and says nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: The import is interrupted as the kernel would, at a place that says which command it belongs to.
_SCRIPT = """
import builtins, sys
from ccd_cli.__main__ import main
load = builtins.__import__
def interrupted(name, *rest):
    if name.startswith({at!r}):
        raise KeyboardInterrupt
    return load(name, *rest)
builtins.__import__ = interrupted
sys.argv = ["ccd", *{words!r}]
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("ccd_cli.ask", ["ask", "hello"]),
        ("ccd_client", ["ctl", "status"]),
        ("uvloop", ["daemon"]),
        ("ccd_gateway", ["gateway"]),
    ],
)
def test_an_import_that_is_interrupted(at: str, words: list[str]) -> None:
    script = _SCRIPT.format(at=at, words=words)
    environ = {
        "HOME": "/nonexistent",
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(filter(None, sys.path)),
    }
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
