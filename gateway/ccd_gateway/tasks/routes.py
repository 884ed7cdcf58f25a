"""Where durable work is."""

from __future__ import annotations

from ccd_gateway.compat.rate import SharedLimit
from ccd_gateway.edge.routing import Route
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.shapes import FLASK
from ccd_gateway.tasks import description
from ccd_gateway.tasks.flask import FlaskTasks
from ccd_gateway.tasks.native import Tasks
from ccd_gateway.tasks.worker import TaskWorker

TASKS = ("tasks",)
_FLASK_SCOPES = ("tasks", "agent")  # as that project's other route


def routes(worker: TaskWorker, settings: GatewaySettings, limit: SharedLimit) -> list[Route]:
    """All of them. They stand before those of the surfaces, which refuse what is not there below their paths."""
    return [*_flask(FlaskTasks(worker, settings, limit)), *_native(Tasks(worker, settings))]


def _flask(flask: FlaskTasks) -> list[Route]:
    paths = {
        "async": "/api/claude-code/async",
        "task": "/api/claude-code/task/{task_id}",
        "batch": "/api/claude-code/batch",
        "workflow": "/api/claude-code/workflow",
        "list": "/api/tasks",
        "cleanup": "/api/tasks/cleanup",
    }
    told = description.flask()
    return [
        Route(path, flask, told[suffix], suffix, scopes=_FLASK_SCOPES, shape=FLASK)
        for suffix, path in paths.items()
    ]


def _native(tasks: Tasks) -> list[Route]:
    told = description.native()
    words = [word for word in told if word not in ("", "one")]
    return [
        Route("/v1/tasks", tasks, told[""], scopes=TASKS),
        Route("/v1/tasks/{task_id}", tasks, told["one"], "one", scopes=TASKS),
        *(Route(f"/v1/tasks/{{task_id}}/{word}", tasks, told[word], word, scopes=TASKS) for word in words),
    ]
