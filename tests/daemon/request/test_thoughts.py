"""Signed thinking is given back to the model that it is of, before the calls that it led to, and to nobody else."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ccd_daemon.request.body import validate
from ccd_daemon.request.thoughts import Signer, Thoughts, stem, thinks_in_its_past, without_thinking

THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
OTHER = {"type": "redacted_thinking", "data": "d"}
CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]}
FULL = "claude-sonnet-5-5"
SONNET = Signer("sonnet", FULL)


def chat(*content: dict[str, Any]) -> Any:
    return validate(
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": [*content]}, RESULT]}
    )


def restored(
    thoughts: Thoughts, *content: dict[str, Any], tenant: str = "a", asked: str | None = "sonnet"
) -> Any:
    """What the assistant says now, and whether its thinking is missing."""
    given = chat(*content)
    before = copy.deepcopy(given)
    found = thoughts.restore(tenant, asked, FULL if asked == "sonnet" else str(asked), given)
    assert given == before
    return found.chat["messages"][1]["content"], found.missing


def test_thinking_comes_back_before_its_calls_for_its_own_tenant_only() -> None:
    thoughts = Thoughts()
    thoughts.keep("a", SONNET, [THOUGHT, CALL])
    assert restored(thoughts, CALL) == ([THOUGHT, CALL], False)
    assert restored(thoughts, CALL, tenant="b") == ([CALL], True)


def test_thinking_is_the_models_that_thought_it() -> None:
    thoughts = Thoughts()
    thoughts.keep("a", SONNET, [THOUGHT, CALL])
    for same in (FULL, f"{FULL}[1m]", f"{FULL}-20261001"):
        assert restored(thoughts, CALL, asked=same) == ([THOUGHT, CALL], False)
    for other in ("claude-sonnet-5", "opus", None):
        assert restored(thoughts, CALL, asked=other) == ([CALL], True)
    thoughts.keep("a", Signer(None, "claude-opus-5-5"), [OTHER, CALL])
    assert restored(thoughts, CALL, asked="claude-opus-5-5") == ([OTHER, CALL], False)
    assert restored(thoughts, CALL) == ([THOUGHT, CALL], False)


def test_calls_of_the_same_id_are_told_apart_by_what_they_say() -> None:
    first, second = {**CALL, "input": {"n": 1}}, {**CALL, "input": {"n": 2.0, "m": [1.0, {}]}}
    thoughts = Thoughts()
    thoughts.keep("a", SONNET, [THOUGHT, first])
    thoughts.keep("a", SONNET, [OTHER, second])
    assert restored(thoughts, first) == ([THOUGHT, first], False)
    again = {
        **second,
        "id": "t1--2",
        "input": {"m": [1, {}], "n": 2},
    }  # made unique, and written by another program
    assert restored(thoughts, again)[0] == [OTHER, again]
    unknown = {**CALL, "input": {"n": 3}}
    assert restored(thoughts, unknown) == ([unknown], True)


def test_a_history_that_has_its_thinking_or_no_open_calls_is_left_alone() -> None:
    thoughts = Thoughts()
    assert restored(thoughts, THOUGHT, CALL) == ([THOUGHT, CALL], False)
    plain = validate({"messages": [{"role": "user", "content": "q"}]})
    assert thoughts.restore("a", None, "default", plain) == (plain, False)


def test_memory_is_bounded_and_the_least_used_goes_first() -> None:
    thoughts = Thoughts(max_bytes=1000)
    for number in range(20):
        thoughts.keep("a", SONNET, [THOUGHT, {**CALL, "id": f"t{number}"}])
    assert 0 < len(thoughts) < 6
    thoughts.keep("a", SONNET, [{**THOUGHT, "thinking": "x" * 2000}, {**CALL, "id": "huge"}])
    assert restored(thoughts, {**CALL, "id": "huge"})[1]
    assert not restored(thoughts, {**CALL, "id": "t19"})[1]


def test_the_same_id_for_ever_does_not_fill_the_memory() -> None:
    thoughts = Thoughts()
    for number in range(2000):
        thoughts.keep("a", SONNET, [THOUGHT, {**CALL, "input": {"n": number}}])
    last = {**CALL, "input": {"n": 1999}}
    assert restored(thoughts, last) == ([THOUGHT, last], False)
    assert restored(thoughts, {**CALL, "input": {"n": 1}})[1]


def test_a_history_without_its_thinking() -> None:
    given = chat(THOUGHT, CALL, OTHER)
    assert thinks_in_its_past(given)
    bare = without_thinking(given)
    assert bare["messages"][1]["content"] == [CALL] and not thinks_in_its_past(bare)
    alone = without_thinking(chat(THOUGHT))
    assert [message["role"] for message in alone["messages"]] == ["user", "user"]


@pytest.mark.parametrize(
    "name", ["claude-x-4", "claude-x-4-20250101", "claude-x-4-latest", "claude-x-4-20250101[1m]"]
)
def test_stems(name: str) -> None:
    assert stem(name) == "claude-x-4"
