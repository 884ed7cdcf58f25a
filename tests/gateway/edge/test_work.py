"""What bodies may hold, what all of them together may hold, and that large ones are read apart from the loop."""

from __future__ import annotations

import ast
import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccd_gateway
from ccd_gateway.edge.work import _LISTS_PER_BODY, Share, Work, apart, values_in
from ccd_gateway.errors import ApiError
from fakes.gateway_daemon import Daemon
from fakes.gateway_process import USER, Answer, Gateway
from fakes.stack import wait_until

MAX = 10
MIB = 1 << 20


def refused(body: bytes) -> bool:
    try:
        values_in(body, MAX)
    except ApiError as error:
        assert error.status == 413 and "server.max_items" in str(error)
        return True
    return False


def longest(value: Any) -> int:
    if isinstance(value, dict):
        return max([len(value), *map(longest, value.values())])
    if isinstance(value, list):
        return max([len(value), *map(longest, value)])
    return 0


def signs(value: Any) -> int:
    """How much there is in all: each list and object, each comma and each colon."""
    if isinstance(value, dict):
        return 1 + max(0, 2 * len(value) - 1) + sum(map(signs, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(signs, value))
    return 0


TEXTS = st.text(st.sampled_from('a,"\\[]{}:é\n '), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=14) | st.dictionaries(TEXTS, inner, max_size=14),
    max_leaves=25,
)


@given(JSON, st.booleans(), st.sampled_from([None, 1]))
def test_a_list_that_is_too_long_is_found_wherever_it_is(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert refused(body) is (longest(value) > MAX or signs(value) > _LISTS_PER_BODY * MAX)


@given(st.binary(max_size=300) | st.text(st.sampled_from('a,"\\[]{}:'), max_size=300).map(str.encode))
def test_what_is_not_json_is_counted_without_a_fault(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize("value", ["1", "[]", "{}", '""', '"\\""', '"\\\\"', "null", '{"a":[1]}'])
def test_the_limit_is_exact(value: str) -> None:
    for size in (MAX - 1, MAX, MAX + 1):
        assert refused(f"[{','.join([value] * size)}]".encode()) is (size > MAX)
    assert refused(json.dumps({str(number): 1 for number in range(MAX + 1)}).encode())
    assert not refused(json.dumps("," * 1000 + '"' * 7 + "[" * 50).encode())


def test_many_lists_that_are_not_too_long_are_too_much_together() -> None:
    assert not refused(json.dumps([[1] * MAX, [1] * MAX]).encode())
    assert refused(json.dumps([[1] * MAX] * MAX).encode())
    assert refused(b"[" * 1000)


# --- the account ---


def test_shares_of_the_whole() -> None:
    work = Work(100, MAX)
    one, two = Share(work), Share(work)
    one.take(60)
    with pytest.raises(ApiError) as refusal:
        two.take(41)
    assert refusal.value.status == 503 and ("retry-after", "1") in refusal.value.headers
    two.take(40)
    one.close()
    one.close()
    two.take(60)
    assert work.bytes == 100
    two.close()
    assert work.bytes == 0


def test_large_bodies_are_read_by_another_thread_in_the_request_s_context() -> None:
    async def main() -> None:
        here = threading.get_ident()
        assert await apart(b"small", threading.get_ident) == here
        others = {await apart(body, threading.get_ident) for body in (b"x" * MIB, b"," * 5000)}
        assert len(others) == 1 and here not in others
        with pytest.raises(ApiError):
            await apart(b"x" * MIB, values_in, b"[" * 1000, MAX)

    asyncio.run(main())


# --- over HTTP ---


@pytest.fixture(scope="module")
def bounded(_daemon: Daemon) -> Iterator[Gateway]:
    with Gateway(
        _daemon.path, max_work_bytes=4 * MIB, keepalive_s=0.2, allow_agent_without_key="true"
    ) as running:
        yield running
    assert running.log == running.greeting


FIELDS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "sonnet", "messages": USER},
    "/v1/messages": {"model": "sonnet", "messages": USER, "max_tokens": 5},
    "/v1/messages/count_tokens": {"model": "sonnet", "messages": USER},
    "/v1/responses": {"model": "sonnet", "input": "hi"},
    "/v1/responses/input_tokens": {"model": "sonnet", "input": "hi"},
    "/api/claude-code": {"prompt": "hi"},
    "/v1/sessions": {},
    "/v1/conversations": {},
}


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_long_list_is_413_on_every_route(bounded: Gateway, daemon: Daemon, path: str, packed: bool) -> None:
    for more in (
        {"x": [[]] * 100_001},
        {"x": dict.fromkeys(map(str, range(100_001)))},
        {"x": [[1] * 99_999] * 6},
    ):
        body = json.dumps({**FIELDS[path], **more}).encode()
        headers = {"Content-Encoding": "gzip"} if packed else {}
        answer = bounded.request("POST", path, gzip.compress(body) if packed else body, headers)
        assert answer.status == 413 and b"server.max_items" in answer.body
    assert not daemon.calls
    assert bounded.request("POST", path, FIELDS[path]).status in (200, 201)


def test_more_than_a_process_may_hold_is_503_until_others_are_answered(
    bounded: Gateway, daemon: Daemon
) -> None:
    daemon.hang()
    large = {
        **FIELDS["/v1/chat/completions"],
        "user": "u",
        "messages": [{"role": "user", "content": "x" * 3 * MIB}],
    }
    waiting = bounded.open_chat(**large)
    assert daemon.arrivals.acquire(timeout=20)
    refusal = bounded.chat(**large)
    assert (refusal.status, refusal.error["code"]) == (503, "overloaded")
    assert refusal.headers["retry-after"] == "1" and "gateway.max_work_bytes" in refusal.error["message"]
    waiting.close()
    assert daemon.cancellations.acquire(timeout=20)
    daemon.chat()
    wait_until(lambda: bounded.chat(**large).status == 200, what="the share to be given back")


def test_a_stream_holds_nothing_of_its_request(bounded: Gateway, daemon: Daemon) -> None:
    daemon.hang()
    large = {"messages": [{"role": "user", "content": "x" * 3 * MIB}], "stream": True}
    held: list[socket.socket] = []
    for _ in range(3):
        held.append(bounded.open_chat(**large))
        assert daemon.arrivals.acquire(timeout=20)
        wait_until(lambda: held[-1].recv(20), what="the head of the answer")
    for connection in held:
        connection.close()
        assert daemon.cancellations.acquire(timeout=20)


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_bombs_cost_little_and_leave_nothing(daemon: Daemon) -> None:
    """71 KiB of gzip each, eight at once; without the limits they take 750 MiB each."""
    texts = [b"[],", b"{},", b"[[]],", b'"",', b"1,", b"[", b'{"a":', b" "]
    bombs = [gzip.compress(b'{"model":"m","x":[' + text * (30 * MIB // len(text))) for text in texts]
    with Gateway(daemon.path) as gateway:
        assert gateway.chat().status == 200
        [worker] = map(
            int, Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
        )
        before = rss_bytes(worker)

        def send(bomb: bytes) -> Answer:
            return gateway.request("POST", "/v1/chat/completions", bomb, {"Content-Encoding": "gzip"})

        with ThreadPoolExecutor(len(bombs)) as threads:
            answers = list(threads.map(send, bombs))
        assert {answer.status for answer in answers} <= {400, 413, 503}
        peak = int(Path(f"/proc/{worker}/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
        assert peak - before < 700 * MIB, peak
        wait_until(lambda: rss_bytes(worker) - before < 50 * MIB, what="the memory to be given back")


GATEWAY = Path(ccd_gateway.__file__).parent


@pytest.mark.parametrize("file", sorted(GATEWAY.rglob("*.py")), ids=lambda file: file.stem)
def test_no_body_is_decoded_on_the_loop(file: Path) -> None:
    """Whoever decodes within a coroutine does it by `apart`."""
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.AsyncFunctionDef):
            calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
            names = {call.id for call in calls if isinstance(call, ast.Name)}
            assert not names & {
                "decode_object",
                "decode",
                "decode_chat",
                "estimate",
                "_parsed",
            }, file
