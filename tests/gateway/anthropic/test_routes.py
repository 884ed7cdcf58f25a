from __future__ import annotations

import json
from typing import Any

from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import RESULT, Call, Daemon, Gate, line, start, text
from fakes.gateway_process import Answer, Gateway

BODY: dict[str, Any] = {"model": "sonnet", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
BLOCK = line({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
STOP = line({"type": "content_block_stop", "index": 0})
END = line({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}})


def post(gateway: Gateway, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    return gateway.request("POST", "/v1/messages", {**BODY, **fields}, headers)


def sent(answer: Answer) -> list[tuple[str, Any]]:
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = []
    for frame in answer.body.decode().removesuffix("\n\n").split("\n\n"):
        if frame.startswith(":"):
            found.append((frame, None))
            continue
        name, data = frame.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_whole_answer(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start() + BLOCK, text("hel") + text("lo"), STOP + END)
    answer = post(gateway, model="agent/opus")
    message = answer.json
    assert answer.status == 200
    assert message["content"] == [{"type": "text", "text": "hello", "citations": []}]
    assert (message["model"], message["stop_reason"]) == ("agent/opus", "end_turn")
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    method, params = daemon.calls[0]
    assert method == "chat.stream"
    assert params == {
        "exact": True,
        "profile": "agent",
        "model": "opus",
        "messages": BODY["messages"],
        "max_tokens": 9,
    }


def test_stream(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start() + BLOCK, text("hello"), STOP + END)
    assert [name for name, _ in sent(post(gateway, stream=True))] == [
        *("message_start", "content_block_start", "ping", "content_block_delta"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]


def test_an_answer_that_the_cli_got_without_a_stream_is_not_lost(gateway: Gateway, daemon: Daemon) -> None:
    message = {"id": "msg_w", "content": [{"type": "text", "text": "whole"}], "usage": {"input_tokens": 9}}
    whole = {"type": "assistant", "message": message, "parent_tool_use_id": None}
    daemon.chat(start(), json.dumps(whole).encode() + b"\n", stop_reason="max_tokens")
    answer = post(gateway).json
    assert answer["content"] == [{"type": "text", "text": "whole", "citations": []}]
    assert (answer["stop_reason"], answer["usage"]["output_tokens"]) == ("max_tokens", 7)
    events = sent(post(gateway, stream=True))
    assert [event["delta"].get("text") for name, event in events if name == "content_block_delta"] == [
        "whole"
    ]
    assert events[-2][1]["delta"]["stop_reason"] == "max_tokens"
    assert events[-1][0] == "message_stop"


def test_whatever_was_ignored_is_named(gateway: Gateway, daemon: Daemon) -> None:
    betas = {"anthropic-beta": "oauth-2025-04-20,a-1"}
    daemon.chat(start(), END, ignored=["betas", "temperature"])
    whole = post(gateway, betas)
    assert whole.headers["x-ccd-ignored"] == "anthropic-beta.oauth-2025-04-20, anthropic-beta, temperature"
    assert daemon.calls[0][1]["betas"] == ["a-1"]
    stream = post(gateway, betas, stream=True)
    assert stream.headers["x-ccd-ignored"] == "anthropic-beta.oauth-2025-04-20"
    assert sent(stream)[-1] == (
        "message_stop",
        {"type": "message_stop", "ccd_ignored": ["anthropic-beta", "temperature"]},
    )
    assert post(gateway, {**betas, "x-ccd-strict": "true"}).status == 400
    post(gateway, {"x-ccd-strict": "true"})
    assert daemon.calls[-1][1]["strict"] is True


def test_refusals_have_the_messages_apis_shape(gateway: Gateway, daemon: Daemon) -> None:
    cases = [
        (post(gateway, nonsense=1), 400, "invalid_request_error"),
        (gateway.request("POST", "/v1/messages", b"{"), 400, "invalid_request_error"),
        (gateway.request("POST", "/v1/messages", b" " * 1_000_001), 413, "request_too_large"),
        (gateway.request("GET", "/v1/messages"), 405, "invalid_request_error"),
        (gateway.request("POST", "/v1/messages/nothing", {}), 404, "not_found_error"),
        (post(gateway, {"Host": "evil.example"}), 403, "permission_error"),
    ]
    for answer, status, kind in cases:
        assert (answer.status, answer.json["type"], answer.json["error"]["type"]) == (status, "error", kind)
        assert answer.json["request_id"] == answer.headers["request-id"]
    assert daemon.calls == []


def test_failures_of_the_daemon(gateway: Gateway, daemon: Daemon) -> None:
    cases = [
        (Code.BUSY, 429, "rate_limit_error"),
        (Code.UPSTREAM_LIMIT, 429, "rate_limit_error"),
        (Code.UPSTREAM_OVERLOADED, 529, "overloaded_error"),
        (Code.UPSTREAM_AUTH, 401, "authentication_error"),
        (Code.MODEL_NOT_FOUND, 404, "not_found_error"),
        (Code.WORKER_CRASHED, 502, "api_error"),
    ]
    for code, status, kind in cases:
        daemon.fail(code, "why", retry_after_ms=2500)
        for stream in (False, True):
            answer = post(gateway, stream=stream)
            assert (answer.status, answer.json["error"]) == (status, {"type": kind, "message": "why"})
            if status in (429, 529):
                assert answer.headers["retry-after"] == "3"


def test_a_stream_that_breaks_ends_with_an_error_event(gateway: Gateway, daemon: Daemon) -> None:
    async def breaking(call: Call) -> Any:
        await call.send(start() + BLOCK + text("he"))
        raise RpcError(Code.UPSTREAM_ERROR, "broke off", {"output_started": True})

    daemon.scripts["chat.stream"] = breaking
    answer = post(gateway, stream=True)
    assert answer.status == 200
    name, event = sent(answer)[-1]
    assert name == "error"
    assert event["error"] == {"type": "api_error", "message": "broke off"}
    assert event["request_id"] == answer.headers["request-id"]
    whole = post(gateway)
    assert (whole.status, whole.headers["x-should-retry"]) == (502, "false")


def test_a_silent_stream_is_kept_alive(gateway: Gateway, daemon: Daemon) -> None:
    gate = Gate()

    async def slow(call: Call) -> Any:
        await gate.passed()
        await call.send(start() + END)
        return RESULT

    daemon.scripts["chat.stream"] = slow
    connection = gateway.connect()
    body = json.dumps({**BODY, "stream": True}).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    held = b""
    while held.count(b'event: ping\ndata: {"type":"ping"}\n\n') < 2:
        held += connection.recv(65536)
    gate.open()
    while b"event: message_stop" not in held:
        held += connection.recv(65536)
    connection.close()


def test_a_client_that_leaves_cancels_its_turn(gateway: Gateway, daemon: Daemon) -> None:
    daemon.hang()
    for stream in (False, True):
        connection = gateway.connect()
        body = json.dumps({**BODY, "stream": stream}).encode()
        head = f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert daemon.arrivals.acquire(timeout=10)
        connection.close()
        assert daemon.cancellations.acquire(timeout=10)


def test_count_tokens_is_an_estimate_and_says_so(gateway: Gateway, daemon: Daemon) -> None:
    prompt = {key: BODY[key] for key in ("model", "messages")}
    answer = gateway.request("POST", "/v1/messages/count_tokens", prompt)
    assert list(answer.json) == ["input_tokens"]
    assert 1 < answer.json["input_tokens"] < 50
    assert answer.headers["x-ccd-estimated"] == "true"
    refused = gateway.request("POST", "/v1/messages/count_tokens", BODY)
    assert refused.json["error"]["message"] == "max_tokens: Extra inputs are not permitted"
