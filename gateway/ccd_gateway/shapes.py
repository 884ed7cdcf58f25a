"""How failures are written: one shape for each API that is spoken here. Pure.

A failure is an `ApiError` until it is rendered, and it is rendered once, in the shape of the route that the request is
for; nothing decodes an answer in order to write it again.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from ccd_gateway.errors import ApiError

_encode = msgspec.json.encode


class Rendered(NamedTuple):
    """A failure as it is sent."""

    status: int
    body: bytes


class Shape(NamedTuple):
    """What the answers of one API have in common.

    Attributes:
        schema: the name of the error's schema in `/openapi.json`.
        described: that schema.
        render: makes of a failure and the request's id what is sent.
        new_id: an id for a request that brings none.
        id_header: a further name under which answers carry the id.
    """

    schema: str
    described: dict[str, Any]
    render: Callable[[ApiError, str], Rendered]
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    id_header: bytes | None = None


def _openai(failure: ApiError, request_id: str) -> Rendered:
    """`{"error": {"message", "type", "param", "code"}}`."""
    return Rendered(failure.status, _encode({"error": failure.error}))


# --- the Messages API ---

_OVERLOADED = 529
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def _messages(failure: ApiError, request_id: str) -> Rendered:
    """`{"type": "error", "error": {"type", "message"}, "request_id"}`."""
    error, upstream = failure.error, failure.upstream
    status = _OVERLOADED if error["code"] == "upstream_overloaded" else failure.status
    status = upstream.status if upstream else status
    kind = _TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    kind = (upstream and upstream.type) or kind
    text, param = (upstream and upstream.message) or error["message"] or kind, error["param"]
    if param and param not in text and upstream is None:
        text = f"{param}: {text}"  # this shape has no place of its own for it
    body = {"type": "error", "error": {"type": kind, "message": text}, "request_id": request_id}
    return Rendered(status, _encode(body))


# --- the older projects ---


def _flask(failure: ApiError, request_id: str) -> Rendered:
    """`{"error": "Bad Request", "message", "status_code"}`."""
    status = failure.status
    body = {"error": HTTPStatus(status).phrase, "message": failure.error["message"], "status_code": status}
    return Rendered(status, _encode(body))


def _session(failure: ApiError, request_id: str) -> Rendered:
    """`{"error": "Session not found: …"}`."""
    return Rendered(failure.status, _encode({"error": failure.error["message"]}))


# --- the shapes ---

_TEXT = {"type": "string"}
_NULLABLE = {"type": ["string", "null"]}


def _record(**properties: object) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


OPENAI = Shape(
    "Error",
    _record(error=_record(message=_TEXT, type=_TEXT, param=_NULLABLE, code=_NULLABLE)),
    _openai,
)
MESSAGES = Shape(
    "MessagesError",
    _record(type={"const": "error"}, error=_record(type=_TEXT, message=_TEXT), request_id=_TEXT),
    _messages,
    lambda: f"req_{secrets.token_hex(12)}",
    b"request-id",
)
FLASK = Shape("FlaskError", _record(error=_TEXT, message=_TEXT, status_code={"type": "integer"}), _flask)
SESSION = Shape("SessionError", _record(error=_TEXT), _session)
