"""The worker on a real daemon and CLI: what is accepted ends once, whatever is done to the processes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from ccd_protocol.errors import Code, RpcError
from fakes.offline_api import directive
from fakes.stack import wait_until
from fakes.task_stack import TaskStack, chat

SLOW = directive(deltas=40, delta_ms=100)


def test_a_task_ends_with_answer_usage_and_cost(tasks: TaskStack) -> None:
    task = tasks.submit(directive(text="yes"))
    ended = tasks.wait(task["id"])
    assert ended["status"] == "completed" and ended["items"]["completed"] == 1
    assert ended["usage"]["output_tokens"] > 0 and ended["cost_usd"] > 0
    [item] = tasks.items(task["id"])
    assert item["result"]["text"] == "yes" and item["attempts"] == 1 and item["interruptions"] == 0


def test_events_can_be_read_again_from_any_point(tasks: TaskStack) -> None:
    task = tasks.submit(directive(deltas=20, delta_ms=40))
    events = tasks.events(task["id"])  # live: it lasts as long as the task
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    text = "".join(event["data"]["text"] for event in events if event["type"] == "text")
    assert text == tasks.items(task["id"])[0]["result"]["text"]
    assert len([event for event in events if event["type"] == "text"]) > 1  # as it came
    assert events[-1]["type"] == "end"
    assert tasks.events(task["id"], after=events[2]["seq"]) == events[3:]


def test_events_over_http_go_on_after_the_last_event_id(tasks: TaskStack) -> None:
    task = tasks.submit("hello", tenant="local")
    tasks.call("task.wait", task_id=task["id"], tenant="local")
    whole = tasks.http("GET", f"/v1/tasks/{task['id']}/events").body.decode()
    blocks = whole.strip().split("\n\n")
    assert blocks[0].startswith("id: 1\nevent: status\ndata: {")
    rest = tasks.http("GET", f"/v1/tasks/{task['id']}/events", Last_Event_ID="2").body.decode()
    assert rest.strip().split("\n\n") == blocks[2:]


def test_an_idempotency_key_stands_for_one_task(tasks: TaskStack) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: tasks.submit("once", idempotency_key="k1")["id"], range(8)))
    assert len(set(found)) == 1
    assert tasks.wait(found[0])["total"] == 1
    with pytest.raises(RpcError) as caught:
        tasks.submit("other", idempotency_key="k1")
    assert caught.value.code is Code.CONFLICT


def test_cancelling_ends_a_running_and_a_waiting_task(tasks: TaskStack) -> None:
    running = tasks.submit(SLOW)
    wait_until(lambda: tasks.call("task.get", task_id=running["id"])["status"] == "running")
    tasks.call("task.cancel", task_id=running["id"])
    assert tasks.wait(running["id"])["status"] == "cancelled"
    batch = tasks.submit(*[SLOW] * 40, kind="batch", options={"concurrency": 2})
    wait_until(lambda: tasks.call("task.get", task_id=batch["id"])["items"]["running"] == 2)
    tasks.call("task.cancel", task_id=batch["id"])
    ended = tasks.wait(batch["id"])
    assert ended["status"] == "cancelled" and ended["items"]["cancelled"] == 40
    assert tasks.call("task.cancel", task_id=batch["id"])["status"] == "cancelled"  # again: nothing


def test_a_failed_line_hurts_no_other_and_can_be_tried_again(tasks: TaskStack) -> None:
    broken = directive(status=400, error_type="invalid_request_error", message="no", times=1)
    steps = [{"name": f"s{n}", "retries": 0, **chat(text)} for n, text in enumerate(("one", broken, "three"))]
    batch = tasks.call("task.submit", kind="batch", steps=steps)
    assert tasks.wait(batch["id"])["items"] == {
        **dict.fromkeys(("pending", "running", "cancelled", "interrupted"), 0),
        **{"completed": 2, "failed": 1},
    }
    assert [item["name"] for item in tasks.items(batch["id"])] == ["s0", "s1", "s2"]
    tasks.call("task.retry", task_id=batch["id"])
    assert tasks.wait(batch["id"])["items"]["completed"] == 3
    with pytest.raises(RpcError, match="nothing to try again"):
        tasks.call("task.retry", task_id=batch["id"])


def test_a_budget_ends_a_batch_cleanly(tasks: TaskStack) -> None:
    options = {"budget_usd": 0.0001, "concurrency": 1}
    batch = tasks.submit(*["line"] * 20, kind="batch", options=options)
    ended = tasks.wait(batch["id"])
    assert ended["status"] == "failed" and ended["error"]["code"] == "budget"
    assert ended["items"]["completed"] == 1 and ended["items"]["cancelled"] == 19


def test_steps_see_what_came_before_and_a_critical_one_ends_the_run(tasks: TaskStack) -> None:
    steps = [
        {"name": "first", **chat(directive(text="blue"))},
        {"name": "second", "use_context": True, **chat("Which colour?")},
        {"name": "third", "critical": True, **chat(directive(status=400, message="no"))},
        {"name": "fourth", **chat("never asked")},
    ]
    task = tasks.call("task.submit", kind="workflow", steps=steps)
    ended = tasks.wait(task["id"])
    items = tasks.items(task["id"])
    assert "blue" in items[1]["result"]["text"]
    assert [item["status"] for item in items] == ["completed", "completed", "failed", "cancelled"]
    assert ended["status"] == "failed" and ended["error"]["code"] == items[2]["error"]["code"]


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"kind": "task", "steps": []}, "steps"),
        ({"kind": "task", "steps": [{"name": "a\0b", **chat("x")}]}, "steps[0].name"),
        ({"kind": "task", "steps": [chat("x")], "idempotency_key": "\n"}, "idempotency_key"),
        ({"kind": "nothing", "steps": [chat("x")]}, "kind"),
        ({"kind": "task", "steps": [chat("x")], "colour": 1}, "colour"),
        ({"kind": "task", "steps": [{"chat": {"messages": [{}], "colour": 1}}]}, "steps[0].chat.colour"),
        ({"kind": "task", "steps": [{"chat": {"messages": []}}]}, "steps[0].chat.messages"),
        ({"kind": "task", "steps": [{**chat("x"), "colour": 1}]}, "colour"),
        ({"kind": "task", "steps": [{}]}, "steps[0]"),
        ({"kind": "task", "steps": [{**chat("x"), "critical": True}]}, "steps[0]"),
        ({"kind": "task", "steps": [chat("x")], "options": {"concurrency": 2}}, "options.concurrency"),
        ({"kind": "task", "steps": [chat("x")], "options": {"webhook": {"url": "file:///x"}}}, "webhook.url"),
        (
            {"kind": "batch", "steps": [{"chat": {"messages": [{}], "conversation_id": "c"}}]},
            "conversation_id",
        ),
    ],
)
def test_what_is_wrong_is_named(tasks: TaskStack, params: object, param: str) -> None:
    with pytest.raises(RpcError) as caught:
        tasks.call("task.submit", **params)  # type: ignore[arg-type]
    assert caught.value.code is Code.BAD_PARAMS and param in caught.value.message


def test_a_tenant_sees_its_own_tasks_only(tasks: TaskStack) -> None:
    task = tasks.submit("mine", tenant="a")
    for method in ("get", "cancel", "items", "wait", "retry", "delete", "webhooks", "events"):
        with pytest.raises(RpcError) as caught:
            if method == "events":
                tasks.events(task["id"])
            else:
                tasks.call(f"task.{method}", task_id=task["id"], tenant="b")
        assert caught.value.code is Code.NOT_FOUND, method
    assert tasks.call("task.list", tenant="b")["tasks"] == []
    assert tasks.call("task.list", tenant="a")["total"] == 1


def test_records_that_cannot_be_read_fail_and_stop_nothing(tasks: TaskStack) -> None:
    blocker = tasks.submit(*[directive(deltas=20, delta_ms=50)] * 8, kind="batch", options={"concurrency": 4})
    one, two, good = tasks.submit("x", kind="batch", options={}), tasks.submit("y"), tasks.submit("z")
    tasks.stop()
    for task in (one, two, good):
        tasks.sql("UPDATE ccd_task SET status = 'pending' WHERE id = ?", task["id"])
        tasks.sql("UPDATE ccd_task SET generation = generation + 1 WHERE id = ?", task["id"])
        tasks.sql("UPDATE ccd_item SET status = 'pending' WHERE task_id = ?", task["id"])
    tasks.sql("UPDATE ccd_item SET params = '{\"chat\": [' WHERE task_id = ?", one["id"])
    tasks.sql("UPDATE ccd_task SET spec = 'ouch' WHERE id = ?", two["id"])
    tasks.start()
    assert tasks.wait(good["id"])["status"] == "completed"
    assert tasks.wait(two["id"])["error"]["code"] == "unreadable"
    tasks.wait(one["id"])
    assert tasks.items(one["id"])[0]["error"]["code"] == "unreadable"
    assert tasks.wait(blocker["id"])["items"]["completed"] == 8


def test_kill_9_in_mid_run_loses_nothing_and_says_what_was_interrupted(tasks: TaskStack) -> None:
    # The first one is surely in mid-answer when the worker is killed; the others may all just have ended.
    prompts = [
        f"line {number} {directive(deltas=10, delta_ms=40 if number else 800)}" for number in range(24)
    ]
    batch = tasks.submit(*prompts, kind="batch", options={"concurrency": 4})
    singles = [tasks.submit(f"single {number}")["id"] for number in range(6)]
    wait_until(lambda: tasks.call("task.get", task_id=batch["id"])["items"]["completed"] >= 4)
    tasks.worker.kill()
    tasks.start()
    ended = tasks.wait(batch["id"])
    assert ended["items"]["completed"] == 24 and 1 <= ended["interruptions"] <= 4
    assert all(tasks.wait(task_id)["status"] == "completed" for task_id in singles)
    asked = [json.dumps(body["messages"]) for body in tasks.stack.api.bodies()]
    for number, item in enumerate(tasks.items(batch["id"])):
        times = sum(f"line {number} " in text for text in asked)
        assert 1 <= times <= 1 + item["interruptions"], (number, times, item)


def test_a_prompt_that_always_kills_its_worker_fails_and_stops_nothing(tasks: TaskStack) -> None:
    poison = tasks.submit(directive(hang_after_deltas=1, deltas=3), options={})
    others = []
    for round_ in range(4):
        wait_until(lambda: tasks.items(poison["id"])[0]["attempts"] == round_ + 1)  # noqa: B023
        others.append(tasks.submit(f"innocent {round_}")["id"])
        tasks.worker.kill()
        tasks.start()
    assert tasks.wait(poison["id"])["status"] == "failed"
    assert tasks.items(poison["id"])[0]["error"]["code"] == "poisoned"
    assert {tasks.wait(task_id)["status"] for task_id in others} == {"completed"}


def test_a_daemon_that_is_killed_is_waited_for(tasks: TaskStack) -> None:
    task = tasks.submit(SLOW)
    wait_until(lambda: tasks.call("task.get", task_id=task["id"])["items"]["running"] == 1)
    tasks.stack.daemon.kill()
    tasks.stack.start_daemon()
    assert tasks.wait(task["id"])["status"] == "completed"
    assert tasks.items(task["id"])[0]["interruptions"] == 1


def test_an_older_version_of_the_steps_is_gone_on_with(tasks: TaskStack) -> None:
    task = tasks.submit(*[directive(deltas=10, delta_ms=50)] * 12, kind="batch", options={"concurrency": 2})
    wait_until(lambda: tasks.call("task.get", task_id=task["id"])["items"]["completed"] >= 2)
    tasks.worker.kill()
    tasks.sql(
        "UPDATE workflow_status SET application_version = '0' WHERE workflow_uuid LIKE ?", f"{task['id']}%"
    )
    tasks.start()
    assert tasks.wait(task["id"])["items"]["completed"] == 12
    [[generation]] = tasks.sql("SELECT generation FROM ccd_task WHERE id = ?", task["id"])
    assert generation == 1


def test_an_agents_step_is_a_session_and_is_never_repeated(tasks: TaskStack) -> None:
    done = tasks.call("task.submit", kind="task", steps=[{"agent": {}, "prompt": directive(text="built")}])
    ended = tasks.wait(done["id"])
    [item] = tasks.items(done["id"])
    assert ended["status"] == "completed" and item["result"]["text"] == "built", item
    assert ended["cost_usd"] > 0 and ended["usage"]["output_tokens"] > 0
    steps = [{"agent": {}, "prompt": directive(text="built", delay_ms=60000)}]
    cut = tasks.call("task.submit", kind="task", steps=steps)
    wait_until(lambda: tasks.items(cut["id"])[0]["status"] == "running")
    tasks.worker.kill()
    tasks.start()
    assert tasks.wait(cut["id"])["status"] == "interrupted"
    assert tasks.items(cut["id"])[0]["error"]["code"] == "interrupted"
