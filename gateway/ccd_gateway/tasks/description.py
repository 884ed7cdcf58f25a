"""Durable work for `/openapi.json`."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_FLAG = {"type": ["boolean", "null"]}
_ANY = {"type": "object"}
_ID = {"name": "task_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,255}$"},
}
_STATES = ["pending", "running", "completed", "failed", "cancelled", "interrupted"]
_REFUSALS = (400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 500, 502, 503, 504, 507)
_FLASK_STEP = {"prompt": _TEXT, "options": {"$ref": "#/components/schemas/FlaskTask/properties/options"}}


def paths() -> Json:
    """Path items."""
    return {**_flask(), **_native()}


def _flask() -> Json:
    whole = {**_whole(), "idempotency_key": _TEXT}
    one = _object({"prompt": _TEXT}, {**_FLASK_STEP, **whole})
    listed = {"type": "array", "minItems": 1, "items": _object({"prompt": _TEXT}, _FLASK_STEP)}
    times = {"timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 3600}}
    retries = {"max_retries": {"type": "integer", "minimum": 0, "maximum": 10}}
    batch = _object({"tasks": listed}, {**times, **retries, **whole, "async": _FLAG, "concurrency": _COUNT})
    step = {**_FLASK_STEP, "name": _TEXT, "critical": _FLAG, "use_context": _FLAG}
    steps = {"type": "array", "minItems": 1, "items": _object({"name": _TEXT, "prompt": _TEXT}, step)}
    workflow = _object({"workflow": steps}, {**whole, "async": _FLAG})
    page = [
        _query("status", {"enum": _STATES}),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}),
        _query("offset", _COUNT),
    ]
    cleanup = {"content": {"application/json": {"schema": _object({}, {"days": _COUNT})}}}
    flask: Json = {"error": "FlaskError"}
    return {
        "/api/claude-code/async": {
            "post": {**_post("flaskAsync", 202, _ANY, **flask), **_body(one), "parameters": [_KEY]}
        },
        "/api/claude-code/batch": {
            "post": {**_post("flaskBatch", 200, _ANY, 202, **flask), **_body(batch), "parameters": [_KEY]}
        },
        "/api/claude-code/workflow": {
            "post": {
                **_post("flaskWorkflow", 200, _ANY, 202, **flask),
                **_body(workflow),
                "parameters": [_KEY],
            }
        },
        "/api/claude-code/task/{task_id}": {
            "parameters": [_ID],
            "get": {**_post("flaskTask", 200, _ANY, **flask), "parameters": [_wait()]},
        },
        "/api/tasks": {"get": {**_post("flaskTasks", 200, _ANY, **flask), "parameters": page}},
        "/api/tasks/cleanup": {"post": {**_post("flaskCleanup", 200, _ANY, **flask), "requestBody": cleanup}},
    }


def _native() -> Json:
    steps = {"type": "array", "minItems": 1, "items": _ANY}
    kind = {"enum": ["task", "batch", "workflow"]}
    priority = {"type": "integer", "minimum": 0, "maximum": 9}
    further = {"priority": priority, "options": _ANY, "idempotency_key": _TEXT}
    submit = _object({"kind": kind, "steps": steps}, further)
    task = {"$ref": "#/components/schemas/Task"}
    listed = _object({"object": {"const": "list"}, "data": {"type": "array"}}, {})
    limit = _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000})
    words = [_query(name, _TEXT) for name in ("status", "kind", "surface", "after")]
    after = _query("after", _COUNT)
    one = "/v1/tasks/{task_id}"
    stream = {
        "description": "Server-sent events.",
        "content": {"text/event-stream": {"schema": _TEXT}},
    }
    events = _post("taskEvents", 200, _ANY)
    events["responses"]["200"] = stream
    return {
        "/v1/tasks": {
            "get": {**_post("tasks", 200, listed), "parameters": [*words, limit]},
            "post": {**_post("submitTask", 202, task, 200), **_body(submit), "parameters": [_KEY]},
        },
        one: {
            "parameters": [_ID],
            "get": {**_post("task", 200, task), "parameters": [_wait()]},
            "delete": _post("forgetTask", 200, _ANY),
        },
        f"{one}/cancel": {"parameters": [_ID], "post": _post("cancelTask", 200, task)},
        f"{one}/retry": {"parameters": [_ID], "post": _post("retryTask", 200, task)},
        f"{one}/items": {
            "parameters": [_ID],
            "get": {**_post("taskItems", 200, listed), "parameters": [limit, after]},
        },
        f"{one}/events": {"parameters": [_ID], "get": {**events, "parameters": [after]}},
        f"{one}/webhooks": {
            "parameters": [_ID],
            "get": _post("taskWebhooks", 200, listed),
            "post": {
                **_post("resendWebhooks", 200, _ANY),
                "requestBody": {"content": {"application/json": {"schema": _ANY}}},
            },
        },
    }


def schemas() -> Json:
    """The schemas that `paths` refers to."""
    task = {
        **{"id": _TEXT, "kind": {"enum": ["task", "batch", "workflow"]}, "surface": _TEXT},
        **{"status": {"enum": [*_STATES, "open"]}, "final": {"type": "boolean"}, "total": _COUNT},
        **{"items": _ANY, "interruptions": _COUNT, "usage": _ANY, "cost_usd": {"type": "number"}},
    }
    return {"Task": _object(task, {})}


def _whole() -> Json:
    number = {"type": ["number", "null"], "exclusiveMinimum": 0}
    return {
        **{"budget_usd": number, "deadline_s": number},
        **{"priority": {"type": ["integer", "null"], "minimum": 0, "maximum": 9}},
        **{"metadata": {"type": ["object", "null"], "additionalProperties": _TEXT}},
        **{"webhook": {"type": ["object", "null"]}},
    }


def _wait() -> Json:
    return _query("wait", {"type": "number", "minimum": 0, "maximum": 3600})


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "schema": schema}


def _post(name: str, status: int, schema: Json, other: int | None = None, *, error: str = "Error") -> Json:
    done = {"description": "Done.", "content": {"application/json": {"schema": schema}}}
    refused = {
        "description": "Refused, or failed.",
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}},
    }
    answers = {str(code): refused for code in _REFUSALS} | {str(status): done}
    if other is not None:
        answers[str(other)] = done
    return {"operationId": name, "responses": answers}


def _body(schema: Json) -> Json:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _object(required: Json, further: Json) -> Json:
    return {"type": "object", "properties": {**required, **further}, "required": list(required)}
