"""(t) Durable work: what acceptance costs, how near a batch comes to the engine lane's own rate, and what idling costs.

Floor of the rates: the same number of chats over the daemon's socket, as many at a time, in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.engine import in_parallel
from bench.measure import Figure, cpu_s, figure, single
from bench.stage import Bench, Stack, daemon_stack, instant_api, start, wait_until
from ccd_client import Client
from ccd_settings.paths import tasks_socket

GROUP = "t tasks"
_CONCURRENCY = 4


def run(bench: Bench) -> list[Figure]:
    """Submitting, a batch against the engine lane, single tasks, idling."""
    folder = bench.room("tasks")
    settings = {"CCD_TASKS__CONCURRENCY": str(_CONCURRENCY), "CCD_DATA__DIR": str(folder / "data")}
    with (
        instant_api(folder) as api,
        daemon_stack(folder / "ccd", bench.cli, api, **settings) as stack,
        _worker(stack, folder) as pid,
        Client(stack.socket) as daemon,
        Client(tasks_socket(stack.socket)) as worker,
    ):
        wait_until(lambda: stack.status()["state"] == "ready", timeout_s=30)
        in_parallel(8, lambda index: _ask(daemon, "warm"))
        return [*_rates(bench, daemon, worker, pid), *_submits(bench, worker), _idle(bench, pid)]


@contextmanager
def _worker(stack: Stack, folder: Path) -> Iterator[int]:
    running = start(["-m", "ccd_cli", "worker"], stack.environ(), folder / "worker.log")
    try:
        yield running.pid
    finally:
        running.stop()


def _rates(bench: Bench, daemon: Client, worker: Client, pid: int) -> list[Figure]:
    """A batch, and the same by hand; by turns, as the machine's speed changes."""
    count, rounds = bench.rounds(1000, 200), 2
    ours, theirs, cpu_ms = [], [], []
    for _ in range(rounds):
        theirs.append(count / in_parallel(count, lambda index: _ask(daemon, f"question {index}")))
        before_s, started = cpu_s(pid), time.perf_counter()
        steps = [_step(f"question {index}") for index in range(count)]
        task = worker.call("task.submit", {"kind": "batch", "steps": steps})
        ended = _ended(worker, task["id"])
        ours.append(count / (time.perf_counter() - started))
        cpu_ms.append(1000 * (cpu_s(pid) - before_s) / count)
        assert ended["items"]["completed"] == count, ended
    singles = bench.rounds(200, 60)
    started = time.perf_counter()
    ids = [_submit(worker, f"single {index}") for index in range(singles)]
    for task_id in ids:
        _ended(worker, task_id)
    rate = singles / (time.perf_counter() - started)
    floor = max(theirs)
    return [
        single(GROUP, f"chats by hand, {_CONCURRENCY} at a time", "requests/s", floor, note=f"{count}"),
        single(
            GROUP, f"a batch of {count}, end to end", "lines/s", max(ours),
            ratio=max(ours) / floor, floor="by hand", target="at least 0.7×",
        ),
        figure(GROUP, "the worker's CPU for one line of a batch", "ms", cpu_ms),
        single(
            GROUP, f"{singles} single tasks, end to end", "tasks/s", rate, ratio=rate / floor, floor="by hand"
        ),
    ]  # fmt: skip


def _submits(bench: Bench, worker: Client) -> list[Figure]:
    """Acceptance, synced to the disk, while those accepted before are run."""
    count = bench.rounds(200, 50)
    took_ms, ids, started = [], [], time.perf_counter()
    for index in range(count):
        begun = time.perf_counter()
        ids.append(_submit(worker, f"accepted {index}"))
        took_ms.append(1000 * (time.perf_counter() - begun))
    rate = count / (time.perf_counter() - started)
    for task_id in ids:
        _ended(worker, task_id)
    return [
        figure(GROUP, "submitting a task, until it is on the disk", "ms", took_ms),
        single(GROUP, "submitting one after the other", "tasks/s", rate),
    ]


def _idle(bench: Bench, pid: int) -> Figure:
    time.sleep(5)
    seconds = bench.rounds(20, 8)
    before_s = cpu_s(pid)
    time.sleep(seconds)
    spent = 1000 * (cpu_s(pid) - before_s) / seconds
    return single(GROUP, "CPU of an idle worker", "ms/s", spent, target="at most 10")


def _step(text: str) -> dict[str, Any]:
    return {"chat": {"messages": [{"role": "user", "content": text}], "model": "haiku"}}


def _submit(worker: Client, text: str) -> str:
    return str(worker.call("task.submit", {"kind": "task", "steps": [_step(text)]})["id"])


def _ended(worker: Client, task_id: str) -> dict[str, Any]:
    while True:
        task: dict[str, Any] = worker.call("task.wait", {"task_id": task_id, "timeout_s": 60})
        if task["final"]:
            return task


def _ask(client: Client, text: str) -> None:
    client.call("chat.complete", {"messages": [{"role": "user", "content": text}], "model": "haiku"})
