import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_daemon.request import body
from ccd_daemon.request.body import Wish
from ccd_protocol.errors import Code, RpcError

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def refused(params: object) -> RpcError:
    with pytest.raises(RpcError) as caught:
        body.engine_body(body.validate(params))
    assert caught.value.code is Code.BAD_PARAMS
    return caught.value


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ("text", ""),
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ""}], "exact": True}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "no type"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        (HELLO | {"nonsense": 1}, "nonsense"),
        (HELLO | {"max_tokens": "9"}, "max_tokens"),
        (HELLO | {"max_tokens": 0}, "max_tokens"),
        (HELLO | {"temperature": 1.5}, "temperature"),
        (HELLO | {"top_p": -0.1}, "top_p"),
        (HELLO | {"top_k": -1}, "top_k"),
        (HELLO | {"stop_sequences": ["a", ""]}, "stop_sequences[1]"),
        (HELLO | {"stop_sequences": "a"}, "stop_sequences"),
        (HELLO | {"model": ""}, "model"),
        (HELLO | {"model": "a\nb"}, "model"),
        (HELLO | {"model": "x" * 201}, "model"),
        (HELLO | {"tenant": "\x00"}, "tenant"),
    ],
)
def test_what_is_wrong_is_named(params: object, param: str) -> None:
    assert refused(params).data["param"] == param


def test_a_wrong_type_is_named_in_words_too() -> None:
    params = {"messages": [{"role": "user", "content": "x"}], "metadata": {}}
    assert refused({**params, "model": 5}).message == "model: Expected `str`, got `int`"
    deep = {"messages": [{"role": "user", "content": "x"}, {"role": 5, "content": "x"}]}
    assert refused(deep).message.startswith("messages[1].role: ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), b"bytes"])
def test_values_without_a_json_form_are_refused_before_anything_is_written(value: object) -> None:
    # The CLI would report success and send its own transcript instead.
    refused(HELLO | {"metadata": {"user_id": value}})


def test_the_body_is_what_the_client_asked_and_nothing_of_the_cli() -> None:
    chat = body.validate(
        HELLO | {"system": "be brief", "temperature": 0.5, "max_tokens": 9, "stop_sequences": ["x"]}
    )
    assert json.loads(body.engine_body(chat)) == {
        "system": [{"type": "text", "text": "be brief"}],
        "metadata": {},
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.5,
        "max_tokens": 9,
        "stop_sequences": ["x"],
    }
    assert json.loads(body.engine_body(body.validate(HELLO)))["system"] == []


@given(st.text(), st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.booleans(), st.none())))
def test_any_text_arrives_as_it_is(text: str, metadata: dict[str, object]) -> None:
    params = {"messages": [{"role": "user", "content": text or "x"}], "metadata": metadata}
    sent = json.loads(body.engine_body(body.validate(params)))
    assert sent["messages"] == params["messages"]
    assert sent["metadata"] == metadata


def lines(data: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in data.splitlines()]


def test_an_engine_turn_is_one_write_of_settings_and_a_dummy_line() -> None:
    script = body.engine_script(Wish(body.validate(HELLO), "haiku"), "r1", None)
    flags, user = lines(script.first)
    assert script.rest == ()
    settings = flags["request"]["settings"]  # type: ignore[index]
    assert settings["model"] == "haiku"
    variables = ("EXTRA_BODY", "DISABLE_THINKING", "EFFORT_LEVEL", "DISABLE_EXPERIMENTAL_BETAS")
    assert set(settings["env"]) == {
        f"CLAUDE_CODE_{name}" for name in variables
    }  # every time, for they stay set
    assert user["client_composed"] is True
    assert "hello" not in json.dumps(user)


@pytest.mark.parametrize(
    ("fields", "extra", "kept"),
    [
        ({}, {}, False),
        ({"exact": True}, {}, False),
        ({"exact": True}, {"context_management": {}}, True),
        ({"exact": True}, {"context_management": {}, "betas": ["own"]}, False),
        ({"exact": True, "messages": [*HELLO["messages"], {"role": "system", "content": "note"}]}, {}, True),
    ],
)
def test_the_clis_betas_go_where_a_request_needs_them(fields: Any, extra: Any, kept: bool) -> None:
    """With them the CLI sends whatever is refused a second time."""
    script = body.engine_script(Wish(body.validate({**HELLO, **fields}), "haiku", extra), "r1", None)
    env = lines(script.first)[0]["request"]["settings"]["env"]  # type: ignore[index]
    assert env["CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS"] == ("" if kept else "1")


LONG = "word " * 1000


@pytest.mark.parametrize(
    ("content", "marked"),
    [
        ("short", False),
        (LONG, True),
        ([{"type": "text", "text": LONG}, {"type": "text", "text": "x"}], True),
        ([{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}], True),
    ],
)
def test_a_long_conversation_is_marked_for_caching_on_its_last_block(content: object, marked: bool) -> None:
    sent = json.loads(body.engine_body(body.validate({"messages": [{"role": "user", "content": content}]})))
    assert ("cache_control" in json.dumps(sent["messages"][-1])) is marked
    assert json.dumps(sent).count("cache_control") <= 1


def test_the_clients_own_cache_marks_are_kept_and_never_made_more_than_four() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    blocks = [{"type": "text", "text": LONG, **mark} for _ in range(4)]
    chat = body.validate(
        {"messages": [{"role": "user", "content": blocks}, {"role": "user", "content": "and?"}]}
    )
    sent = json.loads(body.engine_body(chat))
    assert sent["messages"] == chat["messages"]
