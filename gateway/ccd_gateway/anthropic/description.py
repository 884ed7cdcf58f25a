"""The Messages API's part of `/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccd_gateway.errors import JSON

Json = dict[str, Any]
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_OVERLOADED = {529: "The model API is overloaded."}


def paths(refusals: Mapping[int, str], parameters: list[Json]) -> Json:
    """The routes.

    Args:
        refusals: what every request may be refused with: status and description.
        parameters: headers that every request for an answer may have.
    """
    beta = {
        "name": "anthropic-beta",
        "in": "header",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,100}$"},
    }
    refused = _refused({**refusals, **_OVERLOADED})
    answer = {JSON: {"schema": _ref("Message")}, "text/event-stream": {"schema": _TEXT}}
    message = {"description": "The message; its events when `stream` is true.", "content": answer}
    count = {"description": "An estimate.", "content": {JSON: {"schema": _ref("TokenCount")}}}
    return {
        "/v1/messages": {
            "post": {
                "operationId": "message",
                "requestBody": _body("MessagesRequest"),
                "parameters": [*parameters, beta],
                "responses": {"200": message, **refused},
            }
        },
        "/v1/messages/count_tokens": {
            "post": {
                "operationId": "count_tokens",
                "requestBody": _body("Prompt"),
                "responses": {"200": count, **refused},
            }
        },
    }


def schemas() -> Json:
    """The answers."""
    error = _object({"type": _TEXT, "message": _TEXT})
    usage = _object({"input_tokens": _COUNT, "output_tokens": _COUNT})
    return {
        "Message": _object(
            {
                "id": _TEXT,
                "type": {"const": "message"},
                "role": {"const": "assistant"},
                "model": _TEXT,
                "content": {"type": "array", "items": _object({"type": _TEXT})},
                "stop_reason": {"type": ["string", "null"]},
                "usage": usage,
            }
        ),
        "TokenCount": _object({"input_tokens": _COUNT}),
        "MessagesError": _object({"type": {"const": "error"}, "error": error, "request_id": _TEXT}),
    }


def _refused(refusals: Mapping[int, str]) -> Json:
    content = {JSON: {"schema": _ref("MessagesError")}}
    return {
        str(status): {"description": text, "content": content} for status, text in sorted(refusals.items())
    }


def _body(name: str) -> Json:
    return {"required": True, "content": {JSON: {"schema": _ref(name)}}}


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
