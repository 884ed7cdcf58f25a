"""The sets of variables, and what the CLI's file knows of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ccd_daemon.claude.program import traces_in
from ccd_daemon.claude.tuning import SETS, TRACES, Tuning, sparing, speeding


def test_only_what_is_known_is_set() -> None:
    assert speeding(Tuning.BALANCED, ()) == sparing(()) == {}
    assert speeding(Tuning.BALANCED, [b"BUN_GC_TIMER_INTERVAL"]) == {"BUN_GC_TIMER_INTERVAL": "30000"}
    for tuning in Tuning:
        names = [variable.name for variable in SETS[tuning]]
        assert list(speeding(tuning, TRACES)) == names and len(set(names)) == len(names)


def test_the_real_cli_knows_them(cli: Path) -> None:
    assert traces_in(cli, TRACES) == TRACES


def test_the_answer_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, cache = tmp_path / "claude", tmp_path / "probe.json"
    file.write_bytes(b"..one..")
    assert traces_in(file, [b"one", b"two"], cache) == {b"one"}
    stored = json.loads(cache.read_text())
    cache.write_text(json.dumps(stored | {"found": ["two"]}))  # so it is seen that the cache was used
    assert traces_in(file, [b"one", b"two"], cache) == {b"two"}
    assert traces_in(file, [b"one"], cache) == {b"one"}  # another question
    file.write_bytes(b"..two..")
    os.utime(file, (1, 1))
    assert traces_in(file, [b"one", b"two"], cache) == {b"two"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', "\x00"])
def test_a_damaged_cache_is_ignored(tmp_path: Path, content: str) -> None:
    file, cache = tmp_path / "claude", tmp_path / "probe.json"
    file.write_bytes(b"..one..")
    cache.write_text(content)
    assert traces_in(file, [b"one"], cache) == {b"one"}


def test_files_that_cannot_be_searched(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert traces_in(tmp_path / "empty", TRACES) == frozenset()
    assert traces_in(tmp_path / "missing", TRACES) == frozenset()
    assert traces_in(tmp_path, TRACES) == frozenset()
