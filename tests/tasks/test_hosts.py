"""Several hosts on one PostgreSQL: work that a dead one left is finished by the other, and the server may restart."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_client import Tasks
from ccd_protocol.errors import Code, RpcError
from fakes.offline_api import directive
from fakes.postgres import Postgres, running_postgres
from fakes.stack import Api, Stack, running_stack, wait_until
from fakes.task_stack import TaskStack

pytestmark = pytest.mark.timeout(300)
QUICK = {"CCD_TASKS__HEARTBEAT_S": "0.5", "CCD_TASKS__DEAD_S": "3", "CCD_TASKS__CONCURRENCY": "4"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def hosts(
    tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api, postgres: Postgres
) -> Iterator[tuple[TaskStack, TaskStack]]:
    """Two hosts, each with daemon and worker, as far as they know each on a machine of its own."""
    settings = {**QUICK, "CCD_TASKS__DATABASE_URL": postgres.url}
    stack: Stack
    other: Stack
    one, two = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    with (
        running_stack(one, cli, api, **settings, CCD_DATA__DIR=str(one / "data")) as stack,
        running_stack(two, cli, api, **settings, CCD_DATA__DIR=str(two / "data")) as other,
    ):
        pair = TaskStack(stack), TaskStack(other)
        for host in pair:
            host.start()
        yield pair
        for host in pair:
            host.stop()


def test_the_work_of_a_host_that_died_is_finished_by_the_other(hosts: tuple[TaskStack, TaskStack]) -> None:
    first, second = hosts
    slow = directive(deltas=10, delta_ms=40)
    batch = first.submit(*[f"line {n} {slow}" for n in range(30)], kind="batch", options={"concurrency": 4})
    wait_until(lambda: second.call("task.get", task_id=batch["id"])["items"]["completed"] >= 3)
    first.worker.kill()
    first.stack.daemon.kill()
    ended = second.wait(batch["id"])
    assert ended["items"]["completed"] == 30 and 1 <= ended["interruptions"] <= 4
    assert [event["seq"] for event in second.events(batch["id"])] == list(range(1, ended["last_seq"] + 1))
    first.stack.start_daemon()
    first.start()  # it comes back: nothing is run twice
    task = first.submit("again")
    assert second.wait(task["id"])["status"] == "completed"


def test_hosts_share_the_queue(hosts: tuple[TaskStack, TaskStack]) -> None:
    first, _ = hosts
    ids = [first.submit(f"{n} {directive(deltas=5, delta_ms=100)}")["id"] for n in range(40)]
    assert {first.wait(task_id)["status"] for task_id in ids} == {"completed"}
    assert all(any(row["turns"] for row in host.stack.workers()) for host in hosts)


def test_a_zombie_writes_nothing(hosts: tuple[TaskStack, TaskStack]) -> None:
    first, second = hosts
    slow = directive(deltas=10, delta_ms=300)
    task = first.submit(f"zombie {slow}")
    wait_until(lambda: second.call("task.get", task_id=task["id"])["items"]["running"] == 1)
    os.kill(first.worker.pid, signal.SIGSTOP)  # it is silent, but not dead
    try:
        ended = second.wait(task["id"])
        assert ended["status"] == "completed" and ended["interruptions"] == 1
    finally:
        os.kill(first.worker.pid, signal.SIGCONT)
    events = second.events(task["id"])
    wait_until(lambda: "declared dead" in first.worker.log_text(), what="the zombie to find out")
    assert second.events(task["id"]) == events
    again = first.submit("alive again")
    assert first.wait(again["id"])["status"] == "completed"


def test_postgresql_restarts_in_mid_run(hosts: tuple[TaskStack, TaskStack], postgres: Postgres) -> None:
    first, second = hosts
    slow = directive(deltas=10, delta_ms=30)
    batch = first.submit(*[f"pg {n} {slow}" for n in range(24)], kind="batch", options={"concurrency": 4})
    wait_until(lambda: first.call("task.get", task_id=batch["id"])["items"]["completed"] >= 2)
    postgres.stop()
    with pytest.raises(RpcError) as caught:
        first.submit("now")
    assert caught.value.code is Code.DRAINING and caught.value.retryable
    postgres.start()
    with Tasks(second.socket) as client:
        wait_until(lambda: _is_there(client, batch["id"]), what="the server to have started up")
        ended = client.wait(batch["id"], 120)
    assert ended["status"] == "completed" and ended["items"]["completed"] == 24


def _is_there(client: Tasks, task_id: str) -> bool:
    try:
        return bool(client.get(task_id))
    except RpcError as error:
        assert error.retryable, error
        return False
