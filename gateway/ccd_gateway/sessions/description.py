"""The sessions' routes for `/openapi.json`. What passes through the WebSocket is in docs/sessions.md."""

from __future__ import annotations

from typing import Any

import msgspec

from ccd_gateway.sessions.routes import Wanted

Json = dict[str, Any]

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_EVERYWHERE = (400, 401, 403, 404, 405, 408, 415, 429, 500, 502, 503, 504)
_ERROR = {"$ref": "#/components/schemas/SessionError"}


def paths() -> Json:
    """Path items."""
    opened = _object({"session_id": _TEXT, "ws_url": _TEXT})
    wanted = {"$ref": "#/components/schemas/SessionWanted"}
    listed = _object({"sessions": {"type": "array", "items": {"$ref": "#/components/schemas/SessionInfo"}}})
    ended = _object({"deleted": {"const": True}, "session_id": _TEXT})
    return {
        "/v1/sessions": {
            "get": _operation("sessions", "200", listed),
            "post": {
                **_operation("openSession", "201", opened, 413),
                "requestBody": {"content": {"application/json": {"schema": wanted}}},
            },
        },
        "/v1/sessions/{name}": {
            "parameters": [_NAME],
            "get": _operation("session", "200", {"$ref": "#/components/schemas/SessionInfo"}),
            "delete": _operation("endSession", "200", ended, 413, 507),
        },
        "/ws/session/{name}": {
            "parameters": [_NAME],
            "get": {"operationId": "sessionSocket", "responses": {"101": _upgraded(), **_refusals(426)}},
        },
        "/ws/cli/{name}": {
            "parameters": [_NAME],
            "get": {"operationId": "noDiallingIn", "responses": _refusals()},
        },
    }


def schemas() -> Json:
    """The schemas that `paths` refers to."""
    _, wanted = msgspec.json.schema_components([Wanted])
    state = {
        "session_id": _TEXT,
        "cli_session_id": {"type": ["string", "null"]},
        "model": _TEXT,
        "cwd": _TEXT,
        "tools": {"type": "array"},
        "permission_mode": _TEXT,
        "claude_code_version": _TEXT,
        "mcp_servers": {"type": "array"},
        "total_cost_usd": {"type": "number"},
        "num_turns": _COUNT,
        "is_compacting": {"type": "boolean"},
    }
    info = {
        "session_id": _TEXT,
        "state": _object(state),
        "connected_clients": _COUNT,
        "cli_connected": {"type": "boolean"},
        "pending_permissions": _COUNT,
    }
    return {
        "SessionWanted": wanted["Wanted"],
        "SessionInfo": _object(info),
        "SessionError": _object({"error": _TEXT}),
    }


def _operation(name: str, status: str, answer: Json, *more: int) -> Json:
    return {"operationId": name, "responses": {status: _answer("Done.", answer), **_refusals(*more)}}


def _refusals(*more: int) -> Json:
    return {str(status): _answer("Refused, or failed.", _ERROR) for status in (*_EVERYWHERE, *more)}


def _upgraded() -> Json:
    return {"description": "A WebSocket, by which the session is followed."}


def _answer(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}
