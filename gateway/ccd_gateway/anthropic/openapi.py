"""The Messages API for `/openapi.json`."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_STATUSES = (400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 502, 503, 504, 507, 529)
_TEXT = {"type": "string"}


def paths() -> Json:
    """Path items."""
    message = {"properties": {"type": {"const": "message"}, "id": _TEXT}, "required": ["type", "id"]}
    tokens = {"properties": {"input_tokens": {"type": "integer"}}, "required": ["input_tokens"]}
    return {
        "/v1/messages": {"post": _operation("messages", "MessagesRequest", message, streamed=True)},
        "/v1/messages/count_tokens": {"post": _operation("countTokens", "Prompt", tokens)},
    }


def schemas() -> Json:
    """The schemas that `paths` refers to."""
    error = {
        "type": "object",
        "properties": {"type": _TEXT, "message": _TEXT},
        "required": ["type", "message"],
    }
    properties = {"type": {"const": "error"}, "error": error}
    return {"MessagesError": {"type": "object", "properties": properties, "required": list(properties)}}


def _operation(name: str, asked: str, answer: Json, *, streamed: bool = False) -> Json:
    content: Json = {"application/json": {"schema": {"type": "object", **answer}}}
    if streamed:
        content["text/event-stream"] = {"schema": _TEXT}
    error = {"application/json": {"schema": _ref("MessagesError")}}
    refusals = {str(status): {"description": "Refused, or failed.", "content": error} for status in _STATUSES}
    return {
        "operationId": name,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(asked)}}},
        "responses": {"200": {"description": "Done.", "content": content}, **refusals},
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
