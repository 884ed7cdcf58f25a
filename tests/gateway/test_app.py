from __future__ import annotations

import json
import re
import socket
from typing import Any

import pytest

from ccd_protocol.errors import MEANINGS, Code
from fakes.gateway_daemon import Daemon
from fakes.gateway_process import USER, Gateway, read_until

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "unknown_url"),
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/chat/completions", 404, "unknown_url"),
        ("GET", "/v1/nothing%20%0d%0aX:y", 404, "unknown_url"),
        ("GET", "/" + "a" * 3000, 404, "unknown_url"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", CHAT, 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("PUT", "/health", 405, "method_not_allowed"),
        ("BREW", "/health", 400, "bad_request"),
    ],
)
def test_unknown_routes_and_methods(
    gateway: Gateway, daemon: Daemon, method: str, path: str, status: int, code: str
) -> None:
    answer = gateway.request(method, path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert UUID.fullmatch(answer.headers["x-request-id"])
    assert status != 405 or "OPTIONS" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "right", "messages"),
    [
        ("/chat/completions", "/v1/chat/completions", False),
        ("/v1/v1/chat/completions", "/v1/chat/completions", False),
        ("/openai/v1/responses/", "/v1/responses", False),
        ("/v1/v1/messages", "/v1/messages", True),
        ("/messages", "/v1/messages", True),
        ("/anthropic/v1/messages", "/v1/messages", True),
        ("/anthropic/v1/messages/count_tokens", "/v1/messages/count_tokens", True),
        ("/anthropic/v1/models", "/v1/models", False),
    ],
)
def test_a_wrong_prefix_is_answered_in_the_shape_that_was_meant(
    gateway: Gateway, daemon: Daemon, path: str, right: str, messages: bool
) -> None:
    answer = gateway.request("POST", path, {"model": "m", "messages": USER})
    assert answer.status == 404
    assert answer.json.get("type") == ("error" if messages else None)
    assert f"It is {right} here" in answer.json["error"]["message"]


def test_trailing_slash(gateway: Gateway, daemon: Daemon) -> None:
    assert gateway.request("POST", CHAT + "/", {"model": "m", "messages": USER}).status == 200


@pytest.mark.parametrize("code", [c for c in Code if c is not Code.CANCELLED])
@pytest.mark.parametrize("stream", [False, True])
def test_every_code_of_the_daemon(gateway: Gateway, daemon: Daemon, code: Code, stream: bool) -> None:
    daemon.fail(code, "what to do", output_started=code in (Code.LOST, Code.DRAINING))
    answer = gateway.chat(stream=stream, headers={"X-Request-ID": "mine"})
    assert answer.status == MEANINGS[code].http_status
    assert answer.error["message"] == "what to do"
    assert answer.headers["x-request-id"] == "mine"


def test_no_login(gateway: Gateway, daemon: Daemon) -> None:
    daemon.fail(Code.UPSTREAM_AUTH, "The CLI is not logged in. Run: claude")
    answer = gateway.chat(stream=True)
    assert (answer.status, answer.headers["x-should-retry"]) == (401, "false")
    assert answer.error == {
        "message": "The CLI is not logged in. Run: claude",
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }


def test_unknown_model(gateway: Gateway, daemon: Daemon) -> None:
    daemon.fail(Code.MODEL_NOT_FOUND, "no such model: m", param="model")
    answer = gateway.chat(model="m")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


def test_pool_exhausted(gateway: Gateway, daemon: Daemon) -> None:
    daemon.fail(Code.BUSY, "queue full", retry_after_ms=1200)
    answer = gateway.chat()
    assert answer.status == 429
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1200")
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 50_000])
def test_malformed_json(gateway: Gateway, daemon: Daemon, body: bytes) -> None:
    answer = gateway.request("POST", CHAT, body)
    assert (answer.status, answer.error["code"]) == (400, "invalid_json")


def test_surrogates_and_other_text_that_cannot_be_sent(gateway: Gateway, daemon: Daemon) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}'
    assert gateway.request("POST", CHAT, body).status == 400


# --- request ids ---


@pytest.mark.parametrize("given", ["abc", "x" * 200, "!~-_.{}"])
def test_request_id_is_echoed(gateway: Gateway, daemon: Daemon, given: str) -> None:
    for answer in (
        gateway.chat(headers={"x-REQUEST-id": given}),
        gateway.chat(stream=True, headers={"X-Request-ID": given}),
        gateway.request("GET", "/health", headers={"X-Request-ID": given}),
        gateway.request("GET", "/nothing", headers={"X-Request-ID": given}),
        gateway.request("GET", CHAT, headers={"X-Request-ID": given}),
        gateway.request("GET", "/health", headers={"X-Request-ID": given, "Host": "evil.example"}),
    ):
        assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 201, "a b", "caf\xe9", "a\tb"])
def test_unusable_request_id_is_replaced(gateway: Gateway, daemon: Daemon, given: str) -> None:
    answer = gateway.request("GET", "/health", headers={"X-Request-ID": given})
    assert UUID.fullmatch(answer.headers["x-request-id"])


# --- sizes ---


def test_body_that_says_it_is_too_large(gateway: Gateway, daemon: Daemon) -> None:
    """Refused before it is sent."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000001\r\n"
    for more in ("", "Expect: 100-continue\r\n"):
        with gateway.connect() as connection:
            connection.sendall((head + more + "\r\n").encode())
            answer = read_until(connection, b"}}")
            assert answer.startswith(b"HTTP/1.1 413") and b'"code":"request_too_large"' in answer
            assert connection.recv(1) == b""


def test_client_that_reads_nothing_before_it_has_sent_everything(gateway: Gateway, daemon: Daemon) -> None:
    assert gateway.request("POST", CHAT, b"x" * 30_000_000).error["code"] == "request_too_large"
    assert gateway.chat().status == 200


def test_largest_body_is_read(gateway: Gateway, daemon: Daemon) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": ""}]})
    whole = body.replace('"content": ""', '"content": "' + "x" * (1_000_000 - len(body)) + '"').encode()
    assert len(whole) == 1_000_000
    assert gateway.request("POST", CHAT, whole).status == 200
    assert gateway.request("POST", CHAT, whole + b" ").status == 413


def test_chunked_bodies(gateway: Gateway, daemon: Daemon) -> None:
    assert chunked(gateway, json.dumps({"model": "m", "messages": USER}).encode(), 7).startswith(
        b"HTTP/1.1 200"
    )
    answer = chunked(gateway, b"x" * 20_000_000, 50_000)
    assert answer.startswith(b"HTTP/1.1 413") and b'"code":"request_too_large"' in answer


def chunked(gateway: Gateway, body: bytes, size: int) -> bytes:
    with gateway.connect() as connection:
        connection.sendall(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT.encode()
        )
        for at in range(0, len(body), size):
            piece = body[at : at + size]
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        return read_until(connection, b"}}")


def test_client_that_stops_in_the_middle_of_its_body(gateway: Gateway, daemon: Daemon) -> None:
    with gateway.connect() as connection:
        connection.sendall(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{" % CHAT.encode())
        connection.shutdown(socket.SHUT_RDWR)
    assert gateway.request("GET", "/health").status == 200
    assert daemon.calls == [("daemon.health", {})]


# --- browsers ---


def test_other_host_names(gateway: Gateway, daemon: Daemon) -> None:
    answer = gateway.chat(headers={"Host": "evil.example"})
    assert (answer.status, answer.error["code"]) == (403, "host_not_allowed")
    assert gateway.request("GET", "/nothing", headers={"Host": "evil.example:80"}).status == 403
    assert gateway.request("GET", "/health", headers={"Host": "localhost:1"}).status == 200


def test_pages(gateway: Gateway, daemon: Daemon) -> None:
    answer = gateway.chat(headers={"Origin": "http://evil.example"})
    assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")
    form = {"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}
    assert gateway.chat(headers=form).status == 415
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    refused = gateway.request("OPTIONS", CHAT, headers=preflight)
    assert refused.status == 403
    assert not any(name.startswith("access-control") for name in refused.headers)
    assert daemon.calls == []


def test_cors_when_configured(daemon: Daemon) -> None:
    page = {"Origin": "http://app.example"}
    with Gateway(
        daemon.path, allowed_origins=["http://app.example"], allowed_hosts=["gw.example"]
    ) as gateway:
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-stainless-os, a",
        }
        answer = gateway.request("OPTIONS", CHAT, headers={**page, **asked})
        assert answer.status == 204
        assert answer.headers["access-control-allow-headers"] == "x-stainless-os, a"
        for got in (
            answer,
            gateway.chat(headers={**page, "Content-Type": "application/json", "Host": "gw.example"}),
            gateway.request("GET", "/nothing", headers=page),
        ):
            assert got.headers["access-control-allow-origin"] == "http://app.example"
            assert got.headers["vary"] == "Origin"
        assert gateway.chat(headers=page).status == 415
        assert gateway.chat(headers={"Origin": "http://other.example"}).status == 403


def test_many_requests_on_one_connection(gateway: Gateway, daemon: Daemon) -> None:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    body: Any = json.dumps({"model": "m", "messages": USER})
    for status, sent in [(200, body), (400, "{"), (200, body), (400, "[]"), (200, body)]:
        connection.request("POST", CHAT, sent)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()
