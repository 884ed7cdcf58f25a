"""The ledger: 200 tasks while worker, daemon and gateway are killed at random points. `make soak`."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter

import pytest

from fakes import stack
from fakes.offline_api import directive
from fakes.task_stack import TaskStack

TASKS = 200
KILLS = 18


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_every_accepted_task_ends_once_and_nothing_is_billed_twice_unsaid(
    tasks: TaskStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "READY_TIMEOUT_S", 300.0)
    accepted: dict[int, str] = {}
    rng = random.Random(20261129)
    done = threading.Event()

    def hand_over() -> None:
        """Submit over HTTP until it is acknowledged, each under its own key, as a careful client does."""
        for number in range(TASKS):
            body = {"prompt": f"ledger-{number}. {directive(deltas=rng.randint(1, 12), delta_ms=40)}"}
            while number not in accepted:
                try:
                    answer = tasks.http(
                        "POST", "/api/claude-code/async", body, Idempotency_Key=f"ledger-{number}"
                    )
                    if answer.status == 202:
                        accepted[number] = answer.json["task_id"]
                        continue
                except OSError:
                    pass  # the gateway was killed: ask again
                time.sleep(0.2)
        done.set()

    submitting = threading.Thread(target=hand_over)
    submitting.start()
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.3, 4.0))
        victim = rng.choice(["worker", "worker", "daemon", "gateway"])
        if victim == "worker":
            tasks.worker.kill()
            tasks.start()
        elif victim == "daemon":
            tasks.stack.daemon.kill()
            tasks.stack.start_daemon()
        else:
            assert tasks.stack.gateway is not None
            port = tasks.stack.url.rpartition(":")[2]
            tasks.stack.gateway.kill()
            tasks.stack.start_gateway(port=int(port))
    submitting.join()
    assert done.is_set() and len(set(accepted.values())) == TASKS

    ends: Counter[str] = Counter()
    said: dict[int, int] = {}
    for number, task_id in accepted.items():
        task = tasks.call("task.wait", task_id=task_id, timeout_s=120, tenant="local")
        assert task["final"], task
        ends[task["status"]] += 1
        [item] = tasks.call("task.items", task_id=task_id, tenant="local")["items"]
        said[number] = item["interruptions"]
        events = tasks.events(task_id, tenant="local")
        assert [event["type"] for event in events].count("end") == 1, events
    asked: Counter[int] = Counter()
    for body in tasks.stack.api.bodies():
        text = json.dumps(body["messages"])
        if "ledger-" in text:
            asked[int(text.partition("ledger-")[2].partition(".")[0])] += 1
    unsaid = {n: (asked[n], said[n]) for n in accepted if asked[n] > 1 + said[n]}
    assert not unsaid, unsaid
    assert all(asked[n] >= 1 for n in accepted)
    assert ends["completed"] >= TASKS - 5, ends
    print(dict(ends), f"asked more than once: {sum(count > 1 for count in asked.values())}")
