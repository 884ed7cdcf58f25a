"""Who may do what, from where: the tools of a session reach nothing of the daemon's, however they come."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from ccd_client import Client
from ccd_protocol.errors import Code
from fakes.insider import WAYS
from fakes.session_socket import Talk, ask, opened, socket_url, using
from fakes.stack import ROOT, Api, Stack, running_stack, wait_until

INSIDER = ROOT / "tests" / "fakes" / "insider.py"
#: What says nothing of anybody.
OPEN_TO_ALL = {"daemon.ping", "daemon.health", "model.list", "cache.stats", "chat.stream", "chat.complete"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("trust")
    settings = {
        "CCD_DATA__DIR": str(folder),
        "CCD_POOL__RSS_HARD_BYTES": str(16 << 30),  # of 300 processes, whose shared pages count for each
        "CCD_GATEWAY__ALLOW_AGENT_WITHOUT_KEY": "true",
    }
    with running_stack(folder, cli, api, gateway=True, **settings) as stack:
        yield stack


@pytest.mark.parametrize("way", WAYS)
def test_nothing_inside_of_a_session_is_anybody(stack: Stack, tmp_path: Path, way: str) -> None:
    session = opened(stack.url, model="claude-haiku-4-5", allowed_tools=["Bash"])
    output = tmp_path / "found.json"
    command = f"{sys.executable} {INSIDER} {way} {stack.socket} {output} >{tmp_path}/log 2>&1"
    with connect(socket_url(stack.url, session)) as connection:
        Talk(connection).ask(using("Bash", command=command, description="look around"))
        wait_until(output.exists, timeout_s=60, what="the attack to end")
    found = json.loads(output.read_text())
    allowed = {attempt for attempt, code in found.items() if code == 0}
    refused = {code for attempt, code in found.items() if attempt not in OPEN_TO_ALL}
    assert allowed <= OPEN_TO_ALL and "chat.complete" in allowed
    assert refused == {Code.FORBIDDEN}
    assert ask(stack.url, "DELETE", f"/v1/sessions/{session}").status == 200


def test_the_same_from_outside_is_somebody(stack: Stack) -> None:
    """Else the test above would say nothing."""
    with Client(stack.socket) as client:
        client.call("conversation.create", {"tenant": "bob", "conversation_id": "secret"})
        assert (
            client.call("conversation.get", {"tenant": "bob", "conversation_id": "secret"})["id"] == "secret"
        )
        assert client.call("session.list", {"tenant": "bob"}) == {"sessions": []}
        assert client.status()["pid"] == stack.daemon.pid
