"""Every snippet of the README runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fakes.peer_server import PeerServer

# A snippet beneath a comment that says so needs a model, and is run by the tests that have one.
README = (Path(__file__).parents[2] / "client" / "README.md").read_text()
SNIPPETS = re.findall(r"(?<!-->\n)^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == 12


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with PeerServer(tmp_path / "s") as server:
        monkeypatch.setenv("CCD_SOCKET", str(server.path))
        exec(compile(SNIPPETS[number], f"snippet {number}", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()
