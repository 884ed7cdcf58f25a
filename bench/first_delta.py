"""(c) Time to the first text delta, and to the result, on every way to the real CLI; the API answers at once.

The ways are measured in turns, in an order drawn anew each round, and only while nothing else runs: the
daemon whose spares are used up has refilled them before the next measurement. "Fresh" is the first turn of
a process that was initialised before; "reused" a later turn of a process. Each way through ccd is compared
to the hand-driven process in the same state, which sends the same bytes over the same pipes. As the CLI's
own time varies by more than ccd adds, what ccd adds by itself is measured once more without the CLI
(`bench.added`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

from bench import added
from bench.measure import Figure, figure
from bench.stage import Bench, Stack, daemon_stack, instant_api, wait_until
from bench.turns import HandDriven, Http, Timing, cold, hand_driven, settled, through_socket
from ccd_client import Client

GROUP = "c first delta"
_SETTLE_S = 0.15
_PAUSE_S = 0.02  # a CLI goes on working for some milliseconds after its result
_SPARES = 2
#: Every lease gets a spare that has never answered: a worker is replaced after one turn.
_ALWAYS_FRESH = {"CCD_ENGINE__MAX_TURNS": "1", "CCD_POOL__SPARES": str(_SPARES), "CCD_POOL__MAX_WORKERS": "4"}
#: The tenant's own worker is used again and again; resets are no part of a turn.
_ALWAYS_REUSED = {
    "CCD_ENGINE__RESET_TURNS": "100000",
    "CCD_ENGINE__MAX_TURNS": "100000",
    "CCD_POOL__SPARES": "1",
}
_REUSED_PER_ROUND = 8

Ways = dict[str, Callable[[], Timing]]


def run(bench: Bench) -> list[Figure]:
    """All ways, interleaved."""
    folder = bench.room("first-delta")
    home = folder / "home"
    with ExitStack() as held:
        api = held.enter_context(instant_api(folder))
        fresh = held.enter_context(daemon_stack(folder / "f", bench.cli, api, gateway=True, **_ALWAYS_FRESH))
        reused = held.enter_context(
            daemon_stack(folder / "r", bench.cli, api, gateway=True, **_ALWAYS_REUSED)
        )
        hand = held.enter_context(hand_driven(bench.cli, home, api))
        fresh_ways: Ways = {
            "hand-driven, fresh": lambda: _fresh_by_hand(bench, held, home, api),
            "socket, fresh spare": _by_socket(held, fresh),
            "gateway, fresh spare": _by_gateway(held, fresh),
            "cold claude -p": lambda: cold(bench.cli, home, api),
        }
        reused_ways: Ways = {
            "hand-driven, reused": hand.turn,
            "socket, reused": _by_socket(held, reused),
            "gateway, reused": _by_gateway(held, reused),
            "the API itself": _api(held, api.url),
        }
        _warm_up(reused, reused_ways)
        samples = _rounds(bench, fresh, fresh_ways, reused_ways)
    return _figures(samples) + added.run(bench)


def _fresh_by_hand(bench: Bench, held: ExitStack, home: object, api: object) -> Timing:
    """The process of this round, started and initialised before the clock starts."""
    process = HandDriven(bench.cli, home, api)  # type: ignore[arg-type]
    try:
        process.wait_ready()
        time.sleep(2 * _SETTLE_S)
        return process.turn()
    finally:
        process.close()


def _by_socket(held: ExitStack, stack: Stack) -> Callable[[], Timing]:
    client = held.enter_context(Client(stack.socket))
    return lambda: through_socket(client)


def _by_gateway(held: ExitStack, stack: Stack) -> Callable[[], Timing]:
    http = Http(stack.url)
    held.callback(http.close)
    return http.gateway


def _api(held: ExitStack, url: str) -> Callable[[], Timing]:
    http = Http(url)
    held.callback(http.close)
    return http.api


def _warm_up(reused: Stack, ways: Ways) -> None:
    for way in ways.values():
        for _ in range(3):
            way()
    wait_until(lambda: settled(reused, 2), what="the reused daemon to be idle")


def _rounds(bench: Bench, fresh: Stack, fresh_ways: Ways, reused_ways: Ways) -> dict[str, list[Timing]]:
    found: dict[str, list[Timing]] = {name: [] for name in (*fresh_ways, *reused_ways)}
    rounds = bench.rounds(26, 6)
    for number in range(rounds):
        bench.say(f"round {number + 1} of {rounds}")
        for name in bench.random.sample(list(fresh_ways), len(fresh_ways)):
            wait_until(lambda: settled(fresh, _SPARES), what="fresh spares")
            time.sleep(_SETTLE_S)
            found[name].append(fresh_ways[name]())
        wait_until(lambda: settled(fresh, _SPARES), what="fresh spares")
        time.sleep(_SETTLE_S)
        for _ in range(_REUSED_PER_ROUND):
            for name in bench.random.sample(list(reused_ways), len(reused_ways)):
                time.sleep(_PAUSE_S)
                found[name].append(reused_ways[name]())
    return found


def _figures(samples: dict[str, list[Timing]]) -> list[Figure]:
    cold_ms = statistics.median(timing.delta_ms for timing in samples["cold claude -p"])
    rows = [_row(samples, "the API itself"), _row(samples, "cold claude -p")]
    for state, spare in (("fresh", "fresh spare"), ("reused", "reused")):
        hand = f"hand-driven, {state}"
        rows.append(_row(samples, hand, cold_ms))
        rows.append(_row(samples, f"socket, {spare}", cold_ms, hand, 2))
        rows.append(_row(samples, f"gateway, {spare}", cold_ms, hand, 5))
    return rows


def _row(
    samples: dict[str, list[Timing]],
    name: str,
    cold_ms: float | None = None,
    hand: str = "",
    within_ms: int = 0,
) -> Figure:
    deltas = [timing.delta_ms for timing in samples[name]]
    results = statistics.median(timing.result_ms for timing in samples[name])
    note, target = f"result after {results:.1f} ms", ""
    if hand:
        floor = [timing.delta_ms for timing in samples[hand]]
        added = statistics.median(deltas) - statistics.median(floor)
        paired = statistics.median(a - b for a, b in zip(deltas, floor, strict=True))
        note = f"{added:+.1f} ms to hand-driven (paired {paired:+.1f}); {note}"
        target = f"within {within_ms} ms of hand-driven; at most 0.4× cold"
    ratio = statistics.median(deltas) / cold_ms if cold_ms else None
    return figure(
        GROUP, name, "ms", deltas, ratio=ratio, floor="cold" if ratio else "", target=target, note=note
    )
