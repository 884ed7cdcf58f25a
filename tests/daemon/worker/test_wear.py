from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from ccd_daemon.worker.lifecycle import Event
from ccd_daemon.worker.wear import Wear, WearLimits, jittered, release_event
from ccd_protocol.methods import ChatResult, Usage

LIMITS = WearLimits(reset_turns=20, reset_input_tokens=1000, max_turns=100, max_age_s=3600)
FRESH = Wear(turns=1, turns_since_reset=1, input_tokens_since_reset=10)


@pytest.mark.parametrize(
    ("change", "age_s", "event"),
    [
        ({}, 1.0, Event.RELEASE),
        ({"turns_since_reset": 20}, 1.0, Event.RELEASE_RESET),
        ({"input_tokens_since_reset": 1000}, 1.0, Event.RELEASE_RESET),
        ({"tainted": True}, 1.0, Event.RELEASE_RESET),
        ({"over_soft_limit": True}, 1.0, Event.RELEASE_RETIRE),
        ({"turns": 100}, 1.0, Event.RELEASE_RETIRE),
        ({}, 3600.0, Event.RELEASE_RETIRE),
        ({"tainted": True, "over_soft_limit": True}, 1.0, Event.RELEASE_RETIRE),
    ],
)
def test_what_giving_back_means(change: dict[str, Any], age_s: float, event: Event) -> None:
    wear = replace(FRESH, **change)
    assert release_event(wear, LIMITS, age_s=age_s, reusable=True) is event
    assert release_event(wear, LIMITS, age_s=age_s, reusable=False) is Event.RELEASE_RETIRE


def result(api_calls: int = 1) -> ChatResult:
    usage = Usage(input_tokens=3, cache_creation_input_tokens=5, cache_read_input_tokens=7, output_tokens=100)
    return ChatResult(usage=usage, api_calls=api_calls)  # type: ignore[typeddict-item]


def test_turns_add_up_until_a_reset() -> None:
    wear = Wear()
    for _ in range(2):
        wear.turn_began()
        wear.turn_ended(result(), clean=True)
    assert (wear.turns, wear.turns_since_reset, wear.input_tokens_since_reset) == (2, 2, 30)
    assert not wear.tainted
    wear.forgot()
    assert (wear.turns, wear.turns_since_reset, wear.input_tokens_since_reset) == (2, 0, 0)


@pytest.mark.parametrize(("api_calls", "clean", "surplus"), [(1, False, 0), (3, True, 2)])
def test_a_failure_and_a_surplus_call_taint_until_a_reset(api_calls: int, clean: bool, surplus: int) -> None:
    wear = Wear()
    wear.turn_ended(result(api_calls), clean=clean)
    wear.turn_ended(result(), clean=True)
    assert wear.tainted
    assert wear.surplus_calls == surplus
    wear.forgot()
    assert not wear.tainted


def test_the_cost_of_a_turn_is_what_the_total_grew_by() -> None:
    wear = Wear()
    costs = [wear.cost_usd(total) for total in (0.25, 0.75, None, 0.5)]
    assert costs == [0.25, 0.5, 0.0, 0.0]
    wear.forgot()
    assert wear.cost_usd(0.125) == 0.125


def test_jitter_stays_within_a_tenth() -> None:
    values = [jittered(100, Random(seed)) for seed in range(50)]
    assert 90 <= min(values) < max(values) <= 110
