"""`GET /openapi.json`: what the gateway serves, with the schemas of the types that it decodes with.

Kept by hand where no type says it: routes, statuses and answers. A test sends requests that are made up
from this document and fails on every answer that it does not describe.
"""

from __future__ import annotations

import functools
from importlib import metadata
from typing import Any

import falcon
import falcon.asgi
import msgspec

from ccd_gateway.anthropic import description
from ccd_gateway.anthropic.schema import MessagesRequest, Prompt
from ccd_gateway.chat.schema import ChatRequest
from ccd_gateway.compat import openapi as legacy
from ccd_gateway.compat.openapi import cache_control, cache_headers
from ccd_gateway.errors import JSON
from ccd_gateway.responses.schema import ResponsesRequest
from ccd_gateway.sessions import description as sessions
from ccd_gateway.tasks import description as tasks

Json = dict[str, Any]
_REF = "#/components/schemas/{name}"
_TYPES = [ChatRequest, ResponsesRequest, MessagesRequest, Prompt]
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}

# Whatever a route does, its requests can be refused so.
_EVERYWHERE = {
    400: "The request cannot be understood, or asks for what is not supported.",
    401: "A valid API key is required, or the CLI is not logged in.",
    403: "The Host, the Origin or the key does not allow this.",
    408: "The request was not complete in time.",
    415: "The body's type or encoding is not accepted.",
    429: "A limit or a budget is reached.",
    503: "The daemon is away, or too busy.",
}
_ANSWERING = {
    404: "The model or profile does not exist, or the key may not use it.",
    413: "The body is too large.",
    500: "The gateway or the daemon failed.",
    502: "The CLI or the model API failed.",
    504: "It took too long.",
    507: "The usage cannot be written.",
}
_STORED = {
    404: "There is no such response.",
    500: _ANSWERING[500],
    507: "The store cannot be used.",
}


class OpenApi:
    """The resource."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """The document; the same for everybody."""
        resp.content_type = JSON
        resp.data = encoded()


@functools.cache
def encoded() -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(document())


def document() -> Json:
    """The OpenAPI 3.1 document."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ccd gateway",
            "version": metadata.version("ccdaemon"),
            "description": "Claude Code behind the APIs of OpenAI and Anthropic. Fields that OpenAI's do"
            " not have are ignored, and named in the answer's X-CCD-Ignored.",
        },
        "security": [{}, {"bearer": []}, {"header": []}],
        "paths": {**_paths(), **legacy.paths(), **sessions.paths(), **tasks.paths()},
        "components": {
            "schemas": {
                **schemas,
                **_answers(),
                **legacy.schemas(),
                **description.schemas(),
                **sessions.schemas(),
                **tasks.schemas(),
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _paths() -> Json:
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    profile = {
        "name": "X-CCD-Profile",
        "in": "header",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    }
    strict = {"name": "X-CCD-Strict", "in": "header", "schema": {"enum": ["true", "false"]}}
    control = cache_control()
    chat = {
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref("ChatRequest")}}},
        "parameters": [profile, strict, control],
        "responses": {
            "200": {
                "headers": cache_headers(),
                "description": "The answer; a stream of chat.completion.chunk events when `stream` is true.",
                "content": {JSON: {"schema": _ref("ChatCompletion")}, "text/event-stream": {"schema": _TEXT}},
            },
            **_refusals(_ANSWERING),
        },
    }
    return {
        "/v1/chat/completions": {"post": {"operationId": "chat", **chat}},
        **_responses(profile, strict, control),
        "/v1/models": {
            "get": _get(
                "models", "ModelList", {500: _ANSWERING[500], 502: _ANSWERING[502], 504: _ANSWERING[504]}
            )
        },
        "/v1/models/{model}": {
            "get": {
                **_get("model", "Model", {**_ANSWERING, 405: "No model, but a route."}),
                "parameters": [model],
            }
        },
        "/health": {"get": _health()},
        **description.paths({**_EVERYWHERE, **_ANSWERING}, [profile, strict]),
        "/openapi.json": {"get": {**_get("openapi", None, {}), "security": []}},
    }


def _responses(*headers: Json) -> Json:
    """The Responses API."""
    body = {"required": True, "content": {JSON: {"schema": _ref("ResponsesRequest")}}}
    asked = {"requestBody": body, "parameters": list(headers)}
    one = "/v1/responses/{response_id}"
    replay = [
        _query("stream", {"type": "boolean"}),
        _query("starting_after", {"type": "integer", "minimum": -1, "maximum": 2**53 - 1}),
    ]
    page = [
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
        _query("order", {"enum": ["asc", "desc"]}),
        _query("after", _TEXT),
        _query("before", _TEXT),
    ]
    return {
        "/v1/responses": {
            "post": {**asked, **_operation("response", _ref("Response"), _ANSWERING, True, cached=True)}
        },
        "/v1/responses/input_tokens": {
            "post": {**asked, **_operation("inputTokens", _ref("InputTokens"), _ANSWERING)}
        },
        one: {
            "get": _stored("storedResponse", "Response", replay, streams=True),
            "delete": _stored("deleteResponse", "Deleted", []),
            "post": {
                **_stored("notHere", "Error", []),
                "responses": _refusals({**_STORED, 413: _ANSWERING[413]}),
            },
        },
        f"{one}/cancel": {"post": _stored("cancelResponse", "Response", [])},
        f"{one}/input_items": {"get": _stored("inputItems", "ItemList", page)},
    }


def _stored(operation: str, answer: str, query: list[Json], *, streams: bool = False) -> Json:
    response_id = {"name": "response_id", "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}
    refusals = {**_STORED, 405: "No response, but a route.", 413: _ANSWERING[413]}
    return {
        **_operation(operation, _ref(answer), refusals, streams),
        "parameters": [response_id, *query],
    }


def _operation(
    operation: str, answer: Json, refusals: dict[int, str], streams: bool = False, *, cached: bool = False
) -> Json:
    content: Json = {JSON: {"schema": answer}}
    if streams:
        content["text/event-stream"] = {"schema": _TEXT}
    ok: Json = {"description": "Done; a stream of events where one was asked for.", "content": content}
    if cached:
        ok["headers"] = cache_headers()
    return {"operationId": operation, "responses": {"200": ok, **_refusals(refusals)}}


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "schema": schema}


def _get(operation: str, answer: str | None, refusals: dict[int, str]) -> Json:
    schema = _ref(answer) if answer else {"type": "object"}
    ok = {"description": "Found.", "content": {JSON: {"schema": schema}}}
    return {"operationId": operation, "responses": {"200": ok, **_refusals(refusals)}}


def _health() -> Json:
    content = {"text/plain": {"schema": _TEXT}, JSON: {"schema": _ref("Health")}}
    answers = {"200": "A chat sent now would be accepted.", "503": "It would not."}
    described = {status: {"description": text, "content": content} for status, text in answers.items()}
    return {"operationId": "health", "security": [], "responses": {**_refusals({}), **described}}


def _refusals(more: dict[int, str]) -> Json:
    content = {JSON: {"schema": _ref("Error")}}
    statuses = sorted({**_EVERYWHERE, **more}.items())
    return {str(status): {"description": text, "content": content} for status, text in statuses}


def _answers() -> Json:
    nullable = {"type": ["string", "null"]}
    error = _object({"message": _TEXT, "type": _TEXT, "param": nullable, "code": nullable})
    model = _object({"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT})
    message = _object({"role": {"const": "assistant"}, "content": nullable})
    choice = _object({"index": _COUNT, "message": message, "finish_reason": _TEXT})
    usage = _object(dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), _COUNT))
    completion = {
        "id": _TEXT,
        "object": {"const": "chat.completion"},
        "created": _COUNT,
        "model": _TEXT,
        "choices": {"type": "array", "items": choice},
        "usage": usage,
    }
    return {
        "Error": _object({"error": error}),
        "Model": model,
        "ModelList": _object(
            {"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}}
        ),
        "ChatCompletion": _object(completion),
        "Response": _object(
            {
                "id": _TEXT,
                "object": {"const": "response"},
                "status": {
                    "enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
                },
                "output": {"type": "array", "items": {"type": "object"}},
            }
        ),
        "Deleted": _object({"id": _TEXT, "object": {"const": "response"}, "deleted": {"const": True}}),
        "InputTokens": _object({"object": {"const": "response.input_tokens"}, "input_tokens": _COUNT}),
        "ItemList": _object(
            {
                "object": {"const": "list"},
                "data": {"type": "array", "items": {"type": "object"}},
                "first_id": nullable,
                "last_id": nullable,
                "has_more": {"type": "boolean"},
            }
        ),
        "Health": _object({"status": {"enum": ["healthy", "unavailable"]}, "ready": {"type": "boolean"}}),
    }


def _object(properties: Json) -> Json:
    """An object that has all of these; there may be more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}
