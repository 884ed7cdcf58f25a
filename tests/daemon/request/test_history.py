from __future__ import annotations

from typing import Any

import pytest

from ccd_daemon.request import chain, history
from ccd_protocol.errors import Code, RpcError

CALL = {"type": "tool_use", "id": "c1", "name": "t", "input": {}}
OTHER = {"type": "tool_use", "id": "c2", "name": "t", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "r1"}
OTHERS = {"type": "tool_result", "tool_use_id": "c2", "content": "r2"}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": blocks[0] if isinstance(blocks[0], str) else list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {**user(*blocks), "role": "assistant"}


def test_neighbours_of_one_role_are_one_turn() -> None:
    found = history.turns([user("a"), user("b"), assistant(CALL, OTHER), user(OTHERS), user(RESULT)])  # type: ignore[list-item]
    assert [turn.role for turn in found] == ["user", "assistant", "user"]
    assert [block["text"] for block in found[0].blocks] == ["a", "b"]
    assert found[1].calls == ["c1", "c2"]
    assert found[2].results == {"c2": OTHERS, "c1": RESULT}


def test_what_is_missing_beside_other_results_is_said_to_be_missing() -> None:
    found = history.turns([user("a"), assistant(CALL, OTHER), user(OTHERS, {"type": "text", "text": "x"})])  # type: ignore[list-item]
    given = found[-1].results
    assert given["c2"] == OTHERS
    assert given["c1"]["is_error"] is True
    assert given["c1"]["content"] == history.NO_RESULT
    assert found[-1].blocks[-1] == {"type": "text", "text": "x"}


def test_a_system_note_among_the_messages_is_told_by_the_user_and_marked() -> None:
    note: Any = {"role": "system", "content": [{"type": "text", "text": "note"}]}
    empty: Any = {"role": "system", "content": []}
    found = history.turns([note, user("a"), empty, assistant("b"), note])  # type: ignore[list-item]
    assert [turn.role for turn in found] == ["user", "assistant", "user"]
    marked = "<system-reminder>\nnote\n</system-reminder>"
    assert [block["text"] for block in found[0].blocks] == [marked, "a"]
    assert [block["text"] for block in found[2].blocks] == [marked]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([user("a"), user(RESULT)], "messages[1].content"),  # a call that nobody made
        ([user("a"), assistant(CALL), user(RESULT), user(RESULT)], "messages[3].content"),  # twice
        ([user("a"), assistant(CALL), user(RESULT), assistant("b"), user(RESULT)], "messages[4].content"),
        ([user("a"), assistant(CALL), user("b"), assistant("c"), user("d")], "messages[2].content"),
        ([user("a"), assistant(CALL), user("b")], "messages"),  # no results at all
        ([user("a"), assistant(CALL), assistant(CALL), user(RESULT)], "messages[2].content"),
        ([user(CALL)], "messages[0].content"),
        ([user("a"), assistant(RESULT), user("b")], "messages[1].content"),
    ],
)
def test_a_history_that_contradicts_itself_is_refused(messages: Any, param: str) -> None:
    with pytest.raises(RpcError) as caught:
        history.turns(messages)
    assert caught.value.code is Code.BAD_PARAMS
    assert caught.value.data["param"] == param


def test_a_turn_of_thousands_of_messages_or_results_is_read_in_linear_time() -> None:
    """Each of these took minutes when every message had its whole turn looked at again."""
    count = 16_000
    calls = [{"type": "tool_use", "id": f"i{number}", "name": "t", "input": {}} for number in range(count)]
    results = [
        {"type": "tool_result", "tool_use_id": f"i{count - 1 - number}", "content": "x"}
        for number in range(count)
    ]
    asked: list[Any] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": calls}]
    whole = history.turns([*asked, {"role": "user", "content": results}])
    split = history.turns([*asked, *({"role": "user", "content": [result]} for result in results)])  # type: ignore[list-item]
    assert whole == split and len(whole[2].blocks) == count
    assert len(chain.links(whole)) == 3
