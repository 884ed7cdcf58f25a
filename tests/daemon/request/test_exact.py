"""Calls in the model API's own form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_daemon.claude.login import Mode
from ccd_daemon.request import body, exact, replay, wish
from ccd_daemon.request.body import Wish
from ccd_protocol.errors import Code, RpcError

NOTE = {"role": "system", "content": "note", "output_config": {"effort": "low"}}
LONG = {"role": "user", "content": [{"type": "text", "text": "x" * 9000}]}
CHAT: dict[str, Any] = {"exact": True, "max_tokens": 9, "messages": [LONG, NOTE]}
SERVER_TOOL = {"type": "web_search_20250305", "name": "web_search"}


def asked(fields: dict[str, Any], *, mode: Mode = Mode.FULL, betas: bool = True, refused: Any = ()) -> Wish:
    chat = body.validate(fields)
    exact.check(chat)
    able = wish.Abilities()
    return wish.make(chat, "m", able, mode=mode, refused=refused, thoughtless=False, betas=betas)


def refusal(fields: dict[str, Any], **more: Any) -> str:
    with pytest.raises(RpcError) as caught:
        made = asked(fields, **more)
        replay.talk(made) if more.get("mode") == Mode.REPLAY else body.script(Mode.FULL, made, "r")
    assert caught.value.code is Code.BAD_PARAMS
    return str(caught.value.data["param"])


def sent(made: Wish) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body.engine_body(made.chat, made.extra))
    return found


def env(fields: dict[str, Any]) -> dict[str, str]:
    line = body.engine_script(asked(fields), "r", None).first.splitlines()[0]
    found: dict[str, str] = json.loads(line)["request"]["settings"]["env"]
    return found


@pytest.mark.parametrize(
    ("fields", "thinking", "cli_thinks"),
    [
        ({"top_p": 0.5}, {"type": "disabled"}, ""),
        ({"top_p": 0.5, "thinking": {"type": "disabled"}}, {"type": "disabled"}, ""),
        ({"top_p": 0.96, "thinking": {"type": "adaptive"}}, {"type": "adaptive"}, "1"),
        ({"top_p": 0.5, "temperature": 0.5}, None, "1"),
    ],
)
def test_the_cli_adds_no_temperature_to_a_lonely_top_p(
    fields: dict[str, Any], thinking: Any, cli_thinks: str
) -> None:
    assert sent(asked(CHAT | fields)).get("thinking") == thinking
    assert env(CHAT | fields)["CLAUDE_CODE_DISABLE_THINKING"] == cli_thinks


def test_nothing_is_added_and_nothing_is_lost() -> None:
    extra = {
        "output_config": {"effort": "low"},
        "context_management": {"edits": []},
        "cache_control": {"type": "ephemeral"},
    }
    thinking = {"type": "adaptive", "display": "omitted"}
    fields = CHAT | {"extra_body": extra, "thinking": thinking, "tools": [SERVER_TOOL], "temperature": 0.5}
    assert sent(asked(fields)) == {
        "system": [],
        "metadata": {},
        "messages": [LONG, NOTE],
        "max_tokens": 9,
        "thinking": thinking,
        "tools": [SERVER_TOOL],
        "temperature": 0.5,
        **extra,
    }


def test_other_calls_still_get_a_cache_mark_and_no_system_notes() -> None:
    assert "cache_control" in json.dumps(sent(asked({"messages": [LONG]})))
    assert refusal({"messages": [LONG, NOTE]}) == "messages[1].role"
    assert refusal({"messages": [LONG], "tools": [SERVER_TOOL]}) == "tools[0].input_schema"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [LONG], "extra_body": {}}, "extra_body"),
        ({"messages": [LONG], "betas": []}, "betas"),
        (CHAT | {"extra_body": {"messages": []}}, "extra_body.messages"),
        (CHAT | {"extra_body": {"stream": False}}, "extra_body.stream"),
        (CHAT | {"extra_body": {"model": "x"}}, "extra_body.model"),
        (CHAT | {"extra_body": {"betas": ["x"]}}, "extra_body.betas"),
        (CHAT | {"extra_body": {"anthropic_beta": ["x"]}}, "extra_body.anthropic_beta"),
        (CHAT | {"extra_body": {str(n): 1 for n in range(65)}}, "extra_body"),
        (CHAT | {"betas": ["a\r\nx-evil: 1"]}, "betas"),
        (CHAT | {"betas": ["a"] * 65}, "betas"),
        (CHAT | {"tools": [{"name": "t"}]}, "tools[0].input_schema"),
    ],
)
def test_what_may_not_be_there(fields: dict[str, Any], param: str) -> None:
    assert refusal(fields) == param


def test_the_header_is_the_clients_where_the_login_allows_it() -> None:
    fields = CHAT | {"betas": ["a-1", "b-2"]}
    assert sent(asked(fields))["betas"] == ["a-1", "b-2"]
    without = asked(fields, betas=False)
    assert "betas" not in sent(without)
    assert without.ignored == ("betas",)
    assert refusal(fields | {"strict": True}, betas=False) == "betas"
    assert "betas" not in sent(asked(CHAT))  # the CLI's own


def test_sampling_that_the_model_refuses_is_left_out_and_named() -> None:
    made = asked(CHAT | {"temperature": 0.5}, refused=["temperature"])
    assert made.ignored == ("temperature",)
    assert "temperature" not in sent(made)


@pytest.mark.parametrize(
    ("fields", "variable"),
    [
        (CHAT, "unset"),
        (CHAT | {"extra_body": {"output_config": {"effort": "high"}}}, "high"),
        (CHAT | {"extra_body": {"output_config": {"effort": {"odd": 1}}}}, "unset"),
        ({"messages": [LONG]}, ""),
    ],
)
def test_the_clis_default_effort_is_not_part_of_an_exact_request(
    fields: dict[str, Any], variable: str
) -> None:
    assert env(fields)["CLAUDE_CODE_EFFORT_LEVEL"] == variable


def test_replay_honours_the_effort_and_names_or_refuses_the_rest() -> None:
    user = CHAT | {"messages": [LONG]}
    extra = {"output_config": {"effort": "low", "task_budget": 1}, "context_management": {}}
    made = asked(user | {"extra_body": extra, "betas": ["a"], "temperature": 0.5}, mode=Mode.REPLAY)
    assert made.ignored == ("temperature", "betas", "context_management", "output_config.task_budget")
    script = replay.script(made, replay.talk(made), "r", replay.Standing())
    assert '"effortLevel":"low"' in script.first.decode().replace(" ", "")
    assert asked(CHAT, mode=Mode.REPLAY).ignored == ("messages[1].role",)  # told by the user, and marked
    assert refusal(user | {"extra_body": {"mcp_servers": [{}]}}, mode=Mode.REPLAY) == "mcp_servers"
    form = {
        "type": "json_schema",
        "schema": {"type": "object", "properties": {}, "additionalProperties": False},
    }
    formatted = user | {"extra_body": {"output_config": {"format": form}}}
    assert json.loads(replay.talk(asked(formatted, mode=Mode.REPLAY)).binding)["jsonSchema"] == form["schema"]
    tool = {"name": "t", "input_schema": {"type": "object"}}
    assert refusal(formatted | {"tools": [tool]}, mode=Mode.REPLAY) == "output_config.format"
    odd = user | {"extra_body": {"output_config": {"format": {"type": "json_schema"}}}}
    assert refusal(odd, mode=Mode.REPLAY) == "output_config.format"
    assert refusal(user | {"tools": [SERVER_TOOL]}, mode=Mode.REPLAY) == "tools[0].type"


@pytest.mark.parametrize(("kind", "left"), [("enabled", False), ("adaptive", True), ("disabled", True)])
def test_another_models_thinking_is_left_out_on_the_way_to_the_fallback_model(kind: str, left: bool) -> None:
    """With a budget a tool loop needs the thinking that it began with, and that was the other model's."""
    thinking = {"type": kind, **({"budget_tokens": 1024} if kind == "enabled" else {})}
    chat = body.validate({**CHAT, "thinking": thinking})
    made = wish.make(chat, "m", wish.Abilities(), mode=Mode.FULL, thoughtless=True, betas=True)
    assert ("thinking" in made.chat) == left
    assert made.ignored == (() if left else ("thinking",))


def test_a_long_context_is_kept_beside_betas() -> None:
    chat = body.validate({**CHAT, "betas": ["own"]})
    made = wish.make(chat, "sonnet[1m]", wish.Abilities(), mode=Mode.FULL, thoughtless=False, betas=True)
    assert made.extra["betas"] == ["own", "context-1m-2025-08-07"]
