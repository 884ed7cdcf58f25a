"""(c) Time to the first text delta, and to the result, on every way to the real CLI; the API answers at once.

"Fresh" is the first turn of a process that was initialised before, "reused" a later turn of a process. Each way
through ccd is compared to a hand-driven process in the same state, started as ccd starts its own, which is sent
the same lines over the same pipes. The ways are measured in turns, in an order drawn anew each round, and only
while nothing else runs. An idle CLI tidies up its memory, which makes its first turn 10 to 20 ms slower, so all
fresh processes have been idle for at least two seconds. As the CLI's own time varies by more than ccd adds, what
ccd adds is measured once more without the CLI (`bench.added`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

from bench import added
from bench.measure import Figure, figure
from bench.stage import Bench, Endpoint, Stack, daemon_stack, instant_api, wait_until
from bench.turns import HandDriven, Http, Timing, cold, hand_driven, settled, through_socket
from ccd_client import Client

GROUP = "c first delta"
_SETTLE_S = 0.15
_PAUSE_S = 0.02  # a CLI goes on working for some milliseconds after its result
_IDLE_S = 2.0
#: Every lease gets a spare that has never answered: a worker is replaced after one turn.
_ALWAYS_FRESH = {"CCD_ENGINE__MAX_TURNS": "1", "CCD_POOL__SPARES": "1", "CCD_POOL__MAX_WORKERS": "2"}
#: The tenant's own worker is used again and again; resets are no part of a turn.
_ALWAYS_REUSED = {
    "CCD_ENGINE__RESET_TURNS": "100000",
    "CCD_ENGINE__MAX_TURNS": "100000",
    "CCD_POOL__SPARES": "1",
}

Ways = dict[str, Callable[[], Timing]]
Samples = dict[str, list[Timing]]


def run(bench: Bench) -> list[Figure]:
    """All ways, interleaved."""
    folder = bench.room("first-delta")
    with ExitStack() as held:
        api = held.enter_context(instant_api(folder))
        fresh = FreshWays(bench, held, api)
        reused = _reused_ways(bench, held, api)
        samples: Samples = {name: [] for name in (*fresh.ways, *reused)}
        rounds = bench.rounds(20, 4)
        for number in range(rounds):
            bench.say(f"round {number + 1} of {rounds}")
            fresh.prepare()
            idle_from = time.monotonic()
            while time.monotonic() < idle_from + _IDLE_S:
                _measure(bench, reused, samples, _PAUSE_S)
            _measure(bench, fresh.ways, samples, _SETTLE_S, fresh.wait_settled)
    return _figures(samples) + added.run(bench)


def _measure(
    bench: Bench, ways: Ways, samples: Samples, pause_s: float, before: Callable[[], None] | None = None
) -> None:
    for name in bench.random.sample(list(ways), len(ways)):
        if before is not None:
            before()
        time.sleep(pause_s)
        samples[name].append(ways[name]())


class FreshWays:
    """The ways to a process that has never answered; each used once per round."""

    def __init__(self, bench: Bench, held: ExitStack, api: Endpoint) -> None:
        folder = bench.folder / "first-delta"
        self._by_socket = held.enter_context(daemon_stack(folder / "s", bench.cli, api, **_ALWAYS_FRESH))
        self._by_gateway = held.enter_context(
            daemon_stack(folder / "g", bench.cli, api, gateway=True, **_ALWAYS_FRESH)
        )
        self._start = lambda: HandDriven(bench.cli, folder / "home", api)
        self._by_hand: dict[str, HandDriven] = {}
        self.ways: Ways = {
            "hand-driven, fresh": lambda: self._turn_of("fresh"),
            "hand-driven, unrehearsed": lambda: self._turn_of("unrehearsed"),
            "socket, fresh spare": _socket_way(held, self._by_socket),
            "gateway, fresh spare": _gateway_way(held, self._by_gateway),
            "cold claude -p": lambda: cold(bench.cli, folder / "home", api),
        }

    def prepare(self) -> None:
        """Start this round's hand-driven processes, and wait until the spares are there too."""
        for name in ("fresh", "unrehearsed"):
            self._by_hand[name] = self._start()
            self._by_hand[name].wait_ready(rehearse=name == "fresh")
        self.wait_settled()

    def wait_settled(self) -> None:
        """Wait until both daemons have their spare and nothing else."""
        wait_until(lambda: settled(self._by_socket, 1) and settled(self._by_gateway, 1), what="fresh spares")

    def _turn_of(self, name: str) -> Timing:
        process = self._by_hand.pop(name)
        try:
            return process.turn()
        finally:
            process.close()


def _reused_ways(bench: Bench, held: ExitStack, api: Endpoint) -> Ways:
    """The ways to a process that has answered before, used until they are warm."""
    folder = bench.folder / "first-delta"
    stack = held.enter_context(daemon_stack(folder / "r", bench.cli, api, gateway=True, **_ALWAYS_REUSED))
    hand = held.enter_context(hand_driven(bench.cli, folder / "home", api))
    http = Http(api.url)
    held.callback(http.close)
    ways: Ways = {
        "hand-driven, reused": hand.turn,
        "socket, reused": _socket_way(held, stack),
        "gateway, reused": _gateway_way(held, stack),
        "the API itself": http.api,
    }
    for way in ways.values():
        for _ in range(3):
            way()
    wait_until(lambda: settled(stack, 2), what="the reused daemon to be idle")
    return ways


def _socket_way(held: ExitStack, stack: Stack) -> Callable[[], Timing]:
    client = held.enter_context(Client(stack.socket))
    return lambda: through_socket(client)


def _gateway_way(held: ExitStack, stack: Stack) -> Callable[[], Timing]:
    http = Http(stack.url)
    held.callback(http.close)
    return http.gateway


def _figures(samples: dict[str, list[Timing]]) -> list[Figure]:
    cold_ms = statistics.median(timing.delta_ms for timing in samples["cold claude -p"])
    rows = [_row(samples, name) for name in ("the API itself", "cold claude -p", "hand-driven, unrehearsed")]
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
