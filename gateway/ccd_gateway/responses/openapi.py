"""The Responses API for `/openapi.json`."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_STATUSES = (400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 500, 502, 503, 504, 507)
_ID = {"name": "response_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def paths() -> Json:
    """Path items."""
    asked = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("ResponsesRequest")}},
        }
    }
    one = "/v1/responses/{response_id}"
    return {
        "/v1/responses": {"post": {**_operation("respond", "response", streamed=True), **asked}},
        "/v1/responses/input_tokens": {
            "post": {**_operation("countResponseTokens", "response.input_tokens"), **asked}
        },
        one: {
            "parameters": [_ID],
            "get": _operation("response", "response", streamed=True),
            "delete": _operation("forgetResponse", None),
            "post": _operation("noSuchResponseCall", None),
        },
        f"{one}/cancel": {"parameters": [_ID], "post": _operation("cancelResponse", "response")},
        f"{one}/input_items": {"parameters": [_ID], "get": _operation("responseItems", "list")},
    }


def _operation(name: str, kind: str | None, *, streamed: bool = False) -> Json:
    schema: Json = {"type": "object"}
    if kind is not None:
        schema |= {"properties": {"object": {"const": kind}}, "required": ["object"]}
    content: Json = {"application/json": {"schema": schema}}
    if streamed:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    error = {"application/json": {"schema": _ref("Error")}}
    refusals = {str(status): {"description": "Refused, or failed.", "content": error} for status in _STATUSES}
    return {
        "operationId": name,
        "responses": {"200": {"description": "Done.", "content": content}, **refusals},
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
