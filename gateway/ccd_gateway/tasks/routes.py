"""Where durable work is."""

from __future__ import annotations

from ccd_gateway.answer.backend import Backend
from ccd_gateway.anthropic.routes import Messages
from ccd_gateway.chat.routes import ChatCompletions
from ccd_gateway.compat.rate import SharedLimit
from ccd_gateway.edge.routing import Route
from ccd_gateway.responses.routes import Responses
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.shapes import FLASK, MESSAGES
from ccd_gateway.tasks import description
from ccd_gateway.tasks.batches.anthropic import MessageBatches
from ccd_gateway.tasks.batches.files import BatchFiles
from ccd_gateway.tasks.batches.lines import BatchLines
from ccd_gateway.tasks.batches.openai import Batches
from ccd_gateway.tasks.flask import FlaskTasks
from ccd_gateway.tasks.native import NativeTasks
from ccd_gateway.tasks.worker import TaskWorker

TASKS = ("tasks",)
_FLASK_SCOPES = ("tasks", "agent")  # as that project's other route


def routes(
    worker: TaskWorker, settings: GatewaySettings, limit: SharedLimit, backend: Backend, answers: Responses
) -> list[Route]:
    """All of them. They stand before those of the surfaces, which refuse what is not there below their paths."""
    chat, messages = ChatCompletions(backend, settings), Messages(backend, settings)
    lines = BatchLines(worker, chat, answers, messages)
    files = BatchFiles(worker)
    return [
        *_flask(FlaskTasks(worker, settings, limit)),
        *_native(NativeTasks(worker, settings)),
        *_openai(files, Batches(worker, settings, lines, files)),
        *_anthropic(MessageBatches(worker, settings, lines)),
    ]


def _openai(files: BatchFiles, batches: Batches) -> list[Route]:
    told = description.openai()
    paths = {
        "/v1/files": (files, None),
        "/v1/files/{file_id}": (files, "one"),
        "/v1/files/{file_id}/content": (files, "content"),
        "/v1/batches": (batches, None),
        "/v1/batches/{batch_id}": (batches, "one"),
        "/v1/batches/{batch_id}/cancel": (batches, "cancel"),
    }
    return [
        Route(path, resource, told[path], suffix, scopes=TASKS, versioned=MESSAGES)
        for path, (resource, suffix) in paths.items()
    ]


def _anthropic(batches: MessageBatches) -> list[Route]:
    told = description.anthropic()
    one = "/v1/messages/batches/{batch_id}"
    paths = {
        "/v1/messages/batches": None,
        one: "one",
        f"{one}/cancel": "cancel",
        f"{one}/results": "results",
    }
    return [
        Route(path, batches, told[path], suffix, scopes=TASKS, shape=MESSAGES)
        for path, suffix in paths.items()
    ]


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


def _native(tasks: NativeTasks) -> list[Route]:
    told = description.native()
    words = [word for word in told if word not in ("", "one")]
    return [
        Route("/v1/tasks", tasks, told[""], scopes=TASKS),
        Route("/v1/tasks/{task_id}", tasks, told["one"], "one", scopes=TASKS),
        *(Route(f"/v1/tasks/{{task_id}}/{word}", tasks, told[word], word, scopes=TASKS) for word in words),
    ]
