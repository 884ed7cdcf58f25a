"""An echo is recognised in whatever form it comes back, and an edit is not taken for one."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_daemon.request import chain
from ccd_daemon.request.history import turns

ANSWER = [
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "text", "text": "Let me see. "},
    {"type": "tool_use", "id": "toolu_1", "name": "get", "input": {"n": 1, "at": {"x": 2.5, "y": 3}}},
    {"type": "tool_use", "id": "toolu_2", "name": "get", "input": {"n": 2}},
]
QUESTION = [{"role": "user", "content": "How warm?"}]
RESULTS = [
    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "20"},
    {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "30"}]},
]


def links(messages: Any) -> list[str]:
    return chain.links(turns(messages))


def echoed(content: Any, results: Any = RESULTS) -> list[dict[str, Any]]:
    return [*QUESTION, {"role": "assistant", "content": content}, {"role": "user", "content": results}]


def renamed(content: Any) -> Any:
    return json.loads(json.dumps(content).replace("toolu_", "call-"))


def without(kind: str) -> list[dict[str, Any]]:
    return [block for block in ANSWER if block["type"] != kind]


ECHOES = {
    "as it was": echoed(ANSWER),
    "thinking dropped": echoed(without("thinking")),
    "calls renamed": echoed(renamed(ANSWER), renamed(RESULTS)),
    "results in another order": echoed(ANSWER, RESULTS[::-1]),
    "a message for each result": [
        *echoed(ANSWER)[:2],
        *({"role": "user", "content": [result]} for result in RESULTS),
    ],
    "numbers and keys as another library writes them": echoed(
        [*ANSWER[:2], {**ANSWER[2], "input": {"at": {"y": 3.0, "x": 2.5}, "n": 1.0}}, ANSWER[3]]
    ),
    "text stripped": echoed([{"type": "text", "text": "Let me see."}, *ANSWER[2:]]),
    "text after the calls": echoed([*ANSWER[2:], ANSWER[1]]),
    "cache marks": echoed(
        [*ANSWER[:3], {**ANSWER[3], "cache_control": {"type": "ephemeral"}}],
        [RESULTS[0], {**RESULTS[1], "cache_control": {"type": "ephemeral"}}],
    ),
    "question in parts": [
        {"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "warm?"}]},
        *echoed(ANSWER)[1:],
    ],
}


@pytest.mark.parametrize("name", ECHOES)
def test_an_echo_is_recognised(name: str) -> None:
    assert links(ECHOES[name]) == links(echoed(ANSWER))
    assert links(ECHOES[name])[1] == chain.after(links(QUESTION)[0], ANSWER)


EDITS = {
    "answer": echoed([{"type": "text", "text": "Let me look. "}, *ANSWER[2:]]),
    "arguments": echoed([*ANSWER[:3], {**ANSWER[3], "input": {"n": 3}}]),
    "tool": echoed([*ANSWER[:3], {**ANSWER[3], "name": "other"}]),
    "a call less": echoed(ANSWER[:3], RESULTS[:1]),
    "result": echoed(ANSWER, [RESULTS[0], {**RESULTS[1], "content": "31"}]),
    "results exchanged": echoed(ANSWER, [{**RESULTS[0], "content": "30"}, {**RESULTS[1], "content": "20"}]),
    "failure": echoed(ANSWER, [RESULTS[0], {**RESULTS[1], "is_error": True}]),
    "words beside the results": echoed(ANSWER, [*RESULTS, {"type": "text", "text": "so?"}]),
    "image": echoed(ANSWER, [RESULTS[0], {**RESULTS[1], "content": [{"type": "image", "source": {}}]}]),
    "question": [{"role": "user", "content": "How warm??"}, *echoed(ANSWER)[1:]],
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_not_taken_for_an_echo(name: str) -> None:
    assert links(EDITS[name])[-1] != links(echoed(ANSWER))[-1]


SAID = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6)


@given(ours=SAID, theirs=SAID)
def test_conversations_have_as_many_links_in_common_as_turns(ours: list[str], theirs: list[str]) -> None:
    roles = ("user", "assistant")
    both = [
        links([{"role": roles[at % 2], "content": text} for at, text in enumerate(said)])
        for said in (ours, theirs)
    ]
    same = 0
    for at, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        stripped = at % 2 == 1  # an answer's edges do not count
        if (one.strip() != other.strip()) if stripped else one != other:
            break
        same += 1
    assert [one == other for one, other in zip(*both, strict=False)] == [
        at < same for at in range(min(map(len, both)))
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", b"x"])
def test_what_has_no_json_form_has_no_link(value: Any) -> None:
    content = copy.deepcopy(ANSWER)
    content[2]["input"] = {"n": value}
    with pytest.raises((ValueError, TypeError)):
        links(echoed(content))
