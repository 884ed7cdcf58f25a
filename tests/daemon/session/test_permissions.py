"""Permission requests and their answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ccd_daemon.session.permissions import DENIED, Permissions
from ccd_protocol.errors import Code, RpcError
from fakes.in_loop import in_loop

ASKED = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "ls"}, "description": "list"}


class Asking:
    """Permissions, and what they tell."""

    def __init__(self, patience_s: float = 60) -> None:
        self.late: list[str] = []
        self.changes = 0
        self.permissions = Permissions(self.late.append, self._changed, patience_s)

    def _changed(self) -> None:
        self.changes += 1


def asked() -> Permissions:
    permissions = Asking().permissions
    permissions.ask("r1", ASKED)
    return permissions


def said(line: bytes) -> dict[str, Any]:
    whole = json.loads(line)
    assert whole["type"] == "control_response" and line.endswith(b"\n")
    response = whole["response"]
    assert (response["subtype"], response["request_id"]) == ("success", "r1")
    return dict(response["response"])


@in_loop
async def test_a_request_becomes_a_frame_and_stays_until_it_is_answered() -> None:
    permissions = Asking().permissions
    frame = permissions.ask("r1", ASKED)
    assert json.loads(frame) == {"type": "permission_request", "request_id": "r1", "request": ASKED}
    assert permissions.frames() == [frame] and len(permissions) == 1 and "r1" in permissions


@in_loop
async def test_allow_keeps_the_input_unless_there_is_another() -> None:
    line, frame = asked().reply("r1", "allow", None, "ignored")
    assert said(line) == {"behavior": "allow", "updatedInput": {"command": "ls"}}
    assert json.loads(frame) == {"type": "permission_resolved", "request_id": "r1", "behavior": "allow"}
    line, _ = asked().reply("r1", "allow", {"command": "pwd"}, None)
    assert said(line)["updatedInput"] == {"command": "pwd"}
    line, _ = asked().reply("r1", "allow", {}, None)
    assert said(line)["updatedInput"] == {}


@pytest.mark.parametrize("behavior", ["deny", "", "Allow", "yes"])
@in_loop
async def test_everything_else_denies(behavior: str) -> None:
    line, frame = asked().reply("r1", behavior, {"command": "pwd"}, None)
    assert said(line) == {"behavior": "deny", "message": DENIED}
    assert json.loads(frame)["behavior"] == "deny"
    line, _ = asked().reply("r1", behavior, None, "because")
    assert said(line)["message"] == "because"


@in_loop
async def test_only_the_first_answer_counts() -> None:
    permissions = asked()
    permissions.reply("r1", "deny", None, None)
    for request_id in ("r1", "r2", ""):
        with pytest.raises(RpcError) as failure:
            permissions.reply(request_id, "allow", None, None)
        assert failure.value.code is Code.NOT_FOUND
    assert len(permissions) == 0


@in_loop
async def test_a_withdrawn_request() -> None:
    permissions = asked()
    assert json.loads(permissions.withdraw("r1"))["behavior"] == "cancelled"
    assert permissions.withdraw("r1") == b"" and permissions.frames() == []


@in_loop
async def test_a_request_that_nobody_replies_to_is_told_once_and_a_settled_one_is_not() -> None:
    asking = Asking(patience_s=0)
    asking.permissions.ask("r1", ASKED)
    asking.permissions.ask("r2", ASKED)
    asking.permissions.reply("r2", "deny", None, None)
    while not asking.late:
        await asyncio.sleep(0)
    asking.permissions.clear()
    assert asking.late == ["r1"]
    assert asking.changes == 4  # each came and went
