"""The older projects' routes for `/openapi.json`."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TEXT = {"type": "string"}
_NULLABLE = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
_TRUE = {"const": True}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_CACHE = {
    "type": "object",
    "properties": {"enabled": {"type": "boolean"}, "total_entries": _COUNT, "total_hits": _COUNT},
    "required": ["enabled", "total_entries", "total_hits"],
}
_AWAY = (401, 403, 408, 415, 429, 500, 502, 503, 504, 507)


def paths() -> Json:
    """Path items."""
    wanted = _body({"type": "object", "properties": {"model": _NULLABLE, "project_path": _NULLABLE}})
    gone = _object({"id": _TEXT, "object": {"const": "conversation.deleted"}, "deleted": _TRUE})
    version = _object({"claude_code_version": _TEXT, "api_version": _TEXT, "timestamp": _TEXT})
    return {
        "/v1/conversations": {
            "get": _operation("conversations", _object({"conversations": {"type": "array"}}), (400,)),
            "post": {**_operation("beginConversation", _ref("Conversation"), (400, 413)), **wanted},
        },
        "/v1/conversations/{name}": {
            "parameters": [_NAME],
            "get": _operation("conversation", _ref("Conversation"), (400, 404, 405)),
            "delete": _operation("forgetConversation", gone, (400, 404, 405)),
        },
        "/stats": {"get": _operation("stats", _object({"cache": _CACHE, "version": _TEXT}), (400,))},
        "/version": {"get": _operation("version", version, (400,), error="FlaskError")},
        "/api/claude-code": {
            "post": {
                **_cached(_operation("claudeCode", _ref("FlaskAnswer"), (400, 404, 413), error="FlaskError")),
                **_body(_ref("FlaskTask")),
                "parameters": [cache_control()],
            }
        },
    }


def cache_control() -> Json:
    """The request header that decides about cached answers."""
    said = {"type": "string", "pattern": "^(no-cache|no-store|max-age=[0-9]{1,9})$"}
    return {"name": "Cache-Control", "in": "header", "schema": said}


def cache_headers() -> Json:
    """What an answer says about them, where there is a cache."""
    text = "Where the answer comes from; absent where there is no cache."
    return {"X-Cache": {"description": text, "schema": {"enum": ["HIT", "MISS", "BYPASS"]}}}


def _cached(operation: Json) -> Json:
    operation["responses"]["200"]["headers"] = cache_headers()
    return operation


def schemas() -> Json:
    """The schemas that `paths` refers to."""
    kept = {"model": _NULLABLE, "total_tokens": _COUNT, "turn_count": _COUNT, "project_path": _NULLABLE}
    named = {"id": _TEXT, "created_at": _TEXT, "updated_at": _TEXT}
    outcome = {
        "status": {"enum": ["success", "error", "timeout"]},
        "output": _TEXT,
        "error": _TEXT,
        "return_code": {"type": "integer"},
        "execution_time": {"type": "number"},
        "command": _TEXT,
        "success": {"type": "boolean"},
    }
    return {
        "Conversation": _object({**named, "message_count": _COUNT, "metadata": _object(kept)}),
        "FlaskError": _object({"error": _TEXT, "message": _TEXT, "status_code": {"type": "integer"}}),
        "FlaskAnswer": _object(
            {"success": {"type": "boolean"}, "result": _object(outcome), "request_id": _TEXT}
        ),
        "FlaskTask": {**_object({"prompt": _TEXT}), **_properties({"prompt": _TEXT, "options": _options()})},
    }


def _options() -> Json:
    path = {"type": ["string", "null"], "minLength": 1, "maxLength": 4096}
    files = dict.fromkeys(("output_file", "context_file", "project_dir", "working_dir"), path)
    return {
        "type": ["object", "null"],
        **_properties(
            {
                "format": {"type": ["string", "null"], "minLength": 1, "maxLength": 64},
                "model": {"type": ["string", "null"], "minLength": 1, "maxLength": 512},
                "max_tokens": {"type": ["integer", "null"], "minimum": 1},
                "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                "timeout": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 3600},
                "max_retries": {"type": ["integer", "null"], "minimum": 0, "maximum": 10},
                **files,
            }
        ),
    }


def _operation(name: str, answer: Json, statuses: tuple[int, ...], *, error: str = "Error") -> Json:
    refusals = {str(status): _answer("Refused, or failed.", _ref(error)) for status in (*statuses, *_AWAY)}
    return {"operationId": name, "responses": {"200": _answer("Done.", answer), **refusals}}


def _answer(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _body(schema: Json) -> Json:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _object(properties: Json) -> Json:
    return {"type": "object", **_properties(properties), "required": list(properties)}


def _properties(properties: Json) -> Json:
    return {"properties": properties}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
