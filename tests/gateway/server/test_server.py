"""The life of the gateway's processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from gunicorn.workers.gasgi import ASGIWorker

from ccd_gateway.server.server import listen, options, url
from ccd_gateway.settings import GatewaySettings
from fakes.gateway_daemon import RESULT, Call, Daemon, Gate, start, text
from fakes.gateway_process import SOURCES, Gateway, read_until


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


def wait_for_none(pids: list[int], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert alive(pids) == []


def workers_of(gateway: Gateway, count: int) -> list[int]:
    """The workers' pids, once each of them serves."""
    assert gateway.request("GET", "/health").status in (200, 503)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        children = [child.pid for child in psutil.Process(gateway.process.pid).children()]
        if len(children) == count:
            return children
        time.sleep(0.02)
    raise AssertionError(children)


def test_two_workers_by_default() -> None:
    got = options(GatewaySettings())
    assert (got["workers"], got["asgi_loop"], got["asgi_lifespan"]) == (2, "uvloop", "on")
    assert issubclass(got["worker_class"], ASGIWorker)


def test_graceful_stop_lets_streams_finish(daemon: Daemon) -> None:
    gate = Gate()

    async def slow(call: Call) -> Any:
        await call.send(start() + text("first"))
        await gate.passed()
        await call.send(text("last"))
        return RESULT

    daemon.scripts["chat.stream"] = slow
    with Gateway(daemon.path, workers=2) as gateway:
        pids = workers_of(gateway, 2)
        with gateway.open_chat(stream=True) as connection:
            read_until(connection, b"first")
            gateway.process.send_signal(signal.SIGTERM)
            assert len(alive(pids)) >= 1
            gate.open()
            assert b"last" in read_until(connection, b"data: [DONE]\n\n")
        gateway.process.wait(20)
        assert gateway.process.returncode == 0
        wait_for_none(pids)


def test_stop_is_quick_when_nothing_runs(daemon: Daemon) -> None:
    with Gateway(daemon.path, workers=2) as gateway:
        workers_of(gateway, 2)
        with gateway.connect() as idle:
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
            read_until(idle, b"OK")
            before = time.monotonic()
            assert gateway.stop(signal.SIGTERM) == 0
            assert time.monotonic() - before < 5
        assert gateway.log == gateway.greeting


def test_interrupt_stops_at_once_and_cancels(daemon: Daemon) -> None:
    daemon.hang()
    with Gateway(daemon.path, workers=1) as gateway:
        with gateway.open_chat():
            assert daemon.arrivals.acquire(timeout=20)
            before = time.monotonic()
            gateway.process.send_signal(signal.SIGINT)
            gateway.process.wait(20)
            assert time.monotonic() - before < 5
    assert daemon.cancellations.acquire(timeout=20)


def test_workers_die_with_a_killed_master(daemon: Daemon) -> None:
    with Gateway(daemon.path, workers=2) as gateway:
        pids = workers_of(gateway, 2)
        gateway.process.kill()
        wait_for_none(pids)


def test_a_killed_worker_is_replaced(daemon: Daemon) -> None:
    with Gateway(daemon.path, workers=1) as gateway:
        [pid] = workers_of(gateway, 1)
        os.kill(pid, signal.SIGKILL)
        wait_for_none([pid])
        assert gateway.chat().status == 200


def test_everything_dies_with_the_parent(daemon: Daemon) -> None:
    """A launcher starts the gateway, says its pid, and is killed."""
    launcher = (
        "import subprocess, sys, time\n"
        "flags = ['--bind', '127.0.0.1:0', '--socket', sys.argv[1]]\n"
        "p = subprocess.Popen([sys.executable, '-m', 'ccd_gateway', *flags])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(SOURCES)}
    command = [sys.executable, "-c", launcher, str(daemon.path)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        master = int(parent.stdout.readline())
        deadline = time.monotonic() + 20
        while len(family := psutil.Process(master).children()) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        pids = [master, *(child.pid for child in family)]
        assert len(pids) == 3
        parent.kill()
        wait_for_none(pids)


def run_module(*flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ccd_gateway", *flags],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(SOURCES), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    done = run_module("--workers", "many")
    assert done.returncode == 2
    assert done.stderr == (
        "ccd gateway: the flag for gateway.workers: expected a whole number from 1 to 64, got 'many'\n"
    )
    (tmp_path / "c.toml").write_text("[gateway]\nworker = 1\n")
    done = run_module("--config", str(tmp_path / "c.toml"))
    assert done.returncode == 2 and "did you mean gateway.workers?" in done.stderr


def test_port_in_use(gateway: Gateway) -> None:
    done = run_module("--bind", f"127.0.0.1:{gateway.port}")
    assert done.returncode == 1
    assert done.stderr == (
        f"ccd gateway: cannot listen on 127.0.0.1:{gateway.port}: Address already in use\n"
    )


@pytest.mark.parametrize(
    ("bind", "start_of_url"), [("127.0.0.1:0", "http://127.0.0.1:"), ("[::1]:0", "http://[::1]:")]
)
def test_listen(bind: str, start_of_url: str) -> None:
    with listen(bind) as listener:
        assert url(listener) == f"{start_of_url}{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /openapi.json HTTP/1.1\r\nX: 1\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nOrigin: a\r\norigin: b\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-CCD-Profile: a\r\nx-ccd-profile: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_what_is_not_http(gateway: Gateway, request_: bytes, status: int) -> None:
    with gateway.connect() as connection:
        connection.sendall(request_)
        head, _, body = read_until(connection, b"}}").partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nx-request-id: " in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0_is_closed_after_its_answer(gateway: Gateway, daemon: Daemon, stream: bool) -> None:
    """Also when the client would keep the connection: it could not tell where a stream ends, and would wait."""
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with gateway.connect() as connection:
        connection.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.0 200 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert answer.endswith(b"data: [DONE]\n\n" if stream else b"}")


def test_an_absurd_content_length_is_refused_at_once(gateway: Gateway) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**30}\r\n\r\n"
    with gateway.connect() as connection:
        connection.sendall(head.encode())
        assert read_until(connection, b"}}").startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/responses", 426), ("/v1/chat/completions", 426), ("/v1/nothing", 404), ("/nothing", 404)],
)
def test_websockets_of_other_routes_are_refused(gateway: Gateway, path: str, status: int) -> None:
    """Codex asks for one at /v1/responses, and goes on without after a 426."""
    upgrade = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with gateway.connect() as connection:
        connection.sendall(upgrade.encode())
        head = read_until(connection, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert set(json.loads(read_until(connection, b"}}"))["error"]) == {"message", "type", "param", "code"}


def test_a_client_of_http_1_0_need_not_name_a_host(gateway: Gateway, daemon: Daemon) -> None:
    with gateway.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert read_until(connection, b"\r\n") == b"HTTP/1.0 200 OK\r\n"


def test_every_line_of_the_log_is_json(daemon: Daemon) -> None:
    with Gateway(daemon.path, environ={"CCD_LOG__FORMAT": "json"}) as gateway:
        [worker] = workers_of(gateway, 1)
        os.kill(worker, signal.SIGKILL)
        wait_for_none([worker])
        workers_of(gateway, 1)
        bind = f"127.0.0.1:{gateway.port}"
        command = [sys.executable, "-m", "ccd_gateway", "--bind", bind, "--socket", str(daemon.path)]
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(SOURCES),
            "CCD_LOG__FORMAT": "json",
        }
        taken = subprocess.run(command, env=environ, capture_output=True, timeout=60, check=False)
        assert taken.returncode == 1
        [line] = taken.stderr.splitlines()
        assert json.loads(line)["message"].startswith(f"cannot listen on {bind}: ")
    lines = [line for line in gateway.log.splitlines() if line != gateway.greeting.strip()]
    said = [json.loads(line) for line in lines]
    assert said and all({"time", "level", "logger", "message"} <= set(entry) for entry in said)
    assert any(str(worker) in entry["message"] for entry in said)


def test_ready_is_said_when_all_workers_take_requests(daemon: Daemon) -> None:
    with Gateway(daemon.path, workers=3) as gateway:
        assert gateway.process.stderr is not None
        assert gateway.process.stderr.readline().decode() == gateway.greeting
        assert len(psutil.Process(gateway.process.pid).children()) == 3
        for child in psutil.Process(gateway.process.pid).children():
            child.kill()
        workers_of(gateway, 3)
    assert gateway.greeting not in gateway.log  # once
