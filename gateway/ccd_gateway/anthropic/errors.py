"""Failures in the Messages API's shape. Pure.

Everything in the gateway that refuses a request says so in one shape, OpenAI's. `edge` turns answers of that
shape into this one on the paths of the Messages API, so that no refusal can escape in the wrong shape,
whichever part of the gateway it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from ccd_gateway.anthropic.sse import framed

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


class Refusal(NamedTuple):
    """An error answer."""

    status: int
    body: bytes


def refusal(status: int, error: Mapping[str, Any], request_id: str) -> Refusal:
    """The answer for a failure that has an OpenAI `error` object."""
    if error.get("code") == "upstream_overloaded":
        status = _OVERLOADED
    return Refusal(status, msgspec.json.encode(_body(status, error, request_id)))


def error_event(status: int, error: Mapping[str, Any], request_id: str) -> bytes:
    """The event that ends a stream which fails after it began."""
    body = refusal(status, error, request_id).body
    return framed("error", body)


def _body(status: int, error: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    kind = _TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    text, param = str(error.get("message") or kind), error.get("param")
    if isinstance(param, str) and param and param not in text:
        text = f"{param}: {text}"  # this shape has no place of its own for it
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": request_id}
