"""Durable work for `/openapi.json`: what the routes of this room take and give."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ccd_gateway.compat.task import CompatTaskOptions
from ccd_gateway.edge.description import (
    COUNT,
    TEXT,
    Description,
    Json,
    in_header,
    in_query,
    operation,
    record,
    ref,
    typed,
)
from ccd_gateway.shapes import FLASK, MESSAGES, OPENAI, Shape

_FLAG: Json = {"type": ["boolean", "null"]}
_ANY: Json = {"type": "object"}
_STATES = ["pending", "running", "completed", "failed", "cancelled", "interrupted"]
_KEY = in_header("Idempotency-Key", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,255}$"})
_WAIT = in_query("wait", {"type": "number", "minimum": 0, "maximum": 3600})
_LIMIT = in_query("limit", {"type": "integer", "minimum": 1, "maximum": 1000})
_AFTER = in_query("after", COUNT)
REFUSALS = {
    404: "There is no such thing, or the model does not exist.",
    409: "It is in a state that does not allow this.",
    413: "The body is too large.",
    500: "The gateway or the worker failed.",
    502: "The worker failed.",
    504: "It took too long.",
    507: "It cannot be written down now.",
}
TASK = ref("Task")
LISTED = record({"object": {"const": "list"}, "data": {"type": "array"}})
Described = Callable[[], Description]


def described(
    method: str,
    name: str,
    *,
    answer: Json | None = None,
    status: int = 200,
    also: int | None = None,
    shape: Shape = OPENAI,
    body: Json | None = None,
    required: bool = True,
    parameters: Iterable[Json] = (),
    path: Iterable[Json] = (),
    schemas: Json | None = None,
) -> Described:
    """One operation's description; several are joined by `both`."""

    def make() -> Description:
        made = operation(
            *(name, answer, REFUSALS),
            shape=shape,
            status=status,
            body=body,
            required=required,
            parameters=[*parameters, *path],
        )
        if also is not None:
            made["responses"][str(also)] = made["responses"][str(status)]
        return Description({method: made}, {**(schemas or {}), "Task": _task()})

    return make


def both(*parts: Described) -> Described:
    """Several operations of one path."""

    def make() -> Description:
        item: Json = {}
        schemas: Json = {}
        for part in parts:
            more, further = part()
            item |= more
            schemas |= further
        return Description(item, schemas)

    return make


def in_task_path() -> list[Json]:
    """The id in the path."""
    return [_in_path("task_id")]


def _task() -> Json:
    task = {
        **{"id": TEXT, "kind": {"enum": ["task", "batch", "workflow"]}, "surface": TEXT},
        **{"status": {"enum": [*_STATES, "open"]}, "final": {"type": "boolean"}, "total": COUNT},
        **{"items": _ANY, "interruptions": COUNT, "usage": _ANY, "cost_usd": {"type": "number"}},
    }
    return record(task)


def _whole() -> Json:
    number = {"type": ["number", "null"], "exclusiveMinimum": 0}
    return {
        **{"budget_usd": number, "deadline_s": number, "idempotency_key": TEXT},
        **{"priority": {"type": ["integer", "null"], "minimum": 0, "maximum": 9}},
        **{"metadata": {"type": ["object", "null"], "additionalProperties": TEXT}},
        **{"webhook": {"type": ["object", "null"]}},
    }


def _object(required: Json, further: Json) -> Json:
    return {**record(required), "properties": {**required, **further}}


def flask() -> dict[str, Described]:
    """Descriptions of the Flask project's paths."""
    step = {"prompt": TEXT, "options": {"anyOf": [{"type": "null"}, ref("TaskOptions")]}}
    one = _object({"prompt": TEXT}, {**step, **_whole()})
    listed = {"type": "array", "minItems": 1, "items": _object({"prompt": TEXT}, step)}
    times = {"timeout": {"type": "number", "minimum": 0.001, "maximum": 3600}}
    retries = {"max_retries": {"type": "integer", "minimum": 0, "maximum": 10}}
    more = {**times, **retries, **_whole(), "async": _FLAG, "concurrency": COUNT}
    batch = _object({"tasks": listed}, more)
    flags = {"critical": _FLAG, "use_context": _FLAG}
    steps = {
        "type": "array",
        "minItems": 1,
        "items": _object({"name": TEXT, "prompt": TEXT}, {**step, **flags}),
    }
    workflow = _object({"workflow": steps}, {**_whole(), "async": _FLAG})
    page = [in_query("status", {"enum": _STATES}), _LIMIT, in_query("offset", COUNT)]
    options = typed(CompatTaskOptions)

    def post(name: str, body: Json, status: int = 200, also: int | None = None) -> Described:
        return described(
            *("post", name),
            body=body,
            status=status,
            also=also,
            shape=FLASK,
            parameters=[_KEY],
            schemas=options,
        )

    return {
        "async": post("flaskAsync", one, 202),
        "batch": post("flaskBatch", batch, also=202),
        "workflow": post("flaskWorkflow", workflow, also=202),
        "task": described("get", "flaskTask", shape=FLASK, parameters=[_WAIT], path=in_task_path()),
        "list": described("get", "flaskTasks", shape=FLASK, parameters=page),
        "cleanup": described(
            *("post", "flaskCleanup"), shape=FLASK, body=_object({}, {"days": COUNT}), required=False
        ),
    }


def native() -> dict[str, Described]:
    """Descriptions of `/v1/tasks` and below, by the resource's suffix; `""` is the list."""
    kind = {"enum": ["task", "batch", "workflow"]}
    further = {"priority": _whole()["priority"], "options": _ANY, "idempotency_key": TEXT}
    steps = {"type": "array", "minItems": 1, "items": _ANY}
    words = [in_query(name, TEXT) for name in ("status", "kind", "surface", "after")]
    one = in_task_path()
    return {
        "": both(
            described("get", "tasks", answer=LISTED, parameters=[*words, _LIMIT]),
            described(
                *("post", "submitTask"),
                answer=TASK,
                status=202,
                also=200,
                body=_object({"kind": kind, "steps": steps}, further),
                parameters=[_KEY],
            ),
        ),
        "one": both(
            described("get", "task", answer=TASK, parameters=[_WAIT], path=one),
            described("delete", "forgetTask", path=one),
        ),
        "cancel": described("post", "cancelTask", answer=TASK, path=one),
        "retry": described("post", "retryTask", answer=TASK, path=one),
        "items": described("get", "taskItems", answer=LISTED, parameters=[_LIMIT, _AFTER], path=one),
        "events": _events(one),
        "webhooks": both(
            described("get", "taskWebhooks", answer=LISTED, path=one),
            described("post", "resendWebhooks", body=_ANY, required=False, path=one),
        ),
    }


def openai() -> dict[str, Described]:
    """Descriptions of `/v1/files` and `/v1/batches`, by path."""
    file, batch = [_in_path("file_id")], [_in_path("batch_id")]
    asked = {"input_file_id": TEXT, "endpoint": {"enum": ["/v1/chat/completions", "/v1/responses"]}}
    further = {"completion_window": {"const": "24h"}, "metadata": _whole()["metadata"]}
    made = record({"id": TEXT, "object": {"const": "batch"}, "status": TEXT})
    page = [_LIMIT, in_query("after", TEXT)]
    content = described("get", "fileContent", path=file)

    def as_bytes() -> Description:
        item, schemas = content()
        kind = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        item["get"]["responses"]["200"] = {"description": "The bytes.", "content": kind}
        return Description(item, schemas)

    return {
        "/v1/files": both(
            described("get", "files", answer=LISTED, parameters=page),
            described("post", "uploadFile", body=None),
        ),
        "/v1/files/{file_id}": both(
            described("get", "file", path=file), described("delete", "forgetFile", path=file)
        ),
        "/v1/files/{file_id}/content": as_bytes,
        "/v1/batches": both(
            described("get", "batches", answer=LISTED, parameters=page),
            described("post", "createBatch", answer=made, body=_object(asked, further)),
        ),
        "/v1/batches/{batch_id}": described("get", "batch", answer=made, path=batch),
        "/v1/batches/{batch_id}/cancel": described("post", "cancelBatch", answer=made, path=batch),
    }


def anthropic() -> dict[str, Described]:
    """Descriptions of `/v1/messages/batches`, by path."""
    one = "/v1/messages/batches/{batch_id}"
    batch = [_in_path("batch_id")]
    request = record({"custom_id": {**TEXT, "minLength": 1, "maxLength": 64}, "params": _ANY})
    asked = record({"requests": {"type": "array", "minItems": 1, "items": request}})
    made = record({"id": TEXT, "type": {"const": "message_batch"}, "processing_status": TEXT})
    page = [_LIMIT, in_query("after_id", TEXT)]
    shape = MESSAGES
    results = described("get", "messageBatchResults", shape=shape, path=batch)

    def as_lines() -> Description:
        item, schemas = results()
        item["get"]["responses"]["200"]["content"] = {"application/x-jsonl": {"schema": TEXT}}
        return Description(item, schemas)

    return {
        "/v1/messages/batches": both(
            described("get", "messageBatches", shape=shape, parameters=page),
            described("post", "createMessageBatch", shape=shape, answer=made, body=asked),
        ),
        one: both(
            described("get", "messageBatch", shape=shape, answer=made, path=batch),
            described("delete", "forgetMessageBatch", shape=shape, path=batch),
        ),
        f"{one}/cancel": described("post", "cancelMessageBatch", shape=shape, answer=made, path=batch),
        f"{one}/results": as_lines,
    }


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}


def _events(path: list[Json]) -> Described:
    plain = described("get", "taskEvents", parameters=[_AFTER], path=path)

    def make() -> Description:
        item, schemas = plain()
        stream = {"text/event-stream": {"schema": TEXT}}
        item["get"]["responses"]["200"] = {"description": "Server-sent events.", "content": stream}
        return Description(item, schemas)

    return make
