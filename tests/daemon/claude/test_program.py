"""The installed CLI: what it knows, and that another file in its place is noticed once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ccd_daemon.claude import program
from ccd_daemon.claude.binary import CliNotFound
from ccd_daemon.claude.program import UNKNOWN, Program
from ccd_daemon.claude.tuning import TRACES, Tuning
from fakes.in_loop import in_loop


def installed(folder: Path, content: bytes) -> Path:
    path = folder / "claude"
    fresh = folder / "fresh"
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.replace(path)
    return path


@in_loop
async def test_another_file_is_noticed_once_and_what_it_knows_is_looked_up(tmp_path: Path) -> None:
    path = installed(tmp_path, b"an old one")
    cli = Program(path, "2.1.197", Tuning.BALANCED, tmp_path / "cache.json")
    assert cli.variables == {} and not cli.was_replaced()
    path.unlink()
    assert not cli.was_replaced(), "in the middle of an update there is none"
    installed(tmp_path, b"a newer one " + b" ".join(TRACES))
    assert cli.was_replaced() and not cli.was_replaced()
    while not cli.variables:
        await asyncio.sleep(0.01)


def test_a_file_that_does_not_tell_its_version_is_tried_all_the_same(tmp_path: Path) -> None:
    path = installed(tmp_path, b"#!/bin/sh\nexit 1\n")
    found = program.found(str(path), tmp_path, {"PATH": "/nonexistent"}, Tuning.BALANCED)
    assert (found.path, found.version) == (path, UNKNOWN)
    with pytest.raises(CliNotFound):
        program.found(None, tmp_path / "none", {"PATH": "/nonexistent"}, Tuning.BALANCED)
