"""What the gateway tells the daemon's cache about a request, and the client about its answer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_gateway.answer.caching import MAX_BYTES, digest
from fakes.gateway_daemon import Call, Daemon
from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import USER, Gateway

BODY: dict[str, Any] = {
    "model": "sonnet",
    "messages": [
        {"role": "system", "content": "be brief", "name": "s"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://a/b", "detail": "low"}}],
        },
    ],
    "n": 2,
    "seed": 7,
    "logit_bias": {"50256": -100.0},
    "metadata": {"a": "b"},
    "unknown_to_all": {"x": [1, 1.0, True, None, "1"]},
}
SURFACES = [
    ("/v1/chat/completions", {"model": "sonnet", "messages": USER}),
    ("/v1/responses", {"model": "sonnet", "input": "hi", "store": False}),
    ("/api/claude-code", {"prompt": "hi", "options": {"model": "sonnet"}}),
]


def decoded(fields: dict[str, Any]) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(fields))  # type: ignore[no-any-return]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [found for name, item in inner for found in [(*path, name), *places(item, (*path, name))]]


json_values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(places(BODY)), json_values)
def test_requests_that_differ_in_anything_have_digests_of_their_own(
    path: tuple[Any, ...], value: Any
) -> None:
    other = copy.deepcopy(BODY)
    holder: Any = other
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    same = msgspec.json.encode(other) == msgspec.json.encode(BODY)
    assert (digest("/", decoded(other)) == digest("/", decoded(BODY))) is same
    del holder[path[-1]]
    assert digest("/", decoded(other)) != digest("/", decoded(BODY))


def test_surfaces_do_not_share_and_absent_is_null() -> None:
    assert digest("/a", BODY) != digest("/b", BODY)
    assert digest("/a", dict(reversed(BODY.items()))) == digest("/a", {**BODY, "user": None})


def cached(daemon: Daemon, *words: str) -> list[dict[str, Any]]:
    """Let whole answers say these words, one after the other; what the calls ask of the cache."""
    whole, said = daemon.scripts["chat.complete"], list(words)
    uses: list[dict[str, Any]] = []

    async def answer(call: Call) -> Any:
        uses.append(call.params["cache"])
        return {**await whole(call), "cache": said.pop(0)}

    daemon.scripts["chat.complete"] = answer
    return uses


@pytest.mark.parametrize(("path", "body"), SURFACES)
def test_every_surface_says_where_its_answer_comes_from(
    gateway: Gateway, daemon: Daemon, path: str, body: dict[str, Any]
) -> None:
    uses = cached(daemon, "miss", "hit", "bypass", "bypass", "hit")
    answers = [gateway.request("POST", path, body) for _ in range(2)]
    answers.append(gateway.request("POST", path, body, {"Cache-Control": "no-cache"}))
    answers.append(gateway.request("POST", path, body, {"Cache-Control": "max-age=5, No-Store"}))
    answers.append(gateway.request("POST", path, body, {"Cache-Control": "max-age=60"}))
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT", "BYPASS", "BYPASS", "HIT"]
    around = uses.pop(3)
    assert (around["max_age_s"], around["store"]) == (0.0, False)
    [key] = {use.pop("key") for use in uses}
    assert len(key) == 64
    assert uses == [{}, {}, {"max_age_s": 0.0}, {"max_age_s": 60.0}]


def test_a_huge_request_goes_past_the_cache() -> None:
    assert digest("/", {"messages": "x" * (MAX_BYTES // 2)}) is not None
    assert digest("/", {"messages": "x" * MAX_BYTES}) is None


def test_ids_and_times_are_never_another_answers(gateway: Gateway, daemon: Daemon) -> None:
    cached(daemon, "hit", "hit")
    first, second = gateway.chat().json, gateway.chat().json
    assert first["id"] != second["id"]
    assert first["choices"] == second["choices"] and first["usage"] == second["usage"]
    daemon.chat()
    cached(daemon, "hit", "hit")
    path, body = SURFACES[1]
    one, other = (gateway.request("POST", path, body).json for _ in range(2))
    assert one["id"] != other["id"] and one["output"][0]["id"] != other["output"][0]["id"]


def test_without_a_cache_nothing_is_said(gateway: Gateway, daemon: Daemon) -> None:
    assert "x-cache" not in gateway.chat().headers


def test_a_stream_does_not_ask_for_it(gateway: Gateway, daemon: Daemon) -> None:
    assert "x-cache" not in gateway.chat(stream=True).headers
    assert "cache" not in daemon.calls[-1][1]


def test_of_several_answers_each_has_its_own_place(gateway: Gateway, daemon: Daemon) -> None:
    for words, shown in (
        (("hit", "hit", "hit"), "HIT"),
        (("hit", "miss", "hit"), "MISS"),
        (("hit", "bypass", "miss"), "BYPASS"),
    ):
        uses = cached(daemon, *words)
        assert gateway.chat(n=3).headers["x-cache"] == shown
        assert len({use["key"] for use in uses}) == 3
        daemon.chat()


def test_stats_are_the_daemons(gateway: Gateway, daemon: Daemon) -> None:
    async def stats(call: Call) -> Any:
        return {"enabled": True, "total_entries": 3, "total_hits": 5, "total_bytes": 900}

    daemon.scripts["cache.stats"] = stats
    cache = gateway.request("GET", "/stats").json["cache"]
    assert (cache["enabled"], cache["total_entries"], cache["total_hits"]) == (True, 3, 5)


def test_a_hit_is_booked_as_a_request_that_used_nothing(daemon: Daemon, tmp_path: Path) -> None:
    files = {"keys_file": tmp_path / "keys.json", "usage_file": tmp_path / "usage.sqlite3"}
    token = add_key(files["keys_file"], tenant="team-1", usd_per_day=0.3, tokens_per_minute=1000)
    cached(daemon, "miss", "hit", "hit", "miss")
    paid = daemon.scripts["chat.complete"]

    async def costly(call: Call) -> Any:
        answer = await paid(call)
        return {**answer, "cost_usd": 0.0 if answer["cache"] == "hit" else 0.2}

    daemon.scripts["chat.complete"] = costly
    with Gateway(daemon.path, **files) as keyed:
        answers = [keyed.chat(headers=bearer(token)) for _ in range(5)]
        assert [answer.status for answer in answers] == [
            200,
            200,
            200,
            200,
            429,
        ]  # the second payment is the last
        assert answers[4].error["code"] == "insufficient_quota"
        left = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers[:4]]
    assert left[1] <= left[2] <= left[3]  # refilled meanwhile, and nothing taken by a hit
