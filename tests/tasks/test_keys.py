"""Keys: who may submit, whose tasks are whose, and what they cost is booked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_gateway.access.ledger import read_usage
from fakes.gateway_keys import add_key
from fakes.offline_api import directive
from fakes.stack import Api, Stack, running_stack
from fakes.task_stack import TaskStack

PROMPT = {"prompt": directive(text="x")}


@pytest.fixture(scope="module")
def keyed(
    tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api
) -> Iterator[tuple[TaskStack, dict[str, str], Path]]:
    folder = tmp_path_factory.mktemp("keys")
    data = folder / "data"
    data.mkdir()
    file = data / "keys.json"
    keys = {
        "tasks": add_key(file, name="tasks", tenant="a", scopes=("tasks",)),
        "chat": add_key(file, name="chat", tenant="a", scopes=("chat",)),
        "other": add_key(file, name="other", tenant="b", scopes=("tasks", "agent")),
        "poor": add_key(file, name="poor", tenant="c", scopes=("tasks",), usd_per_day=0.0001),
        "haiku": add_key(file, name="haiku", tenant="d", scopes=("tasks",), models=("haiku",)),
    }
    stack: Stack
    with running_stack(folder, cli, api, gateway=True, CCD_DATA__DIR=str(data)) as stack:
        tasks = TaskStack(stack)
        tasks.start()
        yield tasks, keys, data
        tasks.stop()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_key_needs_the_scope(keyed: tuple[TaskStack, dict[str, str], Path]) -> None:
    tasks, keys, _ = keyed
    for path in ("/v1/tasks", "/api/tasks", "/v1/batches", "/v1/files"):
        assert tasks.http("GET", path, **bearer(keys["chat"])).status == 403, path
        assert tasks.http("GET", path).status == 401, path
        assert tasks.http("GET", path, **bearer(keys["tasks"])).status == 200, path
    agent = {"kind": "task", "steps": [{"agent": {}, "prompt": "hi"}]}
    assert tasks.http("POST", "/v1/tasks", agent, **bearer(keys["tasks"])).status == 403


def test_a_tenant_sees_its_own_and_its_turns_are_booked(
    keyed: tuple[TaskStack, dict[str, str], Path],
) -> None:
    tasks, keys, data = keyed
    task_id = tasks.http("POST", "/api/claude-code/async", PROMPT, **bearer(keys["tasks"])).json["task_id"]
    path = f"/api/claude-code/task/{task_id}?wait=30"
    task = tasks.http("GET", path, **bearer(keys["tasks"])).json
    assert task["status"] == "completed", task
    assert tasks.http("GET", path, **bearer(keys["other"])).status == 404
    booked = [row for row in read_usage(data / "usage.sqlite3", "2000-01-01") if row.key == "tasks"]
    assert sum(row.requests for row in booked) == 1
    assert sum(row.cost_usd for row in booked) == pytest.approx(task["cost_usd"])


def test_a_days_budget_ends_a_batch(keyed: tuple[TaskStack, dict[str, str], Path]) -> None:
    tasks, keys, _ = keyed
    body = {"tasks": [PROMPT] * 6, "concurrency": 1, "max_retries": 0}
    results = tasks.http("POST", "/api/claude-code/batch", body, **bearer(keys["poor"])).json["results"]
    assert results[0]["success"] and not results[-1]["success"]
    assert "budget" in results[-1]["error"]


def test_models_that_a_key_may_not_use(keyed: tuple[TaskStack, dict[str, str], Path]) -> None:
    tasks, keys, _ = keyed
    step = {"chat": {"model": "opus", "messages": [{"role": "user", "content": "x"}]}}
    answer = tasks.http("POST", "/v1/tasks", {"kind": "task", "steps": [step]}, **bearer(keys["haiku"]))
    assert answer.status == 404 and "opus" in answer.json["error"]["message"]
    assert tasks.http("GET", "/v1/tasks", **bearer(keys["haiku"])).json["data"] == []


def test_a_revoked_key_ends_what_waits(keyed: tuple[TaskStack, dict[str, str], Path]) -> None:
    tasks, keys, _ = keyed
    slow = [{"prompt": directive(deltas=10, delta_ms=100)}] * 8
    body = {"tasks": slow, "concurrency": 1, "async": True, "max_retries": 0}
    batch = tasks.http("POST", "/api/claude-code/batch", body, **bearer(keys["other"])).json["task_id"]
    revoked = tasks.stack.ccd("ctl", "keys", "revoke", "other")
    assert revoked.returncode == 0, revoked.stderr
    ended = tasks.call("task.wait", task_id=batch, tenant="b", timeout_s=60)
    assert ended["final"] and ended["items"]["failed"] >= 5
    items = tasks.call("task.items", task_id=batch, tenant="b")["items"]
    assert items[-1]["error"]["code"] == "forbidden"
