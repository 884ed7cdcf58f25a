"""Who may call: in the gateway's processes, as clients see it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_gateway.access.auth import Failures, KeyStore, is_local, presented, why_not
from ccd_gateway.access.keyfile import KeyFileError, changing, make
from ccd_gateway.access.ledger import read_usage
from fakes.gateway_daemon import RESULT, Call, Daemon, Gate, start, text
from fakes.gateway_keys import add_key, bearer
from fakes.gateway_process import SOURCES, USER, Answer, Gateway, events, read_until

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"


def eventually(gateway: Gateway, status: int, headers: dict[str, str], path: str = MODELS) -> Answer:
    """A change of the file is noticed within a second."""
    deadline = time.monotonic() + 3
    while (answer := gateway.request("GET", path, headers=headers)).status != status:
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


class Keyed:
    """A gateway with a keys file."""

    def __init__(self, daemon: Daemon, folder: Path, **settings: object) -> None:
        self.keys = folder / "keys.json"
        self.usage = folder / "usage.sqlite3"
        self.token = add_key(self.keys)
        self.gateway = Gateway(daemon.path, keys_file=self.keys, usage_file=self.usage, **settings)  # type: ignore[arg-type]

    def add(self, name: str, **limits: object) -> dict[str, str]:
        """Another key, as headers."""
        return bearer(add_key(self.keys, name, **limits))


@pytest.fixture(scope="module")
def _keyed(_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    keyed = Keyed(_daemon, tmp_path_factory.mktemp("keys"))
    with keyed.gateway:
        yield keyed
    assert keyed.gateway.log == keyed.gateway.greeting


@pytest.fixture
def keyed(_keyed: Keyed, daemon: Daemon) -> Keyed:
    return _keyed


def open_keyed(keyed: Keyed, headers: dict[str, str], **fields: object) -> socket.socket:
    """Send a chat with a key and return the socket, nothing read."""
    body = json.dumps({"model": "m", "messages": USER, **fields}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    connection = keyed.gateway.connect()
    connection.sendall(f"{head}Authorization: {headers['Authorization']}\r\n\r\n".encode() + body)
    return connection


# --- the key ---


def test_both_forms_are_taken(keyed: Keyed) -> None:
    for headers in (
        bearer(keyed.token),
        {"authorization": f"bearer   {keyed.token} "},
        {"X-Api-Key": keyed.token},
        {**bearer(keyed.token), "x-api-key": keyed.token},
    ):
        assert keyed.gateway.request("GET", MODELS, headers=headers).status == 200, headers
        assert keyed.gateway.chat(headers=headers).status == 200


def wrong_headers(token: str) -> list[dict[str, str]]:
    basic = base64.b64encode(f"user:{token}".encode()).decode()
    other = make("other")[1]
    return [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": token},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": f"Bearer {token}x"},
        {"Authorization": f"Bearer {token[:-1]}"},
        {"Authorization": "Bearer not-needed"},
        {"Authorization": "Bearer " + "x" * 6000},
        {"x-api-key": other},
        {"x-api-key": other, **bearer(token)},
    ]


def fresh_error(answer: Answer) -> tuple[int, bytes, dict[str, str]]:
    kept = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    return answer.status, answer.body, kept


def test_every_wrong_key_gets_the_same_answer(daemon: Daemon, tmp_path: Path) -> None:
    keyed = Keyed(daemon, tmp_path)
    with keyed.gateway as gateway:
        answers = [fresh_error(gateway.request("GET", MODELS, headers=h)) for h in wrong_headers(keyed.token)]
        for query in ("api_key", "key", "token", "access_token", "API-KEY"):
            path = f"{MODELS}?a=1&{query}={keyed.token}"
            answers.append(fresh_error(gateway.request("GET", path)))
        answers.append(
            fresh_error(gateway.request("GET", f"{MODELS}?key={keyed.token}", headers=bearer(keyed.token)))
        )
        answers.append(raw_duplicate(gateway, keyed.token))
        assert all(answer == answers[0] for answer in answers), answers
        status, body, headers = answers[0]
        assert status == 401 and json.loads(body)["error"]["code"] == "invalid_api_key"
        assert headers["www-authenticate"] == "Bearer" and headers["x-should-retry"] == "false"
        assert daemon.calls == []


def raw_duplicate(gateway: Gateway, token: str) -> tuple[int, bytes, dict[str, str]]:
    """Two Authorization headers, even the same one twice."""
    with gateway.connect() as connection:
        line = f"Authorization: Bearer {token}\r\n"
        connection.sendall(f"GET {MODELS} HTTP/1.1\r\nHost: localhost\r\n{line}{line}\r\n".encode())
        head, _, body = read_until(connection, b"}}").partition(b"\r\n\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    kept = {name: value for name, value in fields.items() if name not in ("date", "x-request-id")}
    return int(head.split()[1]), body, {**kept, "www-authenticate": "Bearer"}


def test_routes_without_and_with_a_key(daemon: Daemon, tmp_path: Path) -> None:
    keyed = Keyed(daemon, tmp_path)
    with keyed.gateway as gateway:
        assert gateway.request("GET", "/health").status == 200
        assert gateway.request("GET", "/openapi.json").status == 200
        for method, path in [("GET", MODELS), ("POST", CHAT), ("GET", "/nothing"), ("POST", "/v1/messages")]:
            assert gateway.request(method, path, {} if method == "POST" else None).status == 401
        assert gateway.request("GET", "/nothing", headers=bearer(keyed.token)).status == 404
        assert gateway.request("GET", "/health", headers={"Host": "evil.example"}).status == 403


def test_an_address_with_many_wrong_keys_is_slowed_down_and_a_right_key_passes(
    daemon: Daemon, tmp_path: Path
) -> None:
    keyed = Keyed(daemon, tmp_path)
    with keyed.gateway as gateway:
        statuses = [gateway.request("GET", MODELS, headers=bearer(f"no-{n}")).status for n in range(25)]
        assert statuses == [401] * 20 + [429] * 5
        answer = gateway.request("GET", MODELS)
        assert answer.error["code"] == "rate_limit_exceeded" and 0 < int(answer.headers["retry-after"]) <= 60
        assert gateway.request("GET", MODELS, headers=bearer(keyed.token)).status == 200


def test_failures_are_forgotten_after_a_minute_and_bounded() -> None:
    failures = Failures()
    assert [failures.add("a", 0) for _ in range(20)] == [0.0] * 20
    assert failures.add("a", 10) == 50 and failures.add("b", 10) == 0
    assert failures.add("a", 60) == 0
    for n in range(10_050):
        failures.add(f"peer-{n}", 61)
    assert len(failures._counts) == 10_000


# --- changes of the file ---


def test_keys_are_noticed_made_rotated_and_revoked(keyed: Keyed) -> None:
    headers = keyed.add("second")
    assert keyed.gateway.request("GET", MODELS, headers=headers).status == 200
    with changing(keyed.keys) as keys:
        [found] = [key for key in keys.values() if key.name == "second"]
        del keys[found.id]
    eventually(keyed.gateway, 401, headers)
    assert keyed.gateway.request("GET", MODELS, headers=bearer(keyed.token)).status == 200


def test_the_first_key_closes_a_running_gateway_and_nothing_opens_it_again(
    daemon: Daemon, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    with Gateway(daemon.path, keys_file=path, usage_file=tmp_path / "usage.sqlite3") as gateway:
        assert gateway.request("GET", MODELS).status == 200
        token = add_key(path)
        eventually(gateway, 401, {})
        assert gateway.request("GET", MODELS, headers=bearer(token)).status == 200
        path.unlink()
        eventually(gateway, 401, bearer(token))
        assert gateway.request("GET", MODELS).status == 401


def test_a_file_that_breaks_leaves_the_keys_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    path = tmp_path / "keys.json"
    add_key(path)
    store = KeyStore(path, clock=lambda: now[0])
    [key] = store.keys().values()
    path.write_text("{")
    assert store.keys() == {key.id: key}  # not looked at before a second has passed
    now[0] = 1.0
    assert store.keys() == {key.id: key}
    now[0] = 2.0
    assert store.keys() == {key.id: key}
    assert len(caplog.records) == 1 and "damaged" in caplog.text


@pytest.mark.parametrize("content", ["{", '{"version": 1, "keys": []}', None])
def test_a_worker_that_replaces_another_does_not_open_the_door(
    content: str | None, daemon: Daemon, tmp_path: Path
) -> None:
    """Whatever has become of the file: keys were needed, and still are."""
    keyed = Keyed(daemon, tmp_path)
    with keyed.gateway as gateway:
        assert gateway.request("GET", MODELS, headers=bearer(keyed.token)).status == 200
        keyed.keys.unlink()
        if content is not None:
            keyed.keys.write_text(content)
            keyed.keys.chmod(0o600)
        master = gateway.process.pid
        [worker] = map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())
        os.kill(worker, signal.SIGKILL)
        assert gateway.request("GET", MODELS).status == 401


def test_a_file_that_was_never_good_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{")
    path.chmod(0o600)
    store = KeyStore(path)
    assert store.keys() == {} and store.had_keys


def test_the_disk_is_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **more: (looks.append(self), stat(self, **more))[1])
    now = [0.0]
    store = KeyStore(tmp_path / "keys.json", clock=lambda: now[0])
    for tick in range(100):
        now[0] = tick / 10
        store.keys()
    assert len(looks) == 10
    store.keys(within_s=0)  # for a key that is not known
    assert len(looks) == 11


# --- whether one is needed ---


def test_keys_can_be_optional_or_needed_by_setting(daemon: Daemon, tmp_path: Path) -> None:
    keyed = Keyed(daemon, tmp_path, require_keys=False)
    with keyed.gateway as gateway:
        assert gateway.request("GET", MODELS).status == 200
        assert gateway.chat(headers=bearer("not-needed")).status == 200
        assert gateway.chat(headers=bearer(keyed.token)).status == 200
        assert gateway.chat(headers=bearer(make("x")[1])).status == 401
        tenants = [params.get("tenant") for method, params in daemon.calls if method == "chat.complete"]
        assert tenants == [None, "app"]


def start_gateway(*flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": os.pathsep.join(SOURCES)}
    environ |= {f"CCD_GATEWAY__{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "ccd_gateway", *flags]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", ":0"])
def test_other_machines_are_not_served_without_keys(bind: str, tmp_path: Path) -> None:
    ended = start_gateway("--bind", bind, keys_file=str(tmp_path / "keys.json"))
    assert ended.returncode == 2
    for advice in ("ccd ctl keys create", "--bind 127.0.0.1:8080", "--insecure-no-auth", str(tmp_path)):
        assert advice in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_gateway_that_needs_keys_and_has_none_does_not_start(tmp_path: Path) -> None:
    ended = start_gateway("--bind", "127.0.0.1:0", keys_file=str(tmp_path / "keys.json"), require_keys="true")
    assert ended.returncode == 2 and "ccd ctl keys create" in ended.stderr


def test_a_keys_file_that_others_may_read_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path)
    path.chmod(0o644)
    ended = start_gateway("--bind", "127.0.0.1:0", keys_file=str(path))
    assert ended.returncode == 2 and f"chmod 600 {path}" in ended.stderr


def test_when_other_machines_are_served(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    world = ("0.0.0.0", 80)
    assert why_not(world, path, insecure=False, required=None)
    assert why_not(world, path, insecure=True, required=None) is None
    assert why_not(("127.0.0.1", 80), path, insecure=False, required=None) is None
    add_key(path)
    assert why_not(world, path, insecure=False, required=None) is None
    assert "require_keys is off" in str(why_not(world, path, insecure=False, required=False))
    path.chmod(0o644)
    with pytest.raises(KeyFileError):
        why_not(("127.0.0.1", 80), path, insecure=False, required=None)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (("127.0.0.1", 1), True),
        (("127.9.9.9", 1), True),
        (("::1", 1, 0, 0), True),
        ("/run/ccd/http.sock", True),
        (("0.0.0.0", 1), False),
        (("::", 1, 0, 0), False),
        (("192.168.1.2", 1), False),
        (("fe80::1%eth0", 1, 0, 2), False),
        ((), False),
    ],
)
def test_addresses_of_this_machine(address: object, local: bool) -> None:
    assert is_local(address) is local


def test_what_counts_as_presented() -> None:
    assert presented([(b"authorization", b"Bearer abc")]) == "abc"
    assert presented([(b"x-api-key", b" abc ")]) == "abc"
    assert presented([(b"x-api-key", b"abc"), (b"authorization", b"Bearer abc")]) == "abc"
    assert presented([(b"x-api-key", b"abc"), (b"x-api-key", b"abc")]) == ""
    assert presented([(b"x-api-key", b"x" * 257)]) == ""
    assert presented([(b"x-api-key", "é".encode())]).isascii() is False  # and so no token


# --- what a key may do ---


def last_call(daemon: Daemon) -> dict[str, object]:
    return [params for method, params in daemon.calls if method.startswith("chat.")][-1]


def test_the_daemon_is_told_the_tenant_and_the_profile(keyed: Keyed, daemon: Daemon) -> None:
    headers = keyed.add("told", tenant="team-1", profiles=("chat", "agent"))
    for stream in (False, True):
        assert keyed.gateway.chat(headers=headers, stream=stream).status == 200
        call = last_call(daemon)
        assert (call["tenant"], call["profile"], call["model"]) == ("team-1", "chat", "sonnet")
    assert keyed.gateway.chat(headers=headers, model="agent").status == 200
    assert last_call(daemon)["profile"] == "agent" and "model" not in last_call(daemon)
    assert keyed.gateway.chat(headers=headers, model="agent/opus").status == 200
    assert (last_call(daemon)["profile"], last_call(daemon)["model"]) == ("agent", "opus")


def test_models_and_profiles_that_a_key_may_not_use(keyed: Keyed, daemon: Daemon) -> None:
    headers = keyed.add("few", models=("*haiku*",))
    assert keyed.gateway.chat(headers=headers, model="claude-haiku-4-5").status == 200
    daemon.calls.clear()
    for model in ("opus", "agent", "agent/haiku", "haiku/../opus", "default"):
        for stream in (False, True):
            answer = keyed.gateway.chat(headers=headers, model=model, stream=stream)
            assert (answer.status, answer.error["code"]) == (404, "model_not_found"), model
    answer = keyed.gateway.chat(headers={**headers, "X-CCD-Profile": "agent"}, model="haiku")
    assert (answer.status, answer.error["param"]) == (404, "profile")
    assert not [call for call in daemon.calls if call[0].startswith("chat.")]


def test_scopes(keyed: Keyed) -> None:
    path = keyed.keys
    headers = bearer(add_key(path, "stats-only", scopes=("stats",)))
    answer = keyed.gateway.request("GET", MODELS, headers=headers)
    assert (
        answer.status == 403
        and answer.error["code"] == "insufficient_scope"
        and "'chat'" in answer.error["message"]
    )
    assert keyed.gateway.request("GET", "/stats", headers=bearer(keyed.token)).status == 403
    assert keyed.gateway.request("POST", "/api/claude-code", {}, bearer(keyed.token)).status == 403


def test_requests_per_minute(keyed: Keyed, daemon: Daemon) -> None:
    headers = keyed.add("slow", requests_per_minute=2)
    first = keyed.gateway.chat(headers=headers)
    assert (first.headers["x-ratelimit-limit-requests"], first.headers["x-ratelimit-remaining-requests"]) == (
        "2",
        "1",
    )
    assert re.fullmatch(r"\d+(ms|s)", first.headers["x-ratelimit-reset-requests"])
    assert keyed.gateway.chat(headers=headers, stream=True).headers["x-ratelimit-remaining-requests"] == "0"
    for stream in (False, True):
        refused = keyed.gateway.chat(headers=headers, stream=stream)
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert 0 < int(refused.headers["retry-after"]) <= 30
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert "x-should-retry" not in refused.headers
    assert keyed.gateway.chat(headers=bearer(keyed.token)).status == 200


def test_tokens_per_minute(keyed: Keyed, daemon: Daemon) -> None:
    headers = keyed.add("few-tokens", tokens_per_minute=10)
    assert keyed.gateway.chat(headers=headers).status == 200  # 5 + 2 written + 7
    refused = keyed.gateway.chat(headers=headers)
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["x-ratelimit-limit-tokens"] == "10"


def test_concurrent_answers(keyed: Keyed, daemon: Daemon) -> None:
    headers = keyed.add("one-at-a-time", concurrent=1)
    daemon.hang()
    with open_keyed(keyed, headers):
        while not any(method == "chat.complete" for method, _ in daemon.calls):
            assert daemon.arrivals.acquire(timeout=20)
        assert keyed.gateway.chat(headers=headers).error["code"] == "rate_limit_exceeded"
    assert daemon.cancellations.acquire(timeout=20)
    daemon.chat()
    deadline = time.monotonic() + 5
    while keyed.gateway.chat(headers=headers).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_budget_of_a_day(keyed: Keyed, daemon: Daemon) -> None:
    headers = keyed.add("poor", usd_per_day=0.01)
    daemon.chat(cost_usd=0.006)
    assert [keyed.gateway.chat(headers=headers, stream=s).status for s in (True, False)] == [200, 200]
    refused = keyed.gateway.chat(headers=headers)
    assert (refused.status, refused.error["code"], refused.error["type"]) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
    )
    assert refused.headers["x-should-retry"] == "false"


def test_a_stream_is_stopped_when_its_cost_passes_the_budget(keyed: Keyed, daemon: Daemon) -> None:
    """The price of the model is known from an answer before: 0.0001 USD for each token of weight."""
    opening = b'{"type":"stream_event","event":{"type":"message_start","message":{"model":"claude-priced",'
    opening += b'"usage":{"input_tokens":10,"output_tokens":1}}}}\n'
    usage = {"input_tokens": 10, "output_tokens": 2}
    daemon.chat(opening, text("a"), model="claude-priced", usage=usage, cost_usd=0.002)
    assert keyed.gateway.chat(headers=bearer(keyed.token), stream=True).status == 200
    headers = keyed.add("poorer", usd_per_day=0.05)
    gate = Gate()

    async def long(call: Call) -> object:
        await call.send(opening + text("word ") * 10)
        await gate.passed()
        for _ in range(490):
            await call.send(text("word "))
        return {**RESULT, "model": "claude-priced", "usage": usage, "cost_usd": 0.25}

    daemon.scripts["chat.stream"] = long
    with open_keyed(keyed, headers, stream=True) as connection:
        read_until(connection, b"word")
        gate.open()
        body = read_until(connection, b"\r\n0\r\n\r\n")
    assert b"insufficient_quota" in body and b"[DONE]" not in body and body.count(b"word ") < 490
    assert (
        keyed.gateway.chat(headers=headers).error["code"] == "insufficient_quota"
    )  # what had passed is booked


def test_an_answer_that_is_left_early_is_booked(keyed: Keyed, daemon: Daemon) -> None:
    headers = keyed.add("leaver", usd_per_day=0.006)
    opening = b'{"type":"stream_event","event":{"type":"message_start","message":{"model":"claude-new",'
    opening += b'"usage":{"input_tokens":1000}}}}\n'

    async def endless(call: Call) -> object:
        await call.send(opening + text("first"))
        await call.cancelled.wait()
        return RESULT

    daemon.scripts["chat.stream"] = endless
    with open_keyed(keyed, headers, stream=True) as connection:
        read_until(connection, b"first")
    assert daemon.cancellations.acquire(timeout=20)
    deadline = time.monotonic() + 5
    while not (rows := [row for row in read_usage(keyed.usage, "2000-01-01") if row.key == "leaver"]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    [row] = rows
    assert (row.model, row.input_tokens) == ("claude-new", 1000) and row.output_tokens > 0
    assert row.cost_usd == pytest.approx((1000 + 5 * row.output_tokens) * 5e-6)


def test_a_stream_of_a_model_without_a_known_price_is_stopped_too(keyed: Keyed, daemon: Daemon) -> None:
    opening = b'{"type":"stream_event","event":{"type":"message_start","message":{"model":"claude-newer",'
    opening += b'"usage":{"input_tokens":10}}}}\n'

    async def long(call: Call) -> object:
        await call.send(opening + text("first "))
        for _ in range(500):
            await call.send(text("word "))
        return RESULT

    daemon.scripts["chat.stream"] = long
    answer = keyed.gateway.chat(headers=keyed.add("first", usd_per_day=0.001), stream=True)
    assert b"insufficient_quota" in answer.body and answer.body.count(b"word ") < 500


def test_two_workers_share_the_limits(daemon: Daemon, tmp_path: Path) -> None:
    keyed = Keyed(daemon, tmp_path, workers=2)
    with keyed.gateway as gateway:
        headers = bearer(add_key(keyed.keys, "shared", requests_per_minute=5))
        statuses = [gateway.chat(headers=headers).status for _ in range(12)]
        assert statuses == [200] * 5 + [429] * 7
        with Gateway(daemon.path, keys_file=keyed.keys, usage_file=keyed.usage) as another:
            assert another.chat(headers=headers).status == 429


def test_a_ledger_that_cannot_be_written(daemon: Daemon, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, requests_per_minute=5)
    with Gateway(daemon.path, keys_file=keys, usage_file=tmp_path / "keys.json" / "usage") as gateway:
        answer = gateway.chat(headers=bearer(token))
        assert (answer.status, answer.error["code"]) == (507, "storage")
        assert str(tmp_path) not in answer.error["message"]
    assert str(tmp_path) in gateway.log


def test_the_start_of_a_stream_is_not_enough_to_begin(keyed: Keyed, daemon: Daemon) -> None:
    """Streams of callers with a key are the same bytes as of those without."""
    daemon.chat(start(), text("one"), text("two"))
    got = events(keyed.gateway.chat(headers=bearer(keyed.token), stream=True).body)
    assert [e["choices"][0]["delta"].get("content") for e in got[:-1]] == ["", "one", "two", None]
