"""What is written to a process that has heard nothing, a part, or waits for results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_daemon.claude.login import Mode
from ccd_daemon.request import body, chain, replay, wish
from ccd_daemon.request.body import Script, Wish
from ccd_daemon.request.replay import Knobs, Standing
from ccd_protocol.errors import RpcError

U1, A1, U2 = (
    {"role": "user", "content": "u1"},
    {"role": "assistant", "content": "a1"},
    {"role": "user", "content": "u2"},
)
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("get", "put")]
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "get", "input": {}}]}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "r"}]}


def asked(*messages: Any, **more: Any) -> Wish:
    chat = body.validate({"messages": list(messages), **more})
    return wish.make(chat, more.get("model"), wish.Abilities(), mode=Mode.REPLAY, thoughtless=False)


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def written(made: Wish, standing: Standing | None = None) -> Script:
    return replay.script(made, replay.talk(made, "t"), "r1", standing or Standing())


def test_a_history_waits_for_every_past_user_line() -> None:
    script = written(asked(U1, A1, U2, {"role": "user", "content": "/clear @file"}, system="s", max_tokens=7))
    first = lines(script.first)
    assert [line["type"] for line in first] == ["control_request", "control_request", "user"]
    assert first[0]["request"] == {"subtype": "initialize", "systemPrompt": ["s"]}
    assert first[1]["request"]["settings"]["env"]["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "7"
    assert first[2]["shouldQuery"] is False
    (last,) = [lines(step) for step in script.rest]
    assert [line["type"] for line in last] == ["assistant", "user"]
    assert "shouldQuery" not in last[1]
    assert last[1]["client_composed"] is True
    assert [block["text"] for block in last[1]["message"]["content"]] == ["u2", "/clear @file"]


def test_a_process_that_has_heard_the_beginning_is_told_the_rest_alone() -> None:
    made = asked(U1, A1, U2, model="sonnet")
    conversation = replay.talk(made, "t")
    place = conversation.root + chain.after(conversation.links[0], [{"type": "text", "text": "a1"}])
    assert conversation.places == [place]
    script = replay.script(made, conversation, "r1", Standing(place, knobs=Knobs(max_tokens=9)))
    flags, user = lines(script.first)
    assert flags["request"]["settings"]["env"]["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == ""  # it would stay
    assert "model" not in flags["request"]["settings"]  # it would be mentioned to the model
    assert user["message"]["content"] == "u2"
    assert script.rest == ()
    same = replay.script(made, conversation, "r1", Standing(place, knobs=script.knobs))  # type: ignore[arg-type]
    assert [line["type"] for line in lines(same.first)] == ["user"]  # what is in force is not set again
    assert lines(written(made).first)[1]["request"]["settings"]["model"] == "sonnet"


def test_results_are_given_to_the_calls_that_wait_for_them() -> None:
    made = asked(U1, CALLED, RESULT, tools=TOOLS)
    conversation = replay.talk(made, "t")
    place = conversation.parked_place
    assert place == conversation.places[0]
    script = replay.script(made, conversation, "r1", Standing(place, parked=True, knobs=Knobs()))
    assert script.first == b""
    assert script.results == ({"content": [{"type": "text", "text": "r"}]},)


@pytest.mark.parametrize(
    "last",
    [
        {"role": "user", "content": [*RESULT["content"], {"type": "text", "text": "and?"}]},
        {"role": "user", "content": [{**RESULT["content"][0], "content": "x" * 50_000}]},  # type: ignore[dict-item]
    ],
)
def test_what_a_waiting_call_cannot_be_given_is_typed_in(last: Any) -> None:
    made = asked(U1, CALLED, last, tools=TOOLS)
    conversation = replay.talk(made, "t")
    assert conversation.parked_place is None
    script = replay.script(made, conversation, "r1", Standing())
    assert lines(script.rest[-1])[-1]["message"]["content"] == last["content"]
    assert script.results is None


def test_whose_it_is_and_what_cannot_be_changed_make_the_root() -> None:
    base = asked(U1, system="s", tools=TOOLS, model="m")
    root = replay.talk(base, "tenant", "profile").root
    assert (
        replay.talk(asked(U1, A1, U2, system="s", tools=TOOLS, model="m"), "tenant", "profile").root == root
    )
    others = [
        replay.talk(base, "other", "profile"),
        replay.talk(base, "tenant", "other"),
        replay.talk(asked(U1, system="x", tools=TOOLS, model="m"), "tenant", "profile"),
        replay.talk(asked(U1, system="s", tools=TOOLS[:1], model="m"), "tenant", "profile"),
        replay.talk(asked(U1, system="s", tools=TOOLS, model="x"), "tenant", "profile"),
    ]
    assert len({root, *(other.root for other in others)}) == 6


def test_tools_are_chosen_by_publishing_fewer_and_the_rest_is_words() -> None:
    def chosen(choice: Any) -> tuple[list[str], str, tuple[str, ...]]:
        made = asked(U1, system="s", tools=TOOLS, tool_choice=choice)
        names = [tool["name"] for tool in made.chat.get("tools", [])]
        return names, " ".join(body.system_texts(made.chat.get("system"))), made.ignored

    assert chosen({"type": "auto"}) == (["get", "put"], "s", ())
    assert chosen({"type": "none"}) == ([], "s", ())
    names, system, ignored = chosen({"type": "tool", "name": "put"})
    assert (names, ignored) == (["put"], ("tool_choice",))
    assert "must call the tool put" in system
    names, system, ignored = chosen({"type": "any", "disable_parallel_tool_use": True})
    assert names == ["get", "put"]
    assert ignored == ("tool_choice", "tool_choice.disable_parallel_tool_use")


def test_a_prefilled_answer_is_refused() -> None:
    with pytest.raises(RpcError) as caught:
        replay.talk(Wish(body.validate({"messages": [U1, A1]}), None), "t")
    assert caught.value.data["param"] == "messages[1].role"


@pytest.mark.parametrize("value", [float("nan"), "\ud800", b"x"])
def test_a_value_without_a_json_form_is_refused(value: Any) -> None:
    call = {**CALLED["content"][0], "input": {"x": value}}  # type: ignore[dict-item]
    made = asked(U1, {"role": "assistant", "content": [call]}, RESULT, tools=TOOLS)
    with pytest.raises(RpcError) as caught:
        replay.talk(made, "t")
    assert caught.value.data["param"] == "messages"


def test_thinking_is_asked_for_by_its_own_knobs() -> None:
    made = asked(U1, thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=4000)
    subtypes = [line["request"] for line in lines(written(made).first)[:3]]
    assert subtypes[1]["settings"]["env"]["CLAUDE_CODE_DISABLE_THINKING"] == ""
    assert subtypes[2] == {"subtype": "set_max_thinking_tokens", "max_thinking_tokens": 2000}
    assert (
        lines(written(asked(U1)).first)[1]["request"]["settings"]["env"]["CLAUDE_CODE_DISABLE_THINKING"]
        == "1"
    )
