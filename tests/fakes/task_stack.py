"""A stack with a worker, and what tests ask of it."""

from __future__ import annotations

import json
import os
import sqlite3
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from ccd_client import Client
from ccd_settings.paths import tasks_socket

from .stack import Running, Stack, _opener, start


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class TaskStack:
    """Calls of the worker's socket and of the gateway."""

    def __init__(self, stack: Stack, **settings: str) -> None:
        self.stack = stack
        self.worker: Running
        self._settings = settings

    @property
    def socket(self) -> Path:
        return tasks_socket(self.stack.socket)

    @property
    def database(self) -> Path:
        return Path(self.stack.settings["CCD_DATA__DIR"]) / "tasks" / "tasks.sqlite3"

    def start(self, module: str = "ccd_cli", **extra: str) -> Running:
        environ = {**self.stack.environ(), **self._settings, **extra}
        if module != "ccd_cli":  # one of the fakes
            paths = [str(Path(__file__).parents[1]), environ.get("PYTHONPATH", "")]
            environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self.worker = start(["-m", module, "worker"], environ, self.stack.folder / "worker.log")
        return self.worker

    def stop(self) -> None:
        if self.worker.process.poll() is None:
            assert self.worker.stop() == 0, self.worker.log_text()

    def call(self, method: str, **params: Any) -> Any:
        with Client(self.socket) as client:
            return client.call(method, params, timeout_s=100)

    def submit(self, *prompts: str, kind: str = "task", options: Any = None, **more: Any) -> Any:
        steps = [{"name": f"s{number}", **chat(prompt)} for number, prompt in enumerate(prompts)]
        return self.call("task.submit", kind=kind, steps=steps, options=options or {}, **more)

    def wait(self, task_id: str, timeout_s: float = 60.0) -> Any:
        task = self.call("task.wait", task_id=task_id, timeout_s=timeout_s)
        assert task["final"], task
        return task

    def items(self, task_id: str) -> list[Any]:
        return list(self.call("task.items", task_id=task_id, limit=1000)["items"])

    def events(self, task_id: str, after: int = 0, **more: Any) -> list[Any]:
        with Client(self.socket) as client:
            stream = client.call_stream("task.events", {"task_id": task_id, "after": after, **more})
            return [json.loads(line) for line in b"".join(stream).splitlines()]

    def http(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.stack.url}{path}", data, names, method=method)
        try:
            with _opener.open(request, timeout=100) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read())

    def sql(self, statement: str, *values: Any) -> list[Any]:
        with sqlite3.connect(self.database, timeout=30) as connection:
            return connection.execute(statement, values).fetchall()


def chat(prompt: str) -> dict[str, Any]:
    """A step that asks for one answer."""
    return {"chat": {"messages": [{"role": "user", "content": prompt}]}}
