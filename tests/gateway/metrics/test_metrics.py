"""`/metrics`: on its own address only, counted over all processes, in the form that Prometheus checks."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ccd_gateway.metrics import gather
from ccd_gateway.metrics.daemon import metrics
from ccd_gateway.metrics.routes import _Read
from fakes.gateway_daemon import Daemon
from fakes.gateway_keys import add_key
from fakes.gateway_process import Gateway
from fakes.promtool import promtool
from fakes.stack import wait_until

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
STATUS = {
    "version": "0.1.0",
    "state": "ready",
    "uptime_s": 5.0,
    "cli": {"version": "2.1.330"},
    "pool": {"waiting": 1, "spares": {"chat": 2}},
    "settings": {"max_workers": 4},
    "memory": {"daemon_rss_bytes": 1, "workers_rss_bytes": 2, "pressure_percent": 50.0},
    "sessions": {"running": 3},
    "connections": 4,
    "counters": {
        "spawned": 5,
        "died_unready": 0,
        "turns": 7,
        "resets": 1,
        "leases": 8,
        "refused": 0,
        "surplus_calls": 0,
    },
}
WORKERS = {"workers": [{"profile": "chat", "state": "ready"}, {"profile": "chat", "state": "busy"}]}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def get(port: int, path: str = "/metrics", **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def tells(daemon: Daemon) -> None:
    async def status(call: Any) -> Any:
        return STATUS

    async def workers(call: Any) -> Any:
        return WORKERS

    daemon.scripts |= {"admin.status": status, "admin.workers": workers}


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def admin_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def watched(_daemon: Daemon, admin_port: int) -> Iterator[Gateway]:
    with Gateway(_daemon.path, workers=2, admin_bind=f"127.0.0.1:{admin_port}") as running:
        yield running


def test_requests_are_counted_once_over_all_processes(
    daemon: Daemon, watched: Gateway, admin_port: int
) -> None:
    tells(daemon)
    body = json.dumps({"model": "sonnet", "messages": [{"role": "user", "content": "hi"}]}).encode()
    for _ in range(12):  # over both processes
        answer = watched.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        assert answer.status == 200
    watched.request("GET", "/no/such/path")
    _, text = get(admin_port)
    found = samples(text)
    chat = {("route", "/v1/chat/completions"), ("method", "POST"), ("status", "200")}
    assert found[("ccd_http_requests_total", frozenset(chat))] == 12
    unknown = {("route", "unknown"), ("method", "any"), ("status", "404")}
    assert found[("ccd_http_requests_total", frozenset(unknown))] == 1
    route = frozenset({("route", "/v1/chat/completions")})
    assert found[("ccd_http_request_duration_seconds_count", route)] == 12
    assert found[("ccd_http_requests_open", frozenset())] == 1  # this one
    assert found[("ccd_up", frozenset())] == 1
    assert found[("ccd_workers", frozenset({("profile", "chat"), ("state", "busy")}))] == 1
    assert found[("ccd_turns_total", frozenset())] == 7
    assert "hi" not in re.sub(r"#.*", "", text)


def test_clients_do_not_decide_how_many_figures_there_are(
    daemon: Daemon, watched: Gateway, admin_port: int
) -> None:
    for number in range(30):
        watched.request(f"MADEUP{number}", "/v1/models")
        watched.request("GET", f"/made/up/{number}")
        watched.request("GET", f"/v1/models/made-up-{number}")
    _, text = get(admin_port)
    assert not re.search("(?i)made", text)
    methods = {dict(labels).get("method"): count for (_, labels), count in samples(text).items()}
    assert methods["other"] == 30


def test_what_a_worker_has_counted_stays_when_it_ends(_daemon: Daemon, daemon: Daemon) -> None:
    port = free_port()
    with Gateway(_daemon.path, admin_bind=f"127.0.0.1:{port}") as running:
        assert running.request("GET", "/v1/models").status == 200
        before = set(Path(tempfile.gettempdir()).glob(f"ccd-metrics-{running.process.pid}-*"))
        assert len(before) == 1
        (worker,) = children(running.process.pid)
        os.kill(worker, signal.SIGTERM)  # it leaves in order, by the master's own code
        wait_until(lambda: children(running.process.pid) not in ([worker], []))
        assert running.request("GET", "/v1/models").status == 200
        route = {("route", "/v1/models"), ("method", "GET"), ("status", "200")}
        _, text = get(port)
        assert samples(text)[("ccd_http_requests_total", frozenset(route))] == 2
    assert not any(folder.exists() for folder in before)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_a_killed_master_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, alive = tmp_path / "ccd-metrics-4194304-x", tmp_path / f"ccd-metrics-{os.getpid()}-y"
    for folder in (left, alive, tmp_path / "ccd-metrics-of-somebody"):
        folder.mkdir()
    with gather.shared({}):
        assert not left.exists() and alive.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, "ccd-metrics-of-somebody"])


def test_prometheus_itself_finds_nothing_to_say(daemon: Daemon, watched: Gateway, admin_port: int) -> None:
    tells(daemon)
    _, text = get(admin_port)
    done = subprocess.run(
        [promtool(), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    _, openmetrics = get(admin_port, Accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith("# EOF\n") and openmetrics.count("# EOF") == 1


def test_a_daemon_that_does_not_answer_is_a_figure_too(
    daemon: Daemon, watched: Gateway, admin_port: int
) -> None:
    status, text = get(admin_port)  # the stand-in has no admin methods now
    assert status == 200 and samples(text)[("ccd_up", frozenset())] == 0


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/v1/../metrics"])
def test_not_on_the_public_address(watched: Gateway, admin_port: int, path: str) -> None:
    for host in (f"127.0.0.1:{watched.port}", f"127.0.0.1:{admin_port}"):
        assert watched.request("GET", path, headers={"host": host}).status == 404


def test_nothing_else_on_the_admin_address(watched: Gateway, admin_port: int) -> None:
    assert get(admin_port, "/health")[0] == 404
    assert get(admin_port, "/v1/models")[0] == 404


def test_every_metric_is_documented(daemon: Daemon, watched: Gateway, admin_port: int) -> None:
    registry = CollectorRegistry()
    registry.register(_Read(list(metrics(STATUS, WORKERS))))
    _, text = get(admin_port)
    shown = generate_latest(registry).decode() + text
    names = {line.split()[2] for line in shown.splitlines() if line.startswith("# TYPE")}
    document = DOCUMENT.read_text()
    assert {name for name in names if f"| `{name}`" not in document} == set()
    booked = {"ccd_tokens_total", "ccd_cost_usd_total"}  # there from the first answer of a key on
    assert set(re.findall(r"^\| `(ccd_\w+)`", document, re.MULTILINE)) == names | booked


def test_an_address_that_is_taken_costs_the_figures_and_not_the_service(_daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with Gateway(_daemon.path, admin_bind=bind) as running:
            assert running.request("GET", "/v1/models").status == 200
    assert f"cannot listen on {bind}" in running.log


def test_elsewhere_than_on_loopback_a_key_is_needed(_daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    chat, admin = add_key(path), add_key(path, "operator", scopes=("admin",))
    port = free_port()
    with Gateway(_daemon.path, admin_bind=f"0.0.0.0:{port}", keys_file=path) as running:
        assert running.request("GET", "/v1/models").status == 401  # and it listens
        assert get(port)[0] == 401
        assert get(port, Authorization=f"Bearer {chat}")[0] == 403
        assert get(port, Authorization=f"Bearer {admin}")[0] == 200


def test_alerts_and_dashboard_name_metrics_that_there_are() -> None:
    folder = DOCUMENT.parent / "monitoring"
    known = set(re.findall(r"^\| `(ccd_\w+)`", DOCUMENT.read_text(), re.MULTILINE))
    texts = (folder / "alerts.yml").read_text() + (folder / "grafana.json").read_text()
    named = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bccd_\w+", texts)}
    assert named and named <= known
    done = subprocess.run(
        [promtool(), "check", "rules", folder / "alerts.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
