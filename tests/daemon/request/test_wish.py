from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ccd_daemon.claude.login import Mode
from ccd_daemon.request import wish
from ccd_daemon.request.body import Wish, validate
from ccd_daemon.request.wish import GO_ON, PREFILL, opaque_id, understood
from ccd_protocol.errors import Code, RpcError

MODELS = [
    {
        "value": "default",
        "resolvedModel": "claude-new-1",
        "supportsAdaptiveThinking": True,
        "supportedEffortLevels": ["low", "medium", "high"],
    }
]
NEW = wish.abilities(MODELS, None)
OLD = wish.abilities(MODELS, "claude-old-1")
TOOLS = [{"name": "f", "input_schema": {}}]


def make(
    able: wish.Abilities,
    *,
    mode: Mode = Mode.FULL,
    thoughtless: bool = False,
    refused: Sequence[str] = (),
    **params: Any,
) -> Wish:
    chat = validate({"messages": [{"role": "user", "content": "x"}], **params})
    return wish.make(chat, "m", able, mode=mode, thoughtless=thoughtless, refused=refused)


def test_abilities_are_looked_up_by_alias_or_name() -> None:
    assert wish.abilities(MODELS, "claude-new-1") == NEW
    assert NEW.adaptive
    assert not OLD.adaptive


@pytest.mark.parametrize(
    ("able", "params", "extra"),
    [
        (NEW, {}, {}),
        (NEW, {"effort": "none"}, {}),
        (NEW, {"effort": "minimal"}, {"output_config": {"effort": "low"}}),
        (NEW, {"effort": "max"}, {"output_config": {"effort": "high"}}),
        (OLD, {"effort": "low"}, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (
            OLD,
            {"effort": "high", "max_tokens": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 1999}},
        ),
        (OLD, {"top_p": 0.5}, {"thinking": {"type": "disabled"}}),
    ],
)
def test_effort_becomes_what_the_model_knows(
    able: wish.Abilities, params: Any, extra: dict[str, Any]
) -> None:
    made = make(able, **params)
    assert {key: made.extra[key] for key in extra} == extra
    assert not made.ignored


@pytest.mark.parametrize(
    ("params", "ignored"),
    [
        ({"effort": "low", "temperature": 0.5}, ("temperature",)),
        ({"effort": "low", "temperature": 1}, ()),
        ({"effort": "low", "top_k": 5, "top_p": 0.5}, ("top_p", "top_k")),
        ({"effort": "low", "tools": TOOLS, "tool_choice": {"type": "any"}}, ("effort",)),
        ({"effort": "low", "max_tokens": 500}, ("effort",)),
    ],
)
def test_what_excludes_thinking_is_named_and_refused_when_strict(
    params: Any, ignored: tuple[str, ...]
) -> None:
    assert make(OLD, **params).ignored == ignored
    if ignored:
        with pytest.raises(RpcError) as caught:
            make(OLD, strict=True, **params)
        assert caught.value.code is Code.BAD_PARAMS
        assert caught.value.data["param"] == ignored[0]


def test_lost_thoughts_switch_thinking_off() -> None:
    made = make(OLD, effort="high", thoughtless=True)
    assert "thinking" not in made.extra
    assert made.ignored == ("effort",)


def test_what_thinks_adaptively_may_begin_to_in_the_middle_of_a_tool_loop() -> None:
    made = make(NEW, effort="high", thoughtless=True)
    assert made.extra["thinking"]["type"] == "adaptive"
    assert made.ignored == ()


@pytest.mark.parametrize(
    ("able", "params", "goes_on"),
    [
        (OLD, {}, True),
        (OLD, {"effort": "high"}, False),
        (OLD, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, False),
        (OLD, {"format": {"type": "json_schema", "schema": {"type": "null"}}}, False),
        (OLD, {"format": {"type": "json_object"}}, True),
        (OLD, {"refused": ["prefill"]}, False),
        (OLD, {"mode": Mode.REPLAY}, False),
        (NEW, {}, False),
    ],
)
def test_an_answer_that_was_begun_is_gone_on_with(able: wish.Abilities, params: Any, goes_on: bool) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "It is"}]
    made = make(able, messages=messages, **params)
    if goes_on:
        assert made.chat["messages"] == messages and made.ignored == ()
    else:
        assert made.chat["messages"] == [*messages, {"role": "user", "content": GO_ON}]
        assert PREFILL in made.ignored
        with pytest.raises(RpcError):
            make(able, messages=messages, strict=True, **params)


def test_the_beginning_of_an_answer_cannot_end_with_white_space() -> None:
    blocks = [{"type": "text", "text": "a "}]
    for said, sent in (("It is \n", "It is"), (blocks, [{"type": "text", "text": "a"}])):
        messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": said}]
        made = make(OLD, messages=messages)
        assert made.chat["messages"][1]["content"] == sent
        assert made.ignored == (PREFILL,)


@pytest.mark.parametrize(
    "who",
    [
        *("ann@example.com", "Ann Lee <ann.lee@mail.example.org>", "+49 170 1234567", "(555) 123-4567"),
        *("5551234567", "x" * 257),
    ],
)
def test_users_that_the_api_does_not_take_become_digests(who: str) -> None:
    made = opaque_id(who, "a")
    assert len(made) == 32 and made == opaque_id(who, "a") != opaque_id(who, "b")
    assert opaque_id(made, "a") == made
    chat = validate({"messages": [{"role": "user", "content": "q"}], "metadata": {"user_id": who}})
    found, named = understood(chat, "a")
    assert found["metadata"] == {"user_id": made} and named == ["metadata"]
    with pytest.raises(RpcError):
        understood({**chat, "strict": True}, "a")
    assert understood({**chat, "exact": True}, "a") == ({**chat, "exact": True}, [])


@pytest.mark.parametrize(
    "who", ["ann", "user-12345678", "0f8fad5b-d9cb-469f-a165-70867728950e", "123456", "x" * 256]
)
def test_other_users_stay_who_they_are(who: str) -> None:
    assert opaque_id(who, "a") == who


def test_one_tool_that_cannot_be_sent_is_named_by_its_place() -> None:
    odd = {"type": "object", "anyOf": [{"required": ["a"]}]}
    made = make(OLD, tools=[*TOOLS, {"name": "odd", "input_schema": odd}])
    assert made.ignored == (f"tools[{len(TOOLS)}].input_schema",)
    assert made.chat["tools"][0]["input_schema"] == {"type": "object"}


def test_formats() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": False}
    made = make(NEW, effort="low", format={"type": "json_schema", "schema": schema})
    assert made.extra["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": schema},
    }
    asked = make(NEW, system="be kind", format={"type": "json_object"}).chat["system"]
    assert asked[0] == {"type": "text", "text": "be kind"}
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("mode", "schema"),
    [
        (Mode.FULL, {"type": "object", "additionalProperties": {"type": "string"}}),
        (Mode.REPLAY, {"type": "object", "additionalProperties": {"type": "string"}}),
        (Mode.REPLAY, {"type": "array", "items": {"type": "string"}}),
    ],
)
def test_a_schema_that_structured_output_cannot_say_is_put_into_words(mode: Mode, schema: Any) -> None:
    made = make(NEW, mode=mode, system="be kind", format={"type": "json_schema", "schema": schema})
    assert "output_config" not in made.extra
    kind, told = made.chat["system"]
    assert kind["text"] == "be kind" and told["text"].endswith(json.dumps(schema))


OPEN = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
CLOSED = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}


def strict_tools(*schemas: Any) -> list[dict[str, Any]]:
    return [{"name": f"t{n}", "input_schema": schema, "strict": True} for n, schema in enumerate(schemas)]


@pytest.mark.parametrize(
    ("tools", "strict", "loose"),
    [
        (strict_tools(CLOSED), [True], False),
        (strict_tools(CLOSED, OPEN), [True, False], False),
        (strict_tools(*[CLOSED] * 20), [True] * 20, False),
        (strict_tools(*[CLOSED] * 21), [False] * 21, False),
        (strict_tools(CLOSED), [False], True),
    ],
)
def test_tools_are_strict_where_the_api_can_be(tools: Any, strict: list[bool], loose: bool) -> None:
    chat = validate({"messages": [{"role": "user", "content": "x"}], "tools": tools})
    made = wish.make(chat, "m", NEW, mode=Mode.FULL, thoughtless=False, loose=loose)
    assert [tool.get("strict", False) for tool in made.chat["tools"]] == strict
    assert [tool["input_schema"] for tool in made.chat["tools"]] == [tool["input_schema"] for tool in tools]
    assert made.ignored == (() if all(strict) else ("tools.strict",))


def test_replay_names_what_it_cannot_carry() -> None:
    assert make(OLD, mode=Mode.REPLAY, temperature=0.5, stop_sequences=["x"]).ignored == (
        "temperature",
        "stop_sequences",
    )
