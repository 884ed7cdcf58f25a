"""Which mode is used for which login, and which one takes over when a backend refuses: the offline API plays it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ccd_client import Client
from e2e.test_replay import ONE, TOOLS, ask, calling, result, results_in, said, user
from fakes.stack import Api, running_stack

STRICT, LENIENT = "sk-ant-oat01-test", "sk-ant-oat01-lenient"


@pytest.mark.parametrize(
    ("token", "body", "modes"),
    [
        (STRICT, "auto", ["replay"]),
        (LENIENT, "auto", ["replay"]),
        (LENIENT, "full", ["full", "keep_system"]),
        (STRICT, "full", ["full", "keep_system", "replay"]),
        (STRICT, "keep_system", ["keep_system", "replay"]),
        ("", "auto", ["full"]),
    ],
)
def test_the_fastest_mode_that_the_backend_takes_is_found(
    tmp_path: Path, cli: Path, api: Api, token: str, body: str, modes: list[str]
) -> None:
    """With client tools, whose results come in the mode that is left."""
    login = {"CLAUDE_CODE_OAUTH_TOKEN": token, "ANTHROPIC_API_KEY": ""} if token else {}
    with (
        running_stack(tmp_path, cli, api, CCD_ENGINE__BODY=body, **login) as stack,
        Client(stack.socket) as client,
    ):
        question = calling(*ONE)
        first = ask(client, question, tools=TOOLS, system="be brief", model="claude-opus-5-5")
        assert first["mode"] == modes[-1]
        assert first["stop_reason"] == "tool_use"
        pool: dict[str, Any] = stack.status()["pool"]
        assert pool["mode"] == modes[-1]
        assert list(pool["refused_modes"]) == modes[:-1]
        assert all("only authorized" in reason for reason in pool["refused_modes"].values())
        refused = len(api.bodies())
        talk = [*question, said(first), user([result("toolu_one", "20 °C")])]
        second = ask(client, talk, tools=TOOLS, system="be brief", model="claude-opus-5-5")
        assert second["mode"] == modes[-1]
        assert len(api.bodies()) == refused + 1  # what was refused is not tried again
        assert results_in(api.bodies()[-1])[0]["tool_use_id"] == "toolu_one"
        assert "be brief" in str(api.bodies()[-1]["system"])
