"""Where durable work is."""

from __future__ import annotations

from typing import TypeAlias

import falcon.asgi

from ccd_gateway.compat.rate import SharedLimit
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.tasks.flask import FlaskTasks
from ccd_gateway.tasks.native import Tasks
from ccd_gateway.tasks.worker import TaskWorker

App: TypeAlias = falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]


def add_routes(app: App, worker: TaskWorker, settings: GatewaySettings, limit: SharedLimit) -> None:
    """Register them."""
    flask = FlaskTasks(worker, settings, limit)
    app.add_route("/api/claude-code/async", flask, suffix="async")
    app.add_route("/api/claude-code/task/{task_id}", flask, suffix="task")
    app.add_route("/api/claude-code/batch", flask, suffix="batch")
    app.add_route("/api/claude-code/workflow", flask, suffix="workflow")
    app.add_route("/api/tasks", flask, suffix="list")
    app.add_route("/api/tasks/cleanup", flask, suffix="cleanup")
    tasks = Tasks(worker, settings)
    app.add_route("/v1/tasks", tasks)
    app.add_route("/v1/tasks/{task_id}", tasks, suffix="one")
    for word in ("cancel", "retry", "items", "events", "webhooks"):
        app.add_route(f"/v1/tasks/{{task_id}}/{word}", tasks, suffix=word)
