from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from fakes.gateway_daemon import HEALTHY, Call, Daemon
from fakes.gateway_process import Gateway

JSON = {"Accept": "application/json, text/plain"}


def test_ready(gateway: Gateway, daemon: Daemon) -> None:
    plain = gateway.request("GET", "/health")
    assert (plain.status, plain.body) == (200, b"OK")
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert gateway.request("GET", "/health", headers={"Accept": "*/*"}).body == b"OK"
    shown = gateway.request("GET", "/health", headers=JSON).json
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", shown.pop("timestamp"))
    others = {name: value for name, value in HEALTHY.items() if name != "version"}
    assert shown == {
        "status": "healthy",
        "claude_code_available": True,
        "version": "claude version 2.1.330",
        "ccd_version": HEALTHY["version"],
        **others,
    }
    head = gateway.request("HEAD", "/health")
    assert (head.status, head.body) == (200, b"")


def test_not_ready(gateway: Gateway, daemon: Daemon) -> None:
    async def starting(call: Call) -> Any:
        return {**HEALTHY, "ready": False, "state": "starting", "reason": None, "retry_after_ms": 1500}

    daemon.scripts["daemon.health"] = starting
    plain = gateway.request("GET", "/health")
    assert (plain.status, plain.body, plain.headers["retry-after"]) == (503, b"UNAVAILABLE: starting", "2")
    answer = gateway.request("GET", "/health", headers=JSON)
    assert (answer.status, answer.json["state"], answer.json["status"]) == (503, "starting", "unavailable")


def test_daemon_that_does_not_answer(gateway: Gateway, daemon: Daemon) -> None:
    async def stuck(call: Call) -> Any:
        await call.cancelled.wait()

    daemon.scripts["daemon.health"] = stuck
    before = time.monotonic()
    assert gateway.request("GET", "/health").status == 503
    assert time.monotonic() - before < 3


def test_daemon_down(tmp_path: Path) -> None:
    with Gateway(tmp_path / "none.sock") as gateway:
        gateway.request("GET", "/health")  # the process is up now
        before = time.monotonic()
        answer = gateway.request("GET", "/health", headers=JSON)
        assert time.monotonic() - before < 1
        assert (answer.status, answer.json["state"]) == (503, "down")
        assert answer.headers["retry-after"] == "1"
        assert "none.sock" in answer.json["reason"]


def test_json_is_what_comes_where_that_is_set(daemon: Daemon) -> None:
    with Gateway(daemon.path, json_health="true") as flask:
        for headers in ({}, {"Accept": "*/*"}, JSON):
            assert flask.request("GET", "/health", headers=headers).json["status"] == "healthy"
        assert flask.request("GET", "/health", headers={"Accept": "text/plain"}).body == b"OK"
