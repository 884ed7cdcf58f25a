"""(f) The engine lane: many requests on few processes, and what each mode costs.

Floor of the rate: a spawn per request at the same concurrency, with the same lean flags. The conversations run over
the scriptable offline API, because half of them really call client tools; everything else over the instant API.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.measure import Figure, figure, single
from bench.stage import Bench, Endpoint, Stack, clean_environ, daemon_stack, instant_api, start, wait_until
from bench.turns import cold, through_socket
from ccd_client import Client

GROUP = "f engine"
_CONCURRENCY = 4
_TURNS = 3
_TOOL = {"name": "get_time", "description": "The time.", "input_schema": {"type": "object", "properties": {}}}


def run(bench: Bench) -> list[Figure]:
    """The rate against a spawn per request; conversations and processes; the three modes."""
    return [*_rate(bench), *_conversations(bench), *_modes(bench)]


def _rate(bench: Bench) -> list[Figure]:
    folder = bench.room("rate")
    count = bench.rounds(200, 60)
    with instant_api(folder) as api, daemon_stack(folder / "ccd", bench.cli, api) as stack:
        with Client(stack.socket) as client:
            wait_until(lambda: stack.status()["state"] == "ready", timeout_s=30)
            in_parallel(8, lambda index: _ask(client, "warm"))
            ours = count / in_parallel(count, lambda index: _ask(client, f"question {index}"))
            surplus = stack.status()["counters"]["surplus_calls"]
        spawns = max(8, count // 5)
        theirs = spawns / in_parallel(spawns, lambda index: cold(bench.cli, folder / "home", api))
    return [
        single(
            GROUP, f"a spawn per request, {_CONCURRENCY} at a time", "requests/s", theirs,
            note=f"{spawns} requests",
        ),
        single(
            GROUP, f"ccd, {count} independent requests, {_CONCURRENCY} at a time", "requests/s", ours,
            ratio=ours / theirs, floor="spawn per request", target="at least 6×, aim 8×",
            note=f"surplus API calls: {surplus}",
        ),
    ]  # fmt: skip


def _ask(client: Client, text: str) -> None:
    client.call("chat.complete", {"messages": [{"role": "user", "content": text}], "model": "haiku"})


def in_parallel(count: int, work: Callable[[int], object]) -> float:
    """Seconds for `count` calls, `_CONCURRENCY` at a time."""
    started = time.perf_counter()
    with ThreadPoolExecutor(_CONCURRENCY) as threads:
        for _ in threads.map(work, range(count)):
            pass
    return time.perf_counter() - started


def _conversations(bench: Bench) -> list[Figure]:
    folder = bench.room("conversations")
    count = bench.rounds(500, 60)
    processes: list[float] = []
    with (
        _offline_api(folder) as api,
        daemon_stack(folder / "ccd", bench.cli, api) as stack,
        Client(stack.socket) as client,
    ):

        def converse(index: int) -> None:
            _converse(client, index, with_tools=index % 2 == 0)
            processes.append(len(stack.processes()))

        took_s = in_parallel(count, converse)
    return [
        single(
            GROUP, f"{count} conversations of {_TURNS} turns, half with tools, {_CONCURRENCY} at a time", "processes",
            max(processes), target="at most 6", note=f"most at any time; {count * _TURNS / took_s:.1f} turns/s",
        )
    ]  # fmt: skip


def _converse(client: Client, index: int, *, with_tools: bool) -> None:
    """Three turns with the whole history each, as OpenAI clients send it; the second turn calls a tool."""
    messages: list[dict[str, Any]] = []
    options: dict[str, Any] = {"tools": [_TOOL]} if with_tools else {}
    for turn in range(_TURNS):
        directive = f'[[offline: {{"tool_calls": [{{"name": "get_time", "id": "toolu_{index}_{turn}"}}]}}]]'
        wants_tool = with_tools and turn == 1
        messages.append({"role": "user", "content": f"{index}/{turn} {directive if wants_tool else ''}"})
        answer = client.call("chat.complete", {"messages": messages, **options})
        messages.append({"role": "assistant", "content": answer["content"]})
        if wants_tool:
            (call,) = [block for block in answer["content"] if block["type"] == "tool_use"]
            result = {"type": "tool_result", "tool_use_id": call["id"], "content": "12:00"}
            messages.append({"role": "user", "content": [result]})
            answer = client.call("chat.complete", {"messages": messages, **options})
            messages.append({"role": "assistant", "content": answer["content"]})


@contextmanager
def _offline_api(folder: Path) -> Iterator[Endpoint]:
    running = start(["-m", "ccd_offline"], clean_environ(folder / "api"), folder / "api.log")
    try:
        yield Endpoint(json.loads(running.ready_line)["url"])
    finally:
        running.stop()


def _modes(bench: Bench) -> list[Figure]:
    """First delta of one tenant's repeated requests with the same system prompt, in each mode."""
    folder = bench.room("modes")
    rows = []
    with instant_api(folder) as api:
        for mode in ("full", "keep_system", "replay"):
            settings = {"CCD_ENGINE__BODY": mode}
            with (
                daemon_stack(folder / mode, bench.cli, api, **settings) as stack,
                Client(stack.socket) as client,
            ):
                samples = _first_deltas(stack, client, bench.rounds(15, 6))
            rows.append(figure(GROUP, f"first delta, mode {mode}", "ms", samples))
    return rows


def _first_deltas(stack: Stack, client: Client, rounds: int) -> list[float]:
    chat = {"messages": [{"role": "user", "content": "hello"}], "system": "be brief", "model": "haiku"}
    samples = []
    for _ in range(rounds):
        wait_until(lambda: _rested(stack), timeout_s=30, what="warm spares")
        samples.append(through_socket(client, chat).delta_ms)
    return samples


def _rested(stack: Stack) -> bool:
    """A worker is ready, and none is being started that would take the core from the one that answers."""
    states = [worker["state"] for worker in stack.workers()]
    return "ready" in states and not {"spawning", "warming", "draining"} & set(states)
