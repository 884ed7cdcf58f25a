"""What clients of a session are shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_daemon.session.view import SessionHistory, View, frame


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def view() -> View:
    return View("s1", model="opus", cwd="/srv/a", permission_mode="plan")


def test_before_the_first_turn_it_is_what_was_asked_for() -> None:
    assert json.loads(view().frame()) == {
        "type": "session_init",
        "session_id": "s1",
        "state": {
            "session_id": "s1",
            "cli_session_id": None,
            "model": "opus",
            "cwd": "/srv/a",
            "tools": [],
            "permission_mode": "plan",
            "claude_code_version": "",
            "mcp_servers": [],
            "total_cost_usd": 0.0,
            "num_turns": 0,
            "is_compacting": False,
        },
    }


def test_the_values_are_the_clis_own() -> None:
    shown = view()
    shown.saw_init(
        line(
            type="system",
            subtype="init",
            session_id="c1",
            model="claude-opus-5-5",
            cwd="/srv/b",
            tools=["Bash", "Read"],
            permissionMode="default",
            claude_code_version="2.1.330",
            mcp_servers=[{"name": "x", "status": "connected"}],
        )
    )
    shown.saw_result(line(type="result", total_cost_usd=0.25, num_turns=3))
    state = shown.state
    assert (state["cli_session_id"], state["model"], state["cwd"]) == ("c1", "claude-opus-5-5", "/srv/b")
    assert (state["tools"], state["permission_mode"]) == (["Bash", "Read"], "default")
    assert (state["claude_code_version"], state["mcp_servers"][0]["name"]) == ("2.1.330", "x")
    assert (state["total_cost_usd"], state["num_turns"]) == (0.25, 3)


def test_a_result_without_figures_leaves_them() -> None:
    shown = view()
    shown.saw_result(line(type="result", total_cost_usd=0.25, num_turns=3))
    shown.saw_result(line(type="result"))
    assert (shown.state["total_cost_usd"], shown.state["num_turns"]) == (0.25, 3)


@pytest.mark.parametrize(
    ("status", "compacting"), [("compacting", True), ("requesting", False), (None, False)]
)
def test_compacting(status: str | None, compacting: bool) -> None:
    shown = view()
    shown.state["is_compacting"] = not compacting
    shown.saw_status(line(type="system", subtype="status", status=status))
    assert shown.state["is_compacting"] is compacting
    assert shown.state["permission_mode"] == "plan"


def test_a_change_of_the_permission_mode() -> None:
    shown = view()
    shown.saw_status(line(type="system", subtype="status", status=None, permissionMode="acceptEdits"))
    assert shown.state["permission_mode"] == "acceptEdits"


def test_history_keeps_the_last_lines_that_fit() -> None:
    history = SessionHistory(10)
    for text in (b"1234\n", b"5678\n", b"9\n"):
        history.add(text)
    assert history.lines() == [b"5678\n", b"9\n"]
    history.add(b"x" * 11)
    assert history.lines() == []
    history.add(b"a\n")
    history.clear()
    history.add(b"b" * 10)
    assert history.lines() == [b"b" * 10]


def test_a_frame_is_one_line() -> None:
    assert frame("x", text="a\nb") == b'{"type":"x","text":"a\\nb"}\n'
