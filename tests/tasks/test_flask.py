"""The Flask project's endpoints: exact keys, words and statuses."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from fakes.offline_api import directive
from fakes.stack import wait_until
from fakes.task_stack import TaskStack

RESULT = {"status", "output", "error", "return_code", "execution_time", "command", "success"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


def test_async_is_202_and_the_task_is_found_by_its_id(tasks: TaskStack) -> None:
    answer = tasks.http("POST", "/api/claude-code/async", {"prompt": directive(text="done")})
    assert answer.status == 202
    assert set(answer.json) == {"task_id", "status", "message", "request_id"}
    assert answer.json["status"] == "pending"
    assert answer.json["message"] == "任务已提交,请使用task_id查询结果"
    task_id = answer.json["task_id"]
    task = tasks.http("GET", f"/api/claude-code/task/{task_id}?wait=30").json
    assert {*("task_id", "status", "created_at", "updated_at", "started_at", "completed_at")} <= set(task)
    assert task["task_id"] == task_id and task["status"] == "completed" and task["request_id"]
    assert all(TIME.fullmatch(task[name]) for name in task if name.endswith("_at"))
    assert set(task["result"]) == RESULT
    assert task["result"]["output"] == "done" and task["result"]["success"] is True
    assert "***" in task["result"]["command"]


def test_an_unknown_task_is_404_in_that_projects_shape(tasks: TaskStack) -> None:
    answer = tasks.http("GET", "/api/claude-code/task/nothing")
    assert answer.status == 404
    assert set(answer.json) == {"error", "message", "status_code"} and answer.json["error"] == "Not Found"


def test_a_batch_keeps_the_order_and_a_failure_hurts_no_other(tasks: TaskStack) -> None:
    slow = directive(text="slow", delay_ms=700)
    failing = directive(status=400, message="no")
    body = {"tasks": [{"prompt": slow}, {"prompt": failing}, {"prompt": directive(text="fast")}]}
    body["max_retries"] = 0  # type: ignore[assignment]
    answer = tasks.http("POST", "/api/claude-code/batch", body)
    assert answer.status == 200
    counts = {"success": False, "total_tasks": 3, "successful_tasks": 2, "failed_tasks": 1}
    assert {name: answer.json[name] for name in counts} == counts
    results = answer.json["results"]
    assert [result["output"] for result in results] == ["slow", "", "fast"]
    assert results[1]["status"] == "error" and results[1]["return_code"] != 0
    assert all(set(result) == RESULT for result in results)


def test_each_task_of_a_batch_has_its_own_timeout(tasks: TaskStack) -> None:
    one = {"prompt": directive(text="late", delay_ms=30000), "options": {"timeout": 0.5}}
    answer = tasks.http("POST", "/api/claude-code/batch", {"tasks": [one, {"prompt": "quick"}]})
    first, second = answer.json["results"]
    assert first["status"] == "timeout" and first["return_code"] == 124 and second["success"]


def test_a_workflow_runs_in_order_and_ends_at_a_critical_failure(tasks: TaskStack) -> None:
    steps = [
        {"name": "a", "prompt": directive(text="red")},
        {"name": "b", "prompt": "What colour?", "use_context": True},
        {
            "name": "c",
            "prompt": directive(status=400, message="no"),
            "critical": True,
            "options": {"max_retries": 0},
        },
        {"name": "d", "prompt": "never"},
    ]
    answer = tasks.http("POST", "/api/claude-code/workflow", {"workflow": steps})
    assert answer.status == 200
    body = answer.json
    counts = {
        "success": False,
        "total_steps": 4,
        "completed_steps": 3,
        "successful_steps": 2,
        "failed_steps": 1,
    }
    assert {name: body[name] for name in counts} == counts
    assert [(step["step_name"], step["step_number"], step["success"]) for step in body["results"]] == [
        *(("a", 1, True), ("b", 2, True), ("c", 3, False))
    ]
    assert set(body["final_context"]) == {"a", "b"} and "red" in body["final_context"]["b"]
    assert all(set(step["result"]) == RESULT for step in body["results"])


def test_the_list_has_filters_and_pages_and_cleanup_forgets(tasks: TaskStack) -> None:
    for number in range(3):
        task_id = tasks.http("POST", "/api/claude-code/async", {"prompt": f"p{number}"}).json["task_id"]
        tasks.http("GET", f"/api/claude-code/task/{task_id}?wait=30")
    page = tasks.http("GET", "/api/tasks?status=completed&limit=2&offset=1").json
    assert set(page) == {"tasks", "total", "limit", "offset", "request_id"}
    assert page["limit"] == 2 and page["offset"] == 1 and page["total"] >= 3 and len(page["tasks"]) == 2
    assert set(page["tasks"][0]) == {"id", "status", "created_at", "updated_at"}
    kept = tasks.http("POST", "/api/tasks/cleanup", {"days": 7})
    assert kept.status == 200 and kept.json["message"] == "已清理 7 天前的旧任务"
    assert tasks.http("GET", "/api/tasks?status=completed").json["total"] == page["total"]
    assert tasks.http("POST", "/api/tasks/cleanup", {"days": 0}).status == 200
    assert tasks.http("GET", "/api/tasks?status=completed").json["total"] == 0


def test_the_same_idempotency_key_waits_for_the_same_batch(tasks: TaskStack) -> None:
    body = {"tasks": [{"prompt": directive(text="one", delay_ms=500)}]}
    with ThreadPoolExecutor(3) as threads:
        answers = list(
            threads.map(
                lambda _: tasks.http("POST", "/api/claude-code/batch", body, Idempotency_Key="b1").json,
                range(3),
            )
        )
    assert len({answer["task_id"] for answer in answers}) == 1


def test_a_client_that_leaves_takes_its_batch_with_it(tasks: TaskStack) -> None:
    import socket

    _, _, port = tasks.stack.url.rpartition(":")
    body = b'{"tasks": [{"prompt": "leaving %b"}]}' % directive(hang=True).replace('"', '\\"').encode()
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        head = (
            f"POST /api/claude-code/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        wait_until(lambda: tasks.http("GET", "/api/tasks?status=running").json["total"] == 1)
    wait_until(lambda: tasks.http("GET", "/api/tasks?status=cancelled").json["total"] == 1)


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("async", {"prompt": "x", "colour": 1}, "colour"),
        ("async", {"prompt": "x", "options": {"colour": 1}}, "options.colour"),
        ("async", {}, "缺少必需的prompt参数"),
        ("async", {"prompt": "x", "options": {"temperature": 2}}, "options.temperature"),
        ("batch", {"tasks": []}, "tasks"),
        ("batch", {"tasks": [{"prompt": "x", "colour": 1}]}, "tasks[0].colour"),
        ("batch", {"tasks": [{"prompt": "x"}], "timeout": -1}, "timeout"),
        ("batch", {"tasks": [{"prompt": "x"}], "concurrency": 0}, "concurrency"),
        ("workflow", {"workflow": [{"prompt": "x"}]}, "workflow[0].name"),
        ("workflow", {"workflow": [{"name": "a", "prompt": "x", "critical": 1}]}, "critical"),
        ("workflow", {"workflow": [{"name": "a", "prompt": "x"}] * 2}, "same name"),
    ],
)
def test_what_is_wrong_is_400_and_named(tasks: TaskStack, path: str, body: object, named: str) -> None:
    answer = tasks.http("POST", f"/api/claude-code/{path}", body)
    assert answer.status == 400 and answer.json["error"] == "Bad Request"
    assert named in answer.json["message"]
