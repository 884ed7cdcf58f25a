"""(r) Mode `replay`: ccd beside a spare that is driven by hand, and beside `claude-code-openai`.

The API answers at once. Each round every way has a new conversation with one client tool: its first answer, a second
turn, and a turn that calls the tool, whose result is then brought. ccd is asked at its socket, for the comparison with
the hand-driven process, and over HTTP, for the one with `claude-code-openai`. Before each conversation ccd and the
hand-driven process have a warm spare, as they would when nobody hurries.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from bench import peer_servers
from bench.hand_replay import PAUSE_S as _PAUSE_S
from bench.hand_replay import TOOL, hand_replay
from bench.measure import Figure, figure, interleaved, median_ratio, memory_bytes, single
from bench.peer_servers import CCD, CLAUDEGATE, Server
from bench.peers import started
from bench.side import Part
from bench.stage import Bench, Endpoint, wait_until
from bench.turns import MODEL
from ccd_client import Client

GROUP = "r replay"
_RAW, _SOCKET, _HTTP = "a spare driven by hand", f"{CCD} at its socket", f"{CCD} over HTTP"
_STEPS = ("first delta, a new conversation", "first delta, second turn", "first delta after a tool's result")
_TARGETS = ("at most 1.1 × the hand-driven", "at most 5 ms more", "at most 5 ms more")
_DELTA = re.compile(rb'"content":\s*"Hello')
_FUNCTION = {
    "type": "function",
    "function": {
        "name": TOOL["name"],
        "description": TOOL["description"],
        "parameters": TOOL["input_schema"],
    },
}
_numbers = count(1)
Steps = tuple[float, float, float]


def run(bench: Bench) -> list[Figure]:
    """The three steps on every way, then memory and the number of processes."""
    folder = bench.room("replay")
    with ExitStack() as held:
        api_process = Part(folder, "peer_api")
        held.callback(api_process.stop)
        api = Endpoint(api_process.ready_line)
        ccd = held.enter_context(peer_servers.ccd(bench, folder, api, CCD_ENGINE__BODY="replay"))
        peer = started(bench, held, peer_servers.claudegate(bench, folder, api))
        figures = _conversations(bench, folder, api, ccd, peer)
        figures += _independent(bench, [server for server in (ccd, peer) if server])
        return figures + _many(bench, ccd)


def _conversations(
    bench: Bench, folder: Path, api: Endpoint, ccd: Server, peer: Server | None
) -> list[Figure]:
    ways: dict[str, Callable[[], Steps]] = {
        _RAW: lambda: _by_hand(bench, folder, api),
        _SOCKET: lambda: _at_socket(ccd),
        _HTTP: lambda: _over_http(ccd, _spare_of(ccd)),
    }
    if peer is not None:
        ways[CLAUDEGATE] = lambda: _over_http(peer, None)
    found: dict[str, list[Steps]] = {name: [] for name in ways}

    def way(name: str) -> Callable[[], float]:
        def once() -> float:
            time.sleep(_PAUSE_S)
            found[name].append(ways[name]())
            return 0.0

        return once

    interleaved(bench.rounds(10, 3), {name: way(name) for name in ways}, bench.random)
    return [row for step in range(len(_STEPS)) for row in _rows(step, found)]


def _rows(step: int, found: dict[str, list[Steps]]) -> Iterator[Figure]:
    samples = {name: [steps[step] for steps in taken] for name, taken in found.items()}
    for name, values in samples.items():
        target = _TARGETS[step] if name == _SOCKET else ""
        note = f"at best {min(values):.1f}"
        if name == CLAUDEGATE:
            note += f"; {_HTTP} takes {median_ratio(samples[_HTTP], values):.2f}× as long"
        ratio = median_ratio(values, samples[_RAW]) if name != _RAW else None
        yield figure(
            GROUP, f"{_STEPS[step]}: {name}", "ms", values, ratio=ratio, floor=_RAW if ratio else "",
            target=target, note=note,
        )  # fmt: skip


def _by_hand(bench: Bench, folder: Path, api: Endpoint) -> Steps:
    with hand_replay(bench.cli, folder, api) as spare:
        time.sleep(_PAUSE_S)
        steps = []
        for ask, text in ((spare.first, "hello"), (spare.later, "and then?"), (spare.tool, "call a tool")):
            steps.append(ask(f"{text} ({next(_numbers)})" if text != "call a tool" else text))
            time.sleep(_PAUSE_S)
        return steps[0], steps[1], steps[2]


def _spare_of(ccd: Server) -> Callable[[], object]:
    """Waits until ccd has a spare and starts nothing."""
    assert ccd.socket is not None

    def ready() -> bool:
        with Client(ccd.socket) as client:
            rows = client.workers()["workers"]
        idle = any(row["state"] == "ready" and not row["turns"] for row in rows)
        return idle and not any(row["state"] in ("spawning", "warming", "draining") for row in rows)

    return lambda: wait_until(ready, timeout_s=60, what="a warm spare")


def _at_socket(ccd: Server) -> Steps:
    _spare_of(ccd)()
    assert ccd.socket is not None
    messages: list[dict[str, Any]] = []
    with Client(ccd.socket) as client:

        def ask(content: Any) -> tuple[float, list[dict[str, Any]]]:
            messages.append({"role": "user", "content": content})
            chat = {"messages": messages, "model": MODEL, "system": "You are brief.", "tools": [TOOL]}
            begun, delta_ms, kept = perf_counter(), 0.0, []
            with client.call_stream("chat.stream", chat) as stream:
                for payload in stream:
                    if not delta_ms and b'"text_delta"' in payload:
                        delta_ms = 1000 * (perf_counter() - begun)
                    kept.append(payload)
            lines = (json.loads(line) for line in b"".join(kept).splitlines())
            blocks = [b for line in lines if line["type"] == "assistant" for b in line["message"]["content"]]
            messages.append({"role": "assistant", "content": blocks})
            time.sleep(_PAUSE_S)
            return delta_ms, blocks

        first, _ = ask(f"hello ({next(_numbers)})")
        second, _ = ask(f"and then? ({next(_numbers)})")
        _, (call,) = ask("call a tool")
        third, _ = ask([{"type": "tool_result", "tool_use_id": call["id"], "content": "noon"}])
    return first, second, third


def _over_http(server: Server, ready: Callable[[], object] | None) -> Steps:
    if ready is not None:
        ready()
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You are brief."}]

    def ask(*said: dict[str, Any]) -> tuple[float, list[dict[str, Any]]]:
        messages.extend(said)
        delta_ms, text, calls = _streamed(server, messages)
        answer: dict[str, Any] = {"role": "assistant", "content": text or None}
        messages.append(answer | ({"tool_calls": calls} if calls else {}))
        time.sleep(_PAUSE_S)
        return delta_ms, calls

    first, _ = ask(_user(f"hello ({next(_numbers)})"))
    second, _ = ask(_user(f"and then? ({next(_numbers)})"))
    _, (call,) = ask(_user("call a tool"))
    third, _ = ask({"role": "tool", "tool_call_id": call["id"], "content": "noon"})
    return first, second, third


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _streamed(
    server: Server, messages: list[dict[str, Any]], *, tools: bool = True
) -> tuple[float, str, list[dict[str, Any]]]:
    """Milliseconds to the first text, the text, and the calls of one streamed answer."""
    request = {"model": MODEL, "messages": messages, "stream": True} | (
        {"tools": [_FUNCTION]} if tools else {}
    )
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=120)
    connection.connect()
    begun, delta_ms, text = perf_counter(), 0.0, ""
    calls: list[dict[str, Any]] = []
    headers = {"Content-Type": "application/json", **server.headers}
    connection.request("POST", "/v1/chat/completions", json.dumps(request).encode(), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{server.name}: {response.status} {response.read()!r}")
    for line in response:
        if not delta_ms and _DELTA.search(line):
            delta_ms = 1000 * (perf_counter() - begun)
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text += choice["delta"].get("content") or ""
                _collect(calls, choice["delta"].get("tool_calls") or ())
    connection.close()
    return delta_ms, text, calls


def _collect(calls: list[dict[str, Any]], pieces: Any) -> None:
    for piece in pieces:
        if piece.get("id"):
            function = {"name": "", "arguments": ""}
            calls.append({"id": piece["id"], "type": "function", "function": function})
        for key in ("name", "arguments"):
            calls[-1]["function"][key] += (piece.get("function") or {}).get(key) or ""


def _independent(bench: Bench, servers: list[Server]) -> list[Figure]:
    """Memory after requests that have nothing to do with each other."""
    requests, rows = bench.rounds(50, 10), []
    for server in servers:
        for _ in range(requests):
            _streamed(server, [_user(f"hello ({next(_numbers)})")], tools=False)
        tree = server.tree()
        total = sum(map(_pss_mb, tree))
        target = f"at most a quarter of {CLAUDEGATE}'s" if server.name == CCD else ""
        rows.append(
            single(
                GROUP, f"memory after {requests} independent requests: {server.name}", "MB PSS", total,
                target=target, note=f"{len(tree)} processes",
            )
        )  # fmt: skip
    return rows


def _pss_mb(pid: int) -> float:
    """Memory of a process, none of one that has ended meanwhile: a spare makes room for another."""
    try:
        return memory_bytes(pid)[1] / 1e6
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _many(bench: Bench, ccd: Server) -> list[Figure]:
    """The most processes at any time while conversations of three turns come and go, four side by side."""
    conversations = bench.rounds(200, 12)
    talks = [[_user(f"hello ({next(_numbers)})")] for _ in range(conversations)]
    with _most_processes(ccd) as most:
        for at in range(0, conversations, 4):
            for _ in range(3):
                for messages in talks[at : at + 4]:
                    _, text, _ = _streamed(ccd, messages, tools=False)
                    messages += [{"role": "assistant", "content": text}, _user("and then?")]
    assert ccd.socket is not None
    with Client(ccd.socket) as client:
        status: Any = client.status()
    allowed = status["settings"]["max_workers"]
    seen = {key: status["pool"][key] for key in ("recognised", "rebuilt")}
    return [
        single(
            GROUP, f"most CLI processes in {conversations} conversations of three turns", "processes", most[0],
            target=f"at most {allowed} (pool.max_workers)", note=", ".join(f"{v} {k}" for k, v in seen.items()),
        )
    ]  # fmt: skip


@contextlib.contextmanager
def _most_processes(ccd: Server) -> Iterator[list[int]]:
    """Watch for the length of a with block; the one number grows meanwhile."""
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], len(set(ccd.tree()) - set(ccd.own())))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield most
    finally:
        done.set()
        watching.join()
