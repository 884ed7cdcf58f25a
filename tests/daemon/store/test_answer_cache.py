"""The store of answers: what is told apart, and what bounds it."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ccd_daemon.config import CacheSettings as Settings
from ccd_daemon.store.answer_cache import MAX_CALL_BYTES, AnswerCache, key_of
from ccd_protocol.methods import ChatParams

SCENE = ("chat", "sonnet", None, "full", "2.1.330")
WHOLE: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": [{"type": "text", "text": "c", "citations": None}]},
        {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://a/b"}}]},
    ],
    "profile": "chat",
    "model": "sonnet",
    "system": [{"type": "text", "text": "be brief"}],
    "max_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 3,
    "stop_sequences": ["x", "y"],
    "metadata": {"user_id": "u"},
    "service_tier": "standard_only",
    "tools": [{"name": "t", "description": "d", "input_schema": {"type": "object", "properties": {"p": {}}}}],
    "tool_choice": {"type": "tool", "name": "t"},
    "effort": "low",
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "format": {"type": "json_schema", "schema": {"type": "object", "required": ["a", "b"]}},
    "fallback_model": "haiku",
    "strict": True,
}


def key(chat: dict[str, Any], tenant: str = "t", scene: tuple[str | None, ...] = SCENE) -> bytes | None:
    return key_of(tenant, scene, ChatParams(**chat))  # type: ignore[typeddict-item]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value inside of another."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [found for name, item in inner for found in [(*path, name), *places(item, (*path, name))]]


def changed(chat: dict[str, Any], path: tuple[Any, ...], value: Any, *, remove: bool) -> dict[str, Any]:
    other = copy.deepcopy(chat)
    holder: Any = other
    for name in path[:-1]:
        holder = holder[name]
    if remove:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return other


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def strictly_equal(one: Any, other: Any) -> bool:
    """Equality that tells 1, 1.0 and True apart, -0.0 and 0.0, and the order of keys."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(strictly_equal(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(strictly_equal, one, other))
    return repr(one) == repr(other)


@given(st.sampled_from(places(WHOLE)), json_values, st.booleans())
def test_chats_that_differ_in_anything_never_share_a_key(
    path: tuple[Any, ...], value: Any, remove: bool
) -> None:
    other = changed(WHOLE, path, value, remove=remove)
    assert (key(other) == key(WHOLE)) is strictly_equal(other, WHOLE)


@given(
    st.lists(st.text(max_size=4), min_size=1, max_size=4),
    st.lists(st.text(max_size=4), min_size=1, max_size=4),
)
def test_pieces_of_text_do_not_run_into_each_other(one: list[str], other: list[str]) -> None:
    def chat(pieces: list[str]) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": piece} for piece in pieces]}

    assert (key(chat(one)) == key(chat(other))) is (one == other)
    assert (key(chat(["q"]), tenant="".join(one)) == key(chat(["q"]), tenant="".join(other))) is (
        "".join(one) == "".join(other)
    )


def test_every_parameter_of_a_chat_counts() -> None:
    """A parameter that is added to the wire later is part of the key without anybody's thinking of it."""
    names = set(ChatParams.__annotations__) - {"tenant", "conversation_id", "cache"}
    plain = {"messages": WHOLE["messages"]}
    assert len({key({**plain, name: "x"}) for name in names}) == len(names)
    assert key({**plain, "conversation_id": "a", "tenant": "b"}) == key(plain)
    assert key({**plain, "cache": {"key": "k"}}) != key({**plain, "cache": {"key": "l"}})
    assert key({**plain, "cache": {"key": "k", "max_age_s": 0.0}}) == key({**plain, "cache": {"key": "k"}})


def test_tenant_and_scene_count_and_the_order_of_parameters_does_not() -> None:
    assert key(WHOLE, tenant="a") != key(WHOLE, tenant="b")
    for index in range(len(SCENE)):
        assert key(WHOLE, scene=(*SCENE[:index], "other", *SCENE[index + 1 :])) != key(WHOLE)
    assert key(dict(reversed(WHOLE.items()))) == key(WHOLE)


def cache(**settings: Any) -> AnswerCache:
    return AnswerCache(Settings(enabled=True, **settings))


def test_an_answer_is_given_again_until_it_is_too_old() -> None:
    store = cache(ttl_s=10.0)
    store.put(b"a", {"text": "x"}, 100.0)
    assert store.get(b"a", 109.9) == {"text": "x"}
    assert store.get(b"b", 109.9) is None
    assert store.get(b"a", 105.0, max_age_s=4.0) is None
    assert store.get(b"a", 105.0, max_age_s=5.0) is not None
    assert store.stats(105.0)["total_hits"] == 2
    assert store.get(b"a", 110.0) is None
    assert store.stats(110.0)["total_entries"] == 0


def test_every_caller_gets_a_copy_of_its_own() -> None:
    store = cache()
    store.put(b"a", {"content": [{"text": "x"}]}, 0.0)
    first = store.get(b"a", 0.0)
    assert first is not None
    first["content"][0]["text"] = "changed"
    assert store.get(b"a", 0.0) == {"content": [{"text": "x"}]}


def test_the_oldest_goes_first_when_there_are_too_many() -> None:
    store = cache(max_entries=2)
    for number, name in enumerate((b"a", b"b", b"a", b"c")):
        store.put(name, {"n": number}, float(number))
    assert store.get(b"b", 4.0) is None
    assert (store.get(b"a", 4.0), store.get(b"c", 4.0)) == ({"n": 2}, {"n": 3})


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000)), max_size=60))
def test_bytes_and_entries_are_bounded_whatever_is_put(puts: list[tuple[int, int]]) -> None:
    store = cache(max_entries=5, max_bytes=6000)
    for now_s, (name, size) in enumerate(puts):
        store.put(bytes([name]), {"text": "x" * size}, float(now_s))
        stats = store.stats(float(now_s))
        assert stats["total_entries"] <= 5 and stats["total_bytes"] <= 6000
    for name in range(10):
        store.put(
            bytes([name]), {"text": "x" * 7000}, 100.0
        )  # too large to be kept, and in place of what was
    assert store.stats(100.0) == {"enabled": True, "total_entries": 0, "total_hits": 0, "total_bytes": 0}


def test_without_room_or_time_there_is_no_cache() -> None:
    assert cache().enabled
    assert not AnswerCache(Settings()).enabled
    assert not cache(max_entries=0).enabled
    assert not cache(ttl_s=0.0).enabled


def test_a_huge_call_has_no_key() -> None:
    assert key({"messages": [{"role": "user", "content": "x" * (MAX_CALL_BYTES + 1)}]}) is None
