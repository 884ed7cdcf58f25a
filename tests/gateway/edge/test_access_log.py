"""The access log: what it says, and what it never says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ccd_gateway.access.caller import Caller
from ccd_gateway.edge.access_log import AccessLog
from fakes.gateway_daemon import Daemon, start, text
from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import Gateway, read_until

CANARY = "canary-7c1f"
SCOPE = {"method": "GET", "path": "/v1/models"}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_line_per_request_and_no_content(daemon: Daemon, tmp_path: Path) -> None:
    log, keys = tmp_path / "access.log", tmp_path / "keys.json"
    token = add_key(keys, "app")
    daemon.chat(start(), text(CANARY))
    with Gateway(
        daemon.path, access_log=log, keys_file=keys, usage_file=tmp_path / "usage.sqlite3"
    ) as gateway:
        said = [{"role": "user", "content": CANARY}]
        for stream in (False, True):
            assert (
                gateway.chat(
                    messages=said, stream=stream, headers={**bearer(token), "X-Request-ID": "mine"}
                ).status
                == 200
            )
        assert gateway.chat(headers=bearer(f"ccd_{CANARY}")).status == 401
        assert (
            gateway.request("GET", f"/nothing%0a{CANARY[:6]}?q={CANARY}", headers=bearer(token)).status == 404
        )
        assert gateway.request("GET", "/health").status == 200
    got = lines(log)
    assert [(line["method"], line["path"], line["status"], line["key"]) for line in got] == [
        ("POST", "/v1/chat/completions", 200, "app"),
        ("POST", "/v1/chat/completions", 200, "app"),
        ("POST", "/v1/chat/completions", 401, None),
        ("GET", "/nothing\ncanary", 404, "app"),
        ("GET", "/health", 200, None),
    ]
    assert got[0]["id"] == "mine" and got[0]["ms"] > 0
    for line in got[:2]:
        assert (line["model"], line["input_tokens"], line["output_tokens"]) == ("claude-mock-1", 10, 7)
    assert CANARY not in log.read_text() and token not in log.read_text()
    assert log.stat().st_mode & 0o007 == 0


def test_a_client_that_left_before_the_answer(daemon: Daemon, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    daemon.hang()
    with Gateway(daemon.path, access_log=log) as gateway:
        with gateway.open_chat():
            assert daemon.arrivals.acquire(timeout=20)
        assert daemon.cancellations.acquire(timeout=20)
        gateway.request("GET", "/health")
    assert [line["status"] for line in lines(log)] == [0, 200]


def test_stderr(daemon: Daemon) -> None:
    with Gateway(daemon.path, access_log="-") as gateway:
        with gateway.connect() as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            read_until(connection, b"OK")
    [line] = gateway.log.removeprefix(gateway.greeting).splitlines()
    assert json.loads(line)["path"] == "/health"


def test_a_full_pipe_holds_nobody_up_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr("ccd_gateway.edge.access_log._MAX_WAITING", 2)
    log = AccessLog(pipe)
    for _ in range(10):  # opening a pipe without a reader waits
        log.write(SCOPE, 200, 0.001, Caller())
    reader = os.open(pipe, os.O_RDONLY)
    received = b""
    while received.count(b"\n") < 2:
        received += os.read(reader, 65536)
    log.write(SCOPE, 200, 0.001, Caller())
    while b"dropped" not in received:
        received += os.read(reader, 65536)
    log.close()
    os.close(reader)
    assert [json.loads(line) for line in received.splitlines()][-1]["dropped"] >= 7


def test_without_a_file_nothing_is_done() -> None:
    log = AccessLog(None)
    log.write(SCOPE, 200, 0.001, Caller())
    log.close()
