"""Permission requests and their answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_daemon.session.permissions import DENIED, Permissions
from ccd_protocol.errors import Code, RpcError

ASKED = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "ls"}, "description": "list"}


def asked() -> Permissions:
    permissions = Permissions()
    permissions.ask("r1", ASKED)
    return permissions


def said(line: bytes) -> dict[str, Any]:
    whole = json.loads(line)
    assert whole["type"] == "control_response" and line.endswith(b"\n")
    response = whole["response"]
    assert (response["subtype"], response["request_id"]) == ("success", "r1")
    return dict(response["response"])


def test_a_request_becomes_a_frame_and_stays_until_it_is_answered() -> None:
    permissions = Permissions()
    frame = permissions.ask("r1", ASKED)
    assert json.loads(frame) == {"type": "permission_request", "request_id": "r1", "request": ASKED}
    assert permissions.frames() == [frame] and len(permissions) == 1 and "r1" in permissions


def test_allow_keeps_the_input_unless_there_is_another() -> None:
    line, frame = asked().answer("r1", "allow", None, "ignored")
    assert said(line) == {"behavior": "allow", "updatedInput": {"command": "ls"}}
    assert json.loads(frame) == {"type": "permission_resolved", "request_id": "r1", "behavior": "allow"}
    line, _ = asked().answer("r1", "allow", {"command": "pwd"}, None)
    assert said(line)["updatedInput"] == {"command": "pwd"}
    line, _ = asked().answer("r1", "allow", {}, None)
    assert said(line)["updatedInput"] == {}


@pytest.mark.parametrize("behavior", ["deny", "", "Allow", "yes"])
def test_everything_else_denies(behavior: str) -> None:
    line, frame = asked().answer("r1", behavior, {"command": "pwd"}, None)
    assert said(line) == {"behavior": "deny", "message": DENIED}
    assert json.loads(frame)["behavior"] == "deny"
    line, _ = asked().answer("r1", behavior, None, "because")
    assert said(line)["message"] == "because"


def test_only_the_first_answer_counts() -> None:
    permissions = asked()
    permissions.answer("r1", "deny", None, None)
    for request_id in ("r1", "r2", ""):
        with pytest.raises(RpcError) as failure:
            permissions.answer(request_id, "allow", None, None)
        assert failure.value.code is Code.NOT_FOUND
    assert len(permissions) == 0


def test_a_withdrawn_request() -> None:
    permissions = asked()
    assert json.loads(permissions.withdraw("r1"))["behavior"] == "cancelled"
    assert permissions.withdraw("r1") == b"" and permissions.frames() == []
