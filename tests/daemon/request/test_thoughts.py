from __future__ import annotations

from typing import Any

from ccd_daemon.request.body import validate
from ccd_daemon.request.thoughts import Thoughts

THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]}


def chat(*content: dict[str, Any]) -> Any:
    return validate(
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": [*content]}, RESULT]}
    )


def test_thinking_comes_back_before_its_calls_for_its_own_tenant_only() -> None:
    thoughts = Thoughts()
    thoughts.keep("a", ["t1"], [THOUGHT])
    mine, others = chat(CALL), chat(CALL)
    assert not thoughts.restore("a", mine)
    assert mine["messages"][1]["content"] == [THOUGHT, CALL]
    assert thoughts.restore("b", others)
    assert others["messages"][1]["content"] == [CALL]


def test_a_history_that_has_its_thinking_or_no_open_calls_is_left_alone() -> None:
    thoughts = Thoughts()
    whole = chat(THOUGHT, CALL)
    assert not thoughts.restore("a", whole)
    assert whole["messages"][1]["content"] == [THOUGHT, CALL]
    plain = validate({"messages": [{"role": "user", "content": "q"}]})
    assert not thoughts.restore("a", plain)


def test_memory_is_bounded_and_the_least_used_goes_first() -> None:
    thoughts = Thoughts(max_bytes=1000)
    for number in range(20):
        thoughts.keep("a", [f"t{number}"], [THOUGHT])
    assert 0 < len(thoughts) < 6
    thoughts.keep("a", ["huge"], [{**THOUGHT, "thinking": "x" * 2000}])
    assert thoughts.restore("a", chat({**CALL, "id": "huge"}))
    assert not thoughts.restore("a", chat({**CALL, "id": "t19"}))
