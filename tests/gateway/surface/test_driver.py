"""What is the same for all surfaces, asked of each: silence, ignored parameters, failures, faults, leaving."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import pytest

from ccd_gateway.surface.driver import KEEPALIVE
from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import RESULT, Call, Daemon, start, text
from fakes.gateway_process import USER, Answer, Gateway, read_until


class Asked(NamedTuple):
    """How a surface is asked, and the words by which its answers are known."""

    path: str
    body: dict[str, Any]
    silence: bytes
    ignored: dict[str, Any]  # a parameter without effect
    name: str  # what it is called


SURFACES = {
    "chat": Asked("/v1/chat/completions", {"model": "m", "messages": USER}, KEEPALIVE, {"seed": 1}, "seed"),
    "responses": Asked(
        "/v1/responses",
        {"model": "m", "input": "hi"},
        KEEPALIVE,
        {"truncation": "auto"},
        "truncation",
    ),
    "messages": Asked(
        "/v1/messages",
        {"model": "m", "messages": USER, "max_tokens": 9},
        b"event: ping\n",
        {},
        "anthropic-workspace-id",
    ),
}
ALL = pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)


def ask(gateway: Gateway, surface: Asked, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    return gateway.request("POST", surface.path, {**surface.body, **more}, headers)


def last_error(body: bytes) -> dict[str, Any]:
    """The error in the last event of a stream."""
    [data] = [
        line for line in body.decode().rstrip("\n").split("\n\n")[-1].split("\n") if line.startswith("data: ")
    ]
    error: dict[str, Any] = json.loads(data.removeprefix("data: "))["error"]
    return error


@ALL
def test_a_stream_that_is_silent_says_so(gateway: Gateway, daemon: Daemon, surface: Asked) -> None:
    async def slow(call: Call) -> Any:
        await call.send(start() + text("a"))
        await call.cancelled.wait()
        raise RpcError(Code.CANCELLED, "")

    daemon.scripts["chat.stream"] = slow
    body = json.dumps({**surface.body, "stream": True}).encode()
    with gateway.connect() as connection:
        head = f"POST {surface.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        for _ in range(2):
            read_until(connection, surface.silence)
    assert daemon.cancellations.acquire(timeout=20)  # by leaving


@ALL
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_ignored_is_named_or_refused(
    gateway: Gateway, daemon: Daemon, surface: Asked, stream: bool
) -> None:
    headers = {} if surface.ignored else {surface.name: "x"}
    daemon.chat(start(), text("a"), ignored=["top_k"])
    answer = ask(gateway, surface, headers, stream=stream, **surface.ignored)
    assert answer.status == 200
    assert answer.headers["x-ccd-ignored"].split(", ")[0] == surface.name
    told_later = answer.body.decode() if stream else answer.headers["x-ccd-ignored"]
    assert "top_k" in told_later
    refused = ask(gateway, surface, {**headers, "X-CCD-Strict": "true"}, stream=stream, **surface.ignored)
    assert refused.status == 400 and surface.name in refused.json["error"]["message"]
    ask(gateway, surface, {"X-CCD-Strict": "true"})
    assert daemon.calls[-1][1]["strict"] is True


@ALL
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_answer_has_a_status(
    gateway: Gateway, daemon: Daemon, surface: Asked, stream: bool
) -> None:
    daemon.fail(Code.BUSY, "no worker is free", retry_after_ms=1500)
    answer = ask(gateway, surface, stream=stream)
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    assert answer.json["error"]["message"] == "no worker is free"


@ALL
def test_a_failure_within_the_answer_is_its_last_event(
    gateway: Gateway, daemon: Daemon, surface: Asked
) -> None:
    async def broken(call: Call) -> Any:
        await call.send(start() + text("a"))
        raise RpcError(Code.WORKER_CRASHED, "the process ended")

    daemon.scripts["chat.stream"] = broken
    answer = ask(gateway, surface, stream=True)
    assert answer.status == 200 and last_error(answer.body)["message"] == "the process ended"


@ALL
def test_a_fault_within_the_answer_is_its_last_event_and_in_the_log(daemon: Daemon, surface: Asked) -> None:
    """The daemon's result is not what the gateway can read: nothing of that is told to the client."""

    async def strange(call: Call) -> Any:
        await call.send(start() + text("a"))
        await asyncio.sleep(0)
        return {**RESULT, "usage": "strange", "ignored": 7}

    daemon.scripts["chat.stream"] = strange
    with Gateway(daemon.path) as gateway:
        answer = ask(gateway, surface, stream=True)
        assert answer.status == 200
        assert last_error(answer.body)["message"] == "The gateway failed. See its log."
    assert "Traceback" in gateway.log and "hi" not in gateway.log.split()


@ALL
def test_profile_and_model_are_the_heads_to_say(gateway: Gateway, daemon: Daemon, surface: Asked) -> None:
    for model, headers, wanted in (
        ("quick/opus", {}, ("quick", "opus")),
        ("opus", {"X-CCD-Profile": "quick"}, ("quick", "opus")),
        ("opus", {}, (None, "opus")),
    ):
        ask(gateway, surface, headers, model=model, stream=True)
        params = daemon.calls[-1][1]
        assert (params.get("profile"), params["model"]) == wanted
    assert ask(gateway, surface, {"X-CCD-Profile": "a b"}).status == 400
