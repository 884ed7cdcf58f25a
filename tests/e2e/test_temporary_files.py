"""Nothing that a CLI leaves lies in the shared directory, and nobody can take its place there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_client import Client
from fakes.offline_api import directive
from fakes.stack import Api, Stack, running_stack, wait_until


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("tmp")
    with running_stack(folder, cli, api, CCD_DATA__DIR=str(folder), CCD_POOL__SPARES="1") as stack:
        yield stack


def environ_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def test_a_session_with_a_background_task_leaves_nothing(stack: Stack) -> None:
    with Client(stack.socket) as client:
        opened = client.call("session.open", {"model": "haiku", "allowed_tools": ["Bash"]})
        session = opened["session_id"]
        with client.stream("session.attach", {"session_id": session}) as stream:
            lines = (json.loads(line) for payload in stream for line in payload.splitlines())
            using: list[dict[str, Any]] = [
                {"name": "Bash", "input": {"command": "mktemp", "description": "make"}},
                {"name": "Bash", "input": {"command": "sleep 600", "run_in_background": True}},
            ]
            client.call("session.send", {"session_id": session, "content": directive(tool_calls=using)})
            told = []
            for line in lines:
                told.append(line)
                if line["type"] == "result":
                    break
        (pid,) = (row["pid"] for row in client.workers()["workers"] if row["id"] == session)
        temporary = Path(environ_of(pid)["TMPDIR"])
        assert (
            environ_of(pid)["CLAUDE_CODE_TMPDIR"] == str(temporary) and temporary.stat().st_mode & 0o77 == 0
        )
        assert f"{temporary}/tmp." in json.dumps(told), "where its tools' files are"
        assert list(temporary.rglob("*.output")), "where output of the background is written"
        client.call("session.close", {"session_id": session})
    wait_until(lambda: not temporary.exists(), what="all of it to be deleted")


def test_every_worker_has_its_own(stack: Stack) -> None:
    with Client(stack.socket) as client:
        client.chat("hello")
    places = {pid: Path(environ_of(pid)["TMPDIR"]) for pid in stack.processes()}
    assert len(set(places.values())) == len(places) and all(place.is_dir() for place in places.values())
