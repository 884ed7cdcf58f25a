"""The offline API as a process: its paths, its faults on the wire, its record of requests, its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_offline import ledger
from ccd_offline.server import NotLoopbackError, listen
from fakes.offline_api import HEADERS, OfflineApi, directive


@pytest.fixture(scope="module")
def running() -> Iterator[OfflineApi]:
    with OfflineApi() as api:
        yield api


@pytest.fixture
def api(running: OfflineApi) -> OfflineApi:
    running.reset()
    return running


def request(text: str = "hello", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "claude-haiku-4-5", "max_tokens": 1000, "messages": messages, **fields}


def error(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str, str]:
    """Status, type and message of an error answer, whose form is checked."""
    status, headers, data = answer
    body = json.loads(data)
    assert body.keys() == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"] == headers["request-id"]
    return status, body["error"]["type"], body["error"]["message"]


def test_answers_whole_and_streamed(api: OfflineApi) -> None:
    whole = api.json("POST", "/v1/messages", request())
    assert whole["content"][0]["text"].endswith("You said: hello")
    status, headers, data = api.call("POST", "/v1/messages?beta=true", request(stream=True))
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert data.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


def test_counts_tokens_and_lists_models(api: OfflineApi) -> None:
    body = request()
    del body["max_tokens"]
    assert api.json("POST", "/v1/messages/count_tokens", body) == {"input_tokens": 6}
    listed = api.json("GET", "/v1/models")["data"]
    assert listed[0]["id"] == "claude-opus-5-5"
    assert api.json("GET", "/v1/models/claude-opus-5-5") == listed[0]
    assert error(api.call("GET", "/v1/models/gpt-4o"))[:2] == (404, "not_found_error")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (401, "authentication_error", "x-api-key header is required")),
        ({"x-api-key": "invalid"}, (401, "authentication_error", "invalid x-api-key")),
        ({"x-api-key": ""}, (401, "authentication_error", "invalid x-api-key")),
        ({"authorization": "Bearer invalid"}, (401, "authentication_error", "Invalid bearer token")),
        ({"x-api-key": "k"}, (400, "invalid_request_error", "anthropic-version: header is required")),
    ],
)
def test_a_login_is_needed(api: OfflineApi, headers: dict[str, str], expected: tuple[int, str, str]) -> None:
    assert error(api.call("POST", "/v1/messages", request(), headers)) == expected


def test_a_bearer_token_is_a_login(api: OfflineApi) -> None:
    headers = {"authorization": "Bearer t", "anthropic-version": "2023-06-01"}
    assert api.call("POST", "/v1/messages", request(), headers)[0] == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"model": NaN}', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "body: Input should be a valid dictionary"),
        (b"[" * 100_000, ""),
        (b'{"model": "claude-haiku-4-5", "max_tokens": 0, "messages": []}', "max_tokens"),
    ],
)
def test_bad_bodies_are_400(api: OfflineApi, body: bytes, message: str) -> None:
    status, kind, text = error(api.call("POST", "/v1/messages", body))
    assert (status, kind) == (400, "invalid_request_error")
    assert message in text


def test_a_lone_surrogate_does_no_harm(api: OfflineApi) -> None:
    status, _, _ = api.call(
        "POST",
        "/v1/messages",
        b'{"model":"claude-haiku-4-5","max_tokens":9,"messages":[{"role":"user","content":"\\ud800"}]}',
    )
    assert status in (200, 400)


def test_an_oversized_body_is_413(api: OfflineApi) -> None:
    big = request("x" * (33 * 1024 * 1024))
    assert error(api.call("POST", "/v1/messages", big))[:2] == (413, "request_too_large")


def test_probes_and_unknown_paths_are_answered(api: OfflineApi) -> None:
    assert api.call("HEAD", "/")[0] == 200
    assert error(api.call("POST", "/api/event_logging/batch", b"{}"))[:2] == (404, "not_found_error")
    assert error(api.call("PUT", "/v1/messages"))[0] == 405


def test_only_loopback_names_are_served(api: OfflineApi) -> None:
    assert error(api.call("GET", "/_offline/requests", headers={"host": "evil.example"}))[0] == 403


def test_scripts_decide_status_and_headers(api: OfflineApi) -> None:
    api.script(
        {"reply": {"status": 529, "retry_after_s": 2}},
        {"reply": {"text": "scripted"}, "match": {"contains": "please"}},
    )
    status, headers, _ = answer = api.call("POST", "/v1/messages", request())
    assert error(answer) == (529, "overloaded_error", "Overloaded")
    assert (status, headers["retry-after"]) == (529, "2")
    assert api.json("POST", "/v1/messages", request("say please"))["content"][0]["text"] == "scripted"
    assert "echo" in api.json("POST", "/v1/messages", request())["content"][0]["text"]


def test_a_bad_script_is_refused(api: OfflineApi) -> None:
    for body in (b"5", b"{}", b'{"replies": [{"reply": {"txet": "a"}}]}'):
        assert error(api.call("POST", "/_offline/script", body))[0] == 400


def test_a_cut_reaches_the_client_after_the_deltas(api: OfflineApi) -> None:
    connection = api.connection()
    text = directive(deltas=8, cut_after_deltas=3)
    connection.request("POST", "/v1/messages", json.dumps(request(text, stream=True)), HEADERS)
    answer = connection.getresponse()
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    connection.close()
    assert caught.value.partial.count(b"text_delta") == 3
    assert api.requests(wait=1, finished=1)[0]["outcome"] == "cut"


@pytest.mark.parametrize(
    "fields",
    [{"hang": True}, {"hang_after_deltas": 2}, {"deltas": 1000, "delta_ms": 100}, {"delay_ms": 60_000}],
)
def test_a_client_that_goes_away_is_noticed(api: OfflineApi, fields: dict[str, Any]) -> None:
    connection = api.connection()
    connection.request("POST", "/v1/messages", json.dumps(request(directive(**fields), stream=True)), HEADERS)
    api.requests(wait=1)
    connection.close()
    assert api.requests(wait=1, finished=1)[0]["outcome"] == "disconnected"


def test_requests_are_recorded_without_their_secrets(api: OfflineApi) -> None:
    body = request("remember me", stream=True)
    api.call("POST", "/v1/messages?beta=true", body)
    api.call("POST", "/v1/messages", b"{nonsense")
    good, bad = api.requests(wait=2, finished=1)
    assert (good["path"], good["body"], good["status"]) == ("/v1/messages?beta=true", body, 200)
    assert good["headers"]["x-api-key"] == "[removed]"
    assert good["arrived_at"] <= good["finished_at"]
    assert (bad["body"], bad["status"], bad["outcome"]) == ("{nonsense", 400, "complete")
    assert api.requests(after=good["seq"]) == [bad]
    api.json("DELETE", "/_offline/requests")
    assert api.requests() == []


def test_waiting_for_requests_that_do_not_come_fails(api: OfflineApi) -> None:
    answer = api.call("GET", "/_offline/requests?wait=1&timeout_s=0.01")
    assert error(answer) == (504, "timeout_error", "0 of 1 requests within 0.01 s")


def test_the_record_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_RECORDS", 3)
    monkeypatch.setattr(ledger, "MAX_BYTES", 100)
    book = ledger.RequestRecord()
    for _ in range(5):
        book.open("POST", "/", {})
    assert [record.seq for record in book.find()] == [3, 4, 5]
    book.body(book.open("POST", "/", {}), b"[" + b" " * 78 + b"]", valid=True)
    assert [record.seq for record in book.find()] == [4, 5, 6]
    book.body(book.open("POST", "/", {}), b"[" + b" " * 88 + b"]", valid=True)
    assert [record.seq for record in book.find()] == [7]


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"])
def test_only_loopback_addresses_are_bound(bind: str) -> None:
    with pytest.raises(NotLoopbackError):
        listen(bind)


def test_a_bad_address_ends_with_a_sentence() -> None:
    command = [sys.executable, "-m", "ccd_offline", "--bind", "0.0.0.0:0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "only binds loopback addresses" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_port_file_says_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "port"
    command = [sys.executable, "-m", "ccd_offline", "--port-file", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while not path.exists():
            assert process.poll() is None
            os.sched_yield()
        assert json.loads(path.read_text())["url"].startswith("http://127.0.0.1:")
        process.terminate()
        assert process.wait(20) == 0


def test_it_ends_with_its_parent() -> None:
    """A parent that is killed takes the API with it: both of its processes close the inherited stdout."""
    start = "subprocess.Popen([sys.executable, '-m', 'ccd_offline'])"
    code = f"import subprocess, sys, time; {start}; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert json.loads(parent.stdout.readline())["url"]
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout.read() == b""
