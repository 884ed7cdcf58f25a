"""`ccd task` and `ccd batch`, and the Python classes that they are made of."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ccd_client import AsyncClient, AsyncTasks, Tasks
from fakes.offline_api import directive
from fakes.stack import wait_until
from fakes.task_stack import TaskStack


def ccd(tasks: TaskStack, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return tasks.stack.ccd(*arguments, stdin=stdin)


def test_a_task_is_run_shown_and_listed(tasks: TaskStack) -> None:
    ran = ccd(tasks, "task", "run", directive(text="forty-two"))
    assert (ran.returncode, ran.stdout) == (0, "forty-two\n"), ran.stderr
    submitted = ccd(tasks, "task", "submit", "-", "--key", "k", stdin=directive(text="later"))
    task_id = submitted.stdout.strip()
    assert (
        ccd(tasks, "task", "submit", "-", "--key", "k", stdin=directive(text="later")).stdout.strip()
        == task_id
    )
    waited = json.loads(ccd(tasks, "task", "wait", task_id, "--json").stdout)
    assert waited["status"] == "completed" and waited["items"][0]["result"]["text"] == "later"
    assert "later" in ccd(tasks, "task", "show", task_id).stdout
    assert task_id in ccd(tasks, "task", "list", "--status", "completed").stdout
    assert ccd(tasks, "task", "webhooks", task_id).stdout == "It has none.\n"


def test_a_failed_task_is_told_and_tried_again(tasks: TaskStack) -> None:
    failing = directive(status=400, message="no", times=1)
    ran = ccd(tasks, "task", "run", failing, "--retries", "0")
    assert ran.returncode == 1 and "failed" in ran.stderr
    [task] = json.loads(ccd(tasks, "task", "list", "--limit", "1", "--json").stdout)
    assert ccd(tasks, "task", "retry", task["id"]).returncode == 0
    assert ccd(tasks, "task", "wait", task["id"]).returncode == 0
    assert ccd(tasks, "task", "retry", task["id"]).returncode == 1
    assert "no task" in ccd(tasks, "task", "show", "task_nothing").stderr


def test_a_batch_is_run_and_wrong_lines_fail_alone(tasks: TaskStack, tmp_path: Path) -> None:
    lines = [
        json.dumps(directive(text="one")),
        "not JSON",
        json.dumps({"id": "mine", "prompt": directive(text="two"), "max_tokens": 50}),
        "",
        json.dumps({"prompt": "x", "colour": 1}),
    ]
    file, output = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    file.write_text("\n".join(lines))
    ran = ccd(tasks, "batch", "run", str(file), "--output", str(output), "--json")
    assert ran.returncode == 1, ran.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row.get("text") for row in rows] == ["one", None, "two", None]
    assert [row["line"] for row in rows] == [1, 2, 3, 5] and rows[2]["id"] == "mine"
    assert "line 2" in rows[1]["error"]["message"] and "colour" in rows[3]["error"]["message"]
    whole = json.loads(ran.stderr.splitlines()[-1])
    assert whole["total"] == 4 and whole["cost_usd"] > 0
    again = ccd(tasks, "batch", "run", str(file), "--json")  # the same batch: nothing is asked twice
    assert json.loads(again.stderr.splitlines()[-1])["id"] == whole["id"]


def test_a_batch_goes_on_after_ctrl_c_and_is_found_again(tasks: TaskStack, tmp_path: Path) -> None:
    file = tmp_path / "slow.jsonl"
    prompts = [f"line {number} {directive(deltas=10, delta_ms=30)}" for number in range(20)]
    file.write_text("\n".join(map(json.dumps, prompts)))
    command = [sys.executable, "-m", "ccd_cli", "batch", "run", str(file)]
    environ = tasks.stack.environ()
    process = subprocess.Popen(
        command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    batch: Any = wait_until(
        lambda: [
            task
            for task in tasks.call("task.list", kinds=["batch"], limit=1)["tasks"]
            if task["total"] == 20 and task["items"]["completed"] >= 2
        ]
    )[0]
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and batch["id"] in errors and not output
    ran = ccd(tasks, "batch", "run", str(file))
    assert ran.returncode == 0 and len(ran.stdout.splitlines()) == 20
    asked = [body for body in tasks.stack.api.bodies() if "line 7 " in json.dumps(body["messages"])]
    assert len(asked) == 1


def test_without_a_worker_the_command_says_what_to_start(tasks: TaskStack) -> None:
    tasks.stop()
    try:
        ran = ccd(tasks, "task", "list")
        assert ran.returncode == 69 and "ccd worker" in ran.stderr
    finally:
        tasks.start()


def test_the_classes_submit_wait_stream_and_cancel(tasks: TaskStack) -> None:
    with Tasks(tasks.socket) as client:
        task = client.submit(directive(deltas=5, delta_ms=30), priority=1, metadata={"for": "me"})
        assert "".join(client.stream(task["id"])) == next(client.items(task["id"]))["result"]["text"]
        assert client.wait(task["id"])["metadata"] == {"for": "me"}
        steps = [{"name": "a", "messages": "one"}, {"name": "b", "messages": "two", "use_context": True}]
        assert client.wait(client.submit_workflow(steps)["id"])["items"]["completed"] == 2
        slow = client.submit(directive(hang=True))
        client.cancel(slow["id"])
        assert client.wait(slow["id"])["status"] == "cancelled"


def test_the_asynchronous_class(tasks: TaskStack) -> None:
    async def main() -> None:
        async with AsyncClient(tasks.socket) as client:
            mine = AsyncTasks(client)
            batch = await mine.submit_batch([directive(text="a"), {"messages": directive(text="b")}])
            assert (await mine.wait(batch["id"]))["items"]["completed"] == 2
            assert [item["result"]["text"] async for item in mine.items(batch["id"])] == ["a", "b"]
            assert [event async for event in mine.events(batch["id"])][-1]["type"] == "end"

    asyncio.run(main())


def test_unknown_options_are_refused(tasks: TaskStack) -> None:
    with Tasks(tasks.socket) as client, pytest.raises(TypeError, match="colour"):
        client.submit("x", colour=1)
