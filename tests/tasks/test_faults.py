"""Disks, files and clocks that fail: new work is refused, what was accepted is kept, and everything else goes on."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_protocol.errors import Code, RpcError
from fakes.offline_api import directive
from fakes.stack import Api, Stack, running_stack, wait_until
from fakes.task_stack import TaskStack

SLOW = directive(deltas=10, delta_ms=60)
QUICK = {"CCD_TASKS__HEARTBEAT_S": "0.5", "CCD_TASKS__DEAD_S": "2", "CCD_TASKS__CONCURRENCY": "4"}
QUICK["CCD_TASKS__MAX_WAITING"] = "20"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[TaskStack]:
    folder = tmp_path_factory.mktemp("faults")
    stack: Stack
    with running_stack(folder, cli, api, gateway=True, **QUICK, CCD_DATA__DIR=str(folder / "data")) as stack:
        tasks = TaskStack(stack)
        tasks.start()
        yield tasks
        tasks.stop()


def test_a_full_disk_refuses_new_work_and_loses_nothing(tasks: TaskStack) -> None:
    batch = tasks.submit(*[SLOW] * 12, kind="batch", options={"concurrency": 2})
    wait_until(lambda: tasks.call("task.get", task_id=batch["id"])["items"]["completed"] >= 2)
    limits = resource.prlimit(tasks.worker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(tasks.worker.pid, resource.RLIMIT_FSIZE, (4096, limits[1]))  # nothing can be written
    try:
        with pytest.raises(RpcError) as caught:
            tasks.submit("new")
        assert caught.value.code is Code.STORAGE
        answer = tasks.http("POST", "/api/claude-code/async", {"prompt": "new"})
        assert answer.status == 507, answer
        time.sleep(1.5)  # the batch goes on meanwhile, as far as it can
    finally:
        resource.prlimit(tasks.worker.pid, resource.RLIMIT_FSIZE, limits)
    ended = tasks.wait(batch["id"])
    assert ended["items"]["completed"] == 12
    assert tasks.wait(tasks.submit("after")["id"])["status"] == "completed"


def test_a_tenants_queue_is_bounded_and_others_are_not_hurt(tasks: TaskStack) -> None:
    held = [tasks.call("task.submit", kind="batch", open=True, tenant="local")["id"] for _ in range(20)]
    answer = tasks.http("POST", "/api/claude-code/async", {"prompt": "one more"})
    assert answer.status == 429 and "tasks.max_waiting" in answer.json["message"]
    assert int(answer.headers["retry-after"]) >= 1
    assert tasks.wait(tasks.submit("another tenant's")["id"])["status"] == "completed"
    for task_id in held:
        tasks.call("task.cancel", task_id=task_id, tenant="local")
    assert tasks.http("POST", "/api/claude-code/async", {"prompt": "now"}).status == 202


@pytest.mark.parametrize("size", [0, 8192], ids=["the head", "a page"])
def test_a_damaged_database_is_set_aside_and_everything_else_goes_on(tasks: TaskStack, size: int) -> None:
    tasks.wait(tasks.submit("before")["id"])
    tasks.stop()
    for suffix in ("-wal", "-shm"):
        tasks.database.with_name(tasks.database.name + suffix).unlink(missing_ok=True)
    with tasks.database.open("r+b") as file:
        file.seek(size)
        file.write(os.urandom(16384))
    tasks.start()
    assert "is damaged. It was kept as" in tasks.worker.log_text()
    assert list(tasks.database.parent.glob("tasks.sqlite3.damaged-*"))
    assert tasks.wait(tasks.submit("after")["id"])["status"] == "completed"
    chat = {"model": "sonnet", "messages": [{"role": "user", "content": "hi"}]}
    assert tasks.http("POST", "/v1/chat/completions", chat).status == 200
    for path in tasks.database.parent.glob("tasks.sqlite3.damaged-*"):
        path.unlink()


def test_a_clock_that_jumps_does_no_harm(tasks: TaskStack, tmp_path: Path) -> None:
    tasks.stop()
    offset = tmp_path / "offset"
    offset.write_text("0")
    tasks.start(module="fakes.jumping_clock", CCD_TEST_CLOCK=str(offset))
    try:
        for jump_s in (86400, -86400, -3 * 86400):
            options = {"concurrency": 2, "deadline_s": 86400}
            batch = tasks.submit(*[SLOW] * 8, kind="batch", options=options)
            wait_until(lambda: tasks.call("task.get", task_id=batch["id"])["items"]["completed"] >= 2)  # noqa: B023
            offset.write_text(str(jump_s))
            assert tasks.wait(batch["id"])["items"]["completed"] == 8
            assert tasks.wait(tasks.submit("after")["id"])["status"] == "completed"
    finally:
        tasks.stop()
        tasks.start()


def test_the_worker_talks_to_nobody_but_its_sockets(tasks: TaskStack) -> None:
    tasks.wait(tasks.submit("hello")["id"])
    found = subprocess.run(
        ["cat", f"/proc/{tasks.worker.pid}/net/tcp"], capture_output=True, text=True, check=True
    )
    inodes = set()
    for descriptor in os.listdir(f"/proc/{tasks.worker.pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{tasks.worker.pid}/fd/{descriptor}"))
        except OSError:
            continue
    internet = {line.split()[9] for line in found.stdout.splitlines()[1:]}
    assert not {f"socket:[{inode}]" for inode in internet} & inodes


def test_a_second_worker_and_a_later_schema_are_refused(tasks: TaskStack) -> None:
    second = tasks.stack.ccd("worker")
    assert second.returncode == 69 and "another ccd" in second.stderr
    tasks.stop()
    tasks.sql("UPDATE ccd_about SET version = 99")
    try:
        later = tasks.stack.ccd("worker")
        assert later.returncode == 69 and "another version" in later.stderr
    finally:
        tasks.sql("UPDATE ccd_about SET version = 1")
        tasks.start()
