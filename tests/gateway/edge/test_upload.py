"""Bodies that are packed or slow, and heads that are large or slow."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_gateway.edge.upload import upload
from ccd_gateway.errors import ApiError
from fakes.gateway_daemon import Daemon
from fakes.gateway_process import USER, Gateway, read_until

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "m", "messages": USER}).encode()
PACKED = {"Content-Encoding": "gzip"}


def read(pieces: list[bytes], max_bytes: int = 1_000_000, encoding: bytes = b"gzip") -> bytes:
    """What an application gets that reads to the end."""

    async def all_of_it() -> bytes:
        messages = iter(pieces)
        left = len(pieces)

        async def receive() -> dict[str, Any]:
            nonlocal left
            left -= 1
            return {"type": "http.request", "body": next(messages), "more_body": left > 0}

        headers = {b"content-encoding": encoding, b"content-length": b"1"}
        scope: dict[str, Any] = {"headers": list(headers.items())}
        take = upload(scope, headers, receive, max_bytes, 10)
        assert encoding == b"identity" or scope["headers"] == []
        got = b""
        while True:
            message = await take()
            got += message["body"]
            if not message["more_body"]:
                return got

    return asyncio.run(all_of_it())


@given(st.binary(max_size=3000), st.integers(1, 50), st.integers(0, 9))
def test_any_body_however_it_is_cut(body: bytes, size: int, level: int) -> None:
    packed = gzip.compress(body, level)
    assert read([packed[at : at + size] for at in range(0, len(packed), size)]) == body


@pytest.mark.parametrize("size", [262_143, 262_144, 262_145, 524_288, 999_999, 1_000_000])
def test_sizes_around_the_step(size: int) -> None:
    assert read([gzip.compress(b"a" * size)]) == b"a" * size


def test_joined_files() -> None:
    assert read([gzip.compress(b"one ") + gzip.compress(b"two")]) == b"one two"
    with pytest.raises(ApiError) as failed:
        read([gzip.compress(b"") * 101])
    assert failed.value.status == 400


@pytest.mark.parametrize(
    "pieces",
    [
        [b""],
        [b"{}"],
        [gzip.compress(BODY)[:-1]],
        [gzip.compress(BODY), b"more"],
        [zlib.compress(BODY)],
        [gzip.compress(BODY)[:-8] + b"12345678"],
    ],
)
def test_damaged(pieces: list[bytes]) -> None:
    with pytest.raises(ApiError) as failed:
        read(pieces)
    assert (failed.value.status, failed.value.error["code"]) == (400, "invalid_encoding")


def test_a_bomb_costs_neither_memory_nor_time() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(300)) + packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(ApiError) as failed:
            read([bomb])
        assert failed.value.status == 413
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_other_packings() -> None:
    for encoding in (b"br", b"deflate", b"gzip, gzip", b"zstd"):
        with pytest.raises(ApiError) as failed:
            read([b""], encoding=encoding)
        assert failed.value.status == 415
    assert read([b"as it is"], encoding=b"identity") == b"as it is"


# --- over HTTP ---


@pytest.fixture(scope="module")
def _hasty(_daemon: Daemon) -> Iterator[Gateway]:
    with Gateway(_daemon.path, body_timeout_s=0.5, header_timeout_s=0.5, max_body_bytes=100_000) as running:
        yield running
    assert running.log == running.greeting


@pytest.fixture
def hasty(_hasty: Gateway, daemon: Daemon) -> Gateway:
    return _hasty


def test_packed_requests(hasty: Gateway, daemon: Daemon) -> None:
    for name in ("gzip", "GZIP", "x-gzip"):
        answer = hasty.request("POST", CHAT, gzip.compress(BODY), {"Content-Encoding": name})
        assert answer.status == 200, answer
    assert daemon.calls[0][1]["messages"][0]["content"] == "hi"
    stream = gzip.compress(json.dumps({"model": "m", "stream": True, "messages": USER}).encode())
    assert b"[DONE]" in hasty.request("POST", CHAT, stream, PACKED).body


def test_packed_requests_that_are_refused(hasty: Gateway, daemon: Daemon) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(bomb) < 100_000
    assert hasty.request("POST", CHAT, bomb, PACKED).error["code"] == "request_too_large"
    assert hasty.request("POST", CHAT, BODY, PACKED).error["code"] == "invalid_encoding"
    assert hasty.request("POST", CHAT, BODY, {"Content-Encoding": "br"}).status == 415
    assert hasty.request("POST", CHAT, gzip.compress(b"{"), PACKED).error["code"] == "invalid_json"
    assert daemon.calls == []


@pytest.mark.parametrize("headers", ["", "Content-Encoding: gzip\r\n"])
def test_a_body_that_does_not_come(hasty: Gateway, daemon: Daemon, headers: str) -> None:
    with hasty.connect() as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n{headers}\r\n"
        connection.sendall(head.encode() + gzip.compress(BODY)[:20])
        answer = read_until(connection, b"}}")
        assert answer.startswith(b"HTTP/1.1 408") and b"request_timeout" in answer
        assert b"x-request-id" in answer.lower()
        assert connection.recv(1) == b""
    assert hasty.chat().status == 200


def test_a_slow_answer_is_no_slow_body(hasty: Gateway, daemon: Daemon) -> None:
    daemon.hang()
    with hasty.open_chat() as connection:
        connection.settimeout(1.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET /health HTTP/1.1\r\nHost: a"])
def test_a_head_that_does_not_come(hasty: Gateway, daemon: Daemon, sent: bytes) -> None:
    with hasty.connect() as connection:
        connection.sendall(sent)
        assert read_until(connection, b"}}").startswith(b"HTTP/1.1 408")
        assert connection.recv(1) == b""


def test_a_connection_that_has_had_a_request_may_rest(hasty: Gateway, daemon: Daemon) -> None:
    with hasty.connect() as connection:
        ask = b"GET /health HTTP/1.1\r\nHost: a.localhost\r\n\r\n"
        connection.sendall(ask)
        read_until(connection, b"OK")
        connection.settimeout(1.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        connection.sendall(ask)
        read_until(connection, b"OK")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("X-Large: " + "x" * 9000 + "\r\n", 431),
        ("".join(f"X-{n}: y\r\n" for n in range(120)), 431),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("X Y: z\r\n", 400),
    ],
)
def test_heads_that_are_too_large_or_wrong(hasty: Gateway, daemon: Daemon, head: str, status: int) -> None:
    with hasty.connect() as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
        answer = read_until(connection, b"}}")
    assert answer.startswith(b"HTTP/1.1 %d" % status), answer
    assert b"application/json" in answer
    assert hasty.chat().status == 200


def test_a_long_request_line(hasty: Gateway, daemon: Daemon) -> None:
    answer = hasty.request("GET", "/" + "a" * 9000)
    assert answer.status == 414
