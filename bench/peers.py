"""(h) ccd beside other servers, over the same Messages API on loopback, which answers at once.

LiteLLM's proxy calls that API itself; ccd and `claude-code-openai` drive the real CLI, the same one. All three run side
by side with their defaults and are asked in turns, in an order drawn anew for each round, and only one at a time.
Every request is a conversation that the server has not seen, but for the later turns, which bring the history of one
that it has just answered. `claude-code-openai` keeps a process for every conversation, some thirty of them in the end,
so the number of rounds is bounded by memory.
"""

from __future__ import annotations

import http.client
import json
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from time import perf_counter
from typing import Any, NamedTuple

from bench import peer_servers
from bench.measure import Figure, cpu_s, figure, interleaved, median_ratio, memory_bytes, single
from bench.peer_api import DELTAS, PACE_S, TEXT
from bench.peer_servers import CCD, BuildError, Server
from bench.side import Part
from bench.stage import Bench, Endpoint

GROUP = "h peers"
_AT_ONCE = 4
_PAUSE_S = 0.1  # a CLI goes on working for some milliseconds after its result
_DELTA = re.compile(rb'"content":\s*"Hello')
_PACED = "at a pace, please"
_LATER_TURNS = 3
_numbers = count(1)
_AHEAD = "ahead of claude-code-openai"
_TARGETS = {
    "first delta, a new conversation": _AHEAD,
    "first delta, its later turns": f"{_AHEAD}; at or below LiteLLM",
    "an answer that is not streamed": _AHEAD,
    f"the last first delta of {_AT_ONCE} at once": _AHEAD,
}

Samples = dict[str, list[float]]


class Answer(NamedTuple):
    """Milliseconds to the first text and to the end, and how many deltas came over how long a time."""

    delta_ms: float
    end_ms: float
    deltas: int
    spread_ms: float


def run(bench: Bench) -> list[Figure]:
    """Every way of asking, on every server."""
    folder = bench.room("peers")
    with ExitStack() as held:
        api_process = Part(folder, "peer_api")
        held.callback(api_process.stop)
        api = Endpoint(api_process.ready_line)
        starts = (peer_servers.ccd, peer_servers.claudegate, peer_servers.litellm)
        servers = [server for start in starts if (server := started(bench, held, start(bench, folder, api)))]
        for server in servers:
            for _ in range(2):
                _stream(server, [_user()])
        found = _first_deltas(bench, servers) + _whole(bench, servers) + _at_once(bench, servers)
        found += _paced(bench, servers)
        found += [_memory(server) for server in servers]
    return found


def started(bench: Bench, held: ExitStack, start: AbstractContextManager[Server]) -> Server | None:
    """A server that listens; None for one that cannot be installed here, which is said."""
    try:
        return held.enter_context(start)
    except BuildError as error:
        bench.say(f"NOT MEASURED: {error}")
        return None


def _user(text: str = "hello") -> dict[str, str]:
    return {"role": "user", "content": f"{text} ({next(_numbers)})"}


def _first_deltas(bench: Bench, servers: list[Server]) -> list[Figure]:
    later: Samples = {server.name: [] for server in servers}

    def turns(server: Server) -> float:
        messages = [_user()]
        first = _stream(server, messages)
        for _ in range(_LATER_TURNS):
            time.sleep(_PAUSE_S)
            messages += [{"role": "assistant", "content": TEXT}, _user("and then?")]
            later[server.name].append(_stream(server, messages).delta_ms)
        return first.delta_ms

    fresh = _in_turns(bench, servers, turns, bench.rounds(8, 3))
    return _rows("first delta, a new conversation", fresh) + _rows("first delta, its later turns", later)


def _in_turns(bench: Bench, servers: list[Server], ask: Callable[[Server], float], rounds: int) -> Samples:
    def way(server: Server) -> Callable[[], float]:
        def once() -> float:
            time.sleep(_PAUSE_S)
            return ask(server)

        return once

    return interleaved(rounds, {server.name: way(server) for server in servers}, bench.random)


def _rows(name: str, samples: Samples) -> list[Figure]:
    """ccd beside each peer: lower is better, and the ratio is of ccd to the peer in the same rounds."""
    rows = [figure(GROUP, f"{name}: {CCD}", "ms", samples[CCD], target=_TARGETS[name])]
    for peer in [name for name in samples if name != CCD]:
        ratio = median_ratio(samples[CCD], samples[peer])
        rows.append(
            figure(GROUP, f"{name}: {peer}", "ms", samples[peer], note=f"ccd takes {ratio:.2f}× as long")
        )
    return rows


def _whole(bench: Bench, servers: list[Server]) -> list[Figure]:
    samples = _in_turns(bench, servers, _complete, bench.rounds(6, 3))
    return _rows("an answer that is not streamed", samples)


def _at_once(bench: Bench, servers: list[Server]) -> list[Figure]:
    def ask(server: Server) -> float:
        time.sleep(10 * _PAUSE_S)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            answers = list(threads.map(lambda _: _stream(server, [_user()]), range(_AT_ONCE)))
        return max(answer.delta_ms for answer in answers)

    return _rows(
        f"the last first delta of {_AT_ONCE} at once", _in_turns(bench, servers, ask, bench.rounds(2, 1))
    )


def _paced(bench: Bench, servers: list[Server]) -> list[Figure]:
    """CPU of each server for a delta, without the CLI's; and whether the deltas come when they are made."""
    spreads: Samples = {server.name: [] for server in servers}

    def ask(server: Server) -> float:
        before = _cpu_s(server)
        answer = _stream(server, [_user(_PACED)])
        if answer.deltas != DELTAS:
            raise RuntimeError(f"{server.name} sent {answer.deltas} of {DELTAS} deltas")
        spreads[server.name].append(answer.spread_ms)
        return 1e6 * (_cpu_s(server) - before) / DELTAS

    samples = _in_turns(bench, servers, ask, bench.rounds(3, 2))
    made_ms = 1000 * PACE_S * (DELTAS - 1)
    return [
        figure(
            GROUP, f"a delta, {DELTAS} at {1000 * PACE_S:.0f} ms: {name}", "µs CPU", values,
            note=f"with its request, without the CLI; over {statistics.median(spreads[name]):.0f} of {made_ms:.0f} ms",
        )
        for name, values in samples.items()
    ]  # fmt: skip


def _cpu_s(server: Server) -> float:
    return sum(map(cpu_s, server.own()))


def _memory(server: Server) -> Figure:
    tree, own = server.tree(), set(server.own())
    total = sum(memory_bytes(pid)[1] for pid in tree) / 1e6
    mine = sum(memory_bytes(pid)[1] for pid in tree if pid in own) / 1e6
    others = len([pid for pid in tree if pid not in own])
    return single(
        GROUP, f"memory after all of this: {server.name}", "MB PSS", total,
        note=f"without the CLI {mine:.0f} MB; {others} other processes",
    )  # fmt: skip


def _stream(server: Server, messages: list[dict[str, str]]) -> Answer:
    """Ask for a streamed answer and read it to its end."""
    connection, response, started = _post(server, {"model": "sonnet", "messages": messages, "stream": True})
    came: list[float] = []
    ended = False
    for line in response:
        if _DELTA.search(line):
            came.append(1000 * (perf_counter() - started))
        ended = ended or line.startswith(b"data: [DONE]")
    end_ms = 1000 * (perf_counter() - started)
    connection.close()
    if not came or not ended:
        raise RuntimeError(f"{server.name} did not answer as expected")
    return Answer(came[0], end_ms, len(came), came[-1] - came[0])


def _complete(server: Server) -> float:
    """Ask for a whole answer; milliseconds."""
    connection, response, started = _post(server, {"model": "sonnet", "messages": [_user()]})
    answer = json.loads(response.read())
    took_ms = 1000 * (perf_counter() - started)
    connection.close()
    if answer["choices"][0]["message"]["content"] != TEXT:
        raise RuntimeError(f"{server.name} answered {answer}")
    return took_ms


def _post(
    server: Server, request: dict[str, Any]
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse, float]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=120)
    connection.connect()
    started = perf_counter()
    headers = {"Content-Type": "application/json", **server.headers}
    connection.request("POST", "/v1/chat/completions", json.dumps(request).encode(), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{server.name}: {response.status} {response.read()!r}")
    return connection, response, started
