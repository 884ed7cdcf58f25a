"""The one rule for histories: what the model API would refuse is mended and named, and nothing else is touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_offline import models
from ccd_offline.rules import validation
from ccd_protocol.chat.history import MISSING_RESULT, OPENING, is_sound, mended, original_id, turns_of
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import Message

Block = dict[str, Any]


def text(said: str) -> Block:
    return {"type": "text", "text": said}


def use(call_id: str, name: str = "f") -> Block:
    return {"type": "tool_use", "id": call_id, "name": name, "input": {}}


def result(call_id: str, said: str = "done") -> Block:
    return {"type": "tool_result", "tool_use_id": call_id, "content": said}


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}


def user(*content: Any) -> Message:
    return {
        "role": "user",
        "content": content[0] if content and isinstance(content[0], str) else list(content),
    }


def assistant(*content: Any) -> Message:
    return {**user(*content), "role": "assistant"}


def mend(*messages: Message, continued: bool = False) -> tuple[list[Message], list[str]]:
    before = copy.deepcopy(messages)
    found = mended(turns_of(messages), continued=continued)
    assert messages == before
    return found.messages, found.named


GOOD: list[list[Message]] = [
    [user("hi")],
    [user("hi"), user("there")],
    [user("hi"), assistant("hello"), assistant("again"), user("so")],
    [user("hi"), assistant(text("a"), use("x"), use("y")), user(result("y"), result("x"), text("so"))],
    [user("hi"), assistant(THOUGHT, text("a")), user(text("b"), text("c"))],
    [user("hi"), assistant("prefilled")],
]


@pytest.mark.parametrize("messages", GOOD)
def test_a_good_history_is_not_touched(messages: list[Message]) -> None:
    assert mend(*messages) == (messages, [])
    assert mend(*messages, continued=True) == (messages, [])


MENDED: dict[str, tuple[list[Message], list[Message], list[str]]] = {
    "stopped answers": (
        [
            user("a"),
            assistant(""),
            user("b"),
            assistant(" \n"),
            user("c"),
            assistant(),
            user("d"),
            assistant(text("")),
            user("e"),
        ],
        [user("a"), user("b"), user("c"), user("d"), user("e")],
        ["messages[1].content", "messages[3].content", "messages[5].content", "messages[7].content"],
    ),
    "stopped while it thought": (
        [user("a"), assistant(THOUGHT), user("b")],
        [user("a"), user("b")],
        ["messages[1].content"],
    ),
    "empty questions": (
        [user(""), assistant("hello"), user(text(" ")), user("b"), user("")],
        [user(OPENING), assistant("hello"), user("b")],
        ["messages[0].content", "messages[2].content", "messages[4].content"],
    ),
    "the assistant begins": (
        [assistant("Welcome!"), user("hi")],
        [user(OPENING), assistant("Welcome!"), user("hi")],
        [],
    ),
    "the assistant begins with a call": (
        [assistant(use("x")), user(result("x"))],
        [user(OPENING), assistant(use("x")), user(result("x"))],
        [],
    ),
    "ids that repeat over turns": (
        [user("a"), assistant(use("x")), user(result("x", "1")), assistant(use("x")), user(result("x", "2"))],
        [
            user("a"),
            assistant(use("x")),
            user(result("x", "1")),
            assistant(use("x--2")),
            user(result("x--2", "2")),
        ],
        [],
    ),
    "ids that repeat in a turn": (
        [user("a"), assistant(use("x", "f"), use("x", "g")), user(result("x", "1"), result("x", "2"))],
        [user("a"), assistant(use("x", "f"), use("x--2", "g")), user(result("x", "1"), result("x--2", "2"))],
        [],
    ),
    "ids that become equal": (
        [
            user("a"),
            assistant(use("x:1"), use("x.1"), use("x_1")),
            user(result("x_1", "3"), result("x.1", "2"), result("x:1", "1")),
        ],
        [
            user("a"),
            assistant(use("x_1"), use("x_1--2"), use("x_1--3")),
            user(result("x_1--3", "3"), result("x_1--2", "2"), result("x_1", "1")),
        ],
        [],
    ),
    "an id that looks as if it had been made": (
        [
            user("a"),
            assistant(use("x"), use("x"), use("x--2")),
            user(result("x--2", "3"), result("x", "1"), result("x", "2")),
        ],
        [
            user("a"),
            assistant(use("x"), use("x--3"), use("x--2")),
            user(result("x--2", "3"), result("x", "1"), result("x--3", "2")),
        ],
        [],
    ),
    "results with messages between them": (
        [
            user("a"),
            assistant(use("x"), use("y")),
            user(result("y")),
            user("an image"),
            user(result("x"), text("so")),
        ],
        [
            user("a"),
            assistant(use("x"), use("y")),
            user(result("y"), result("x"), text("an image"), text("so")),
        ],
        [],
    ),
    "a late result": (
        [user("a"), assistant(use("x")), user("hurry"), assistant("soon"), user(result("x")), user("so?")],
        [user("a"), assistant(use("x")), user(result("x"), text("hurry")), assistant("soon"), user("so?")],
        [],
    ),
    "calls in messages of their own": (
        [
            user("a"),
            assistant("look"),
            assistant(use("x")),
            assistant(use("y")),
            user(result("x")),
            user(result("y")),
        ],
        [user("a"), assistant(text("look"), use("x"), use("y")), user(result("x"), result("y"))],
        [],
    ),
    "no result": (
        [user("a"), assistant(use("x"), use("y")), user(result("y"), text("go on"))],
        [
            user("a"),
            assistant(use("x"), use("y")),
            user(result("y"), result("x", MISSING_RESULT), text("go on")),
        ],
        ["messages[1].content[0]"],
    ),
    "no result at all": (
        [user("a"), assistant(use("x"))],
        [user("a"), assistant(use("x")), user(result("x", MISSING_RESULT))],
        ["messages[1].content[0]"],
    ),
    "results after a text": (
        [user("a"), assistant(use("x")), user(text("here"), result("x"))],
        [user("a"), assistant(use("x")), user(result("x"), text("here"))],
        [],
    ),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_nobody_can_mend_afterwards_is_mended(name: str) -> None:
    given_, wanted, named = MENDED[name]
    assert mend(*given_) == (wanted, named)
    assert mend(*wanted) == (wanted, []), "once is enough"


REFUSED: list[tuple[list[Message], str]] = [
    ([], "messages"),
    ([assistant("")], "messages"),
    ([user("")], "messages[0].content"),
    ([user("a"), assistant("b"), user(text(" "))], "messages[2].content"),
    ([user(result("x"))], "messages[0].content[0].tool_use_id"),
    ([user("a"), assistant(use("x")), user(result("x"), result("x"))], "messages[2].content[1].tool_use_id"),
    ([user("a"), assistant(use("x")), user(result("z"))], "messages[2].content[0].tool_use_id"),
    ([user("a"), user(result("x")), assistant(use("x"))], "messages[1].content[0].tool_use_id"),
    ([user("a"), assistant(use("")), user("b")], "messages[1].content[0].id"),
]


@pytest.mark.parametrize(("messages", "param"), REFUSED)
def test_what_cannot_be_understood_is_refused_by_its_place(messages: list[Message], param: str) -> None:
    with pytest.raises(RpcError) as caught:
        mend(*messages)
    assert caught.value.code is Code.BAD_PARAMS
    assert caught.value.data == {"param": param}
    assert caught.value.message.startswith(param)


def test_a_continued_conversation_may_begin_with_anything() -> None:
    stored = [user(result("x"), text("so"))]
    assert mend(*stored, continued=True) == (stored, [])
    assert mend(assistant("I said"), user("so"), continued=True) == ([assistant("I said"), user("so")], [])
    with pytest.raises(RpcError):
        mend(assistant("I said"), user(result("x")), continued=True)


def test_the_id_before_it_was_made_unique() -> None:
    assert [original_id(call_id) for call_id in ("x", "x--2", "x--2--31", "x--y")] == [
        "x",
        "x",
        "x--2",
        "x--y",
    ]


def test_many_calls_of_the_same_id_take_no_longer_than_others() -> None:
    count = 20_000
    calls, results = [use("x") for _ in range(count)], [result("x", str(number)) for number in range(count)]
    messages, _ = mend(user("a"), assistant(*calls), user(*results))
    ids = [block["id"] for block in messages[1]["content"]]  # type: ignore[index]
    assert len(set(ids)) == count
    assert [block["tool_use_id"] for block in messages[2]["content"]] == ids  # type: ignore[index]


def test_many_words_after_a_result_take_no_longer_than_others() -> None:
    count = 50_000
    messages, _ = mend(user("a"), assistant(use("x")), user(result("x")), *(user("b") for _ in range(count)))
    assert len(messages) == 3 and len(messages[2]["content"]) == count + 1


ids = st.sampled_from(["x", "y", "x.1", "x:1", "x--2"])
block = st.one_of(
    st.sampled_from(["", " ", "hi"]).map(text),
    ids.map(use),
    st.tuples(ids, st.integers(0, 99).map(str)).map(lambda pair: result(*pair)),
)
content = st.sampled_from(["", " ", "hi"]) | st.lists(block, max_size=4)
message = st.builds(
    lambda role, said: {"role": role, "content": said}, st.sampled_from(["user", "assistant"]), content
)


def _fit(messages: list[Message]) -> list[Message]:
    """Only the user has results, and only the assistant calls: the readers see to that."""
    wrong = {"user": "tool_use", "assistant": "tool_result"}
    return [
        message
        if isinstance(message["content"], str)
        else {**message, "content": [b for b in message["content"] if b["type"] != wrong[message["role"]]]}
        for message in messages
    ]


@given(st.lists(message, max_size=8).map(_fit))
def test_the_api_takes_what_is_mended(messages: list[Message]) -> None:
    try:
        found, _ = mend(*messages)
    except RpcError as error:
        assert error.data["param"].startswith("messages")
        return
    if found[-1]["role"] == "assistant":
        found = [*found, user("go on")]
    validation.check({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": found})
    assert models.find("claude-sonnet-4-5") is not None
    said = [
        b["text"]
        for m in found
        if not isinstance(m["content"], str)
        for b in m["content"]
        if b["type"] == "text"
    ]
    said += [m["content"] for m in found if isinstance(m["content"], str)]
    wanted = [b.get("text") for m in messages if not isinstance(m["content"], str) for b in m["content"]]
    wanted += [m["content"] for m in messages if isinstance(m["content"], str)]
    assert sorted(t for t in said if t == "hi") == sorted(t for t in wanted if t == "hi"), (
        "every word arrives"
    )
    calls = [
        b
        for m in messages
        if not isinstance(m["content"], str)
        for b in m["content"]
        if b["type"] == "tool_use"
    ]
    made = [
        b for m in found if not isinstance(m["content"], str) for b in m["content"] if b["type"] == "tool_use"
    ]
    assert len(calls) == len(made)


@given(st.lists(message, max_size=8))
def test_what_is_called_sound_is_not_changed(messages: list[Message]) -> None:
    if is_sound(messages):
        assert mend(*messages) == (messages, [])


@pytest.mark.parametrize("messages", GOOD)
def test_good_histories_are_sound(messages: list[Message]) -> None:
    assert is_sound(messages)


@pytest.mark.parametrize("name", MENDED)
def test_what_is_to_be_mended_is_not_sound_and_afterwards_it_is(name: str) -> None:
    given_, wanted, _ = MENDED[name]
    assert not is_sound(given_) and is_sound(wanted)


@given(st.lists(message, max_size=8).map(_fit))
def test_mending_twice_changes_nothing(messages: list[Message]) -> None:
    try:
        found, _ = mend(*messages)
    except RpcError:
        return
    assert mend(*found) == (found, [])
