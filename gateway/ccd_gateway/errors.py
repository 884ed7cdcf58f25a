"""Failures as HTTP answers. The one place where an RPC code becomes a status and a word.

How a failure is written down is not decided here: the route that answers a request has the shape (`shapes`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ccd_protocol.errors import MEANINGS, Code, RpcError

Headers = Sequence[tuple[str, str]]
JSON = "application/json"

_NO_RETRY = ("x-should-retry", "false")
_TYPE_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    414: "invalid_request_error",
    415: "invalid_request_error",
    426: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    503: "service_unavailable",
    504: "timeout_error",
}
# OpenAI's word where it has one; every other code is its own name in lower case.
_WORD_OF_CODE = {
    Code.BAD_PARAMS: "invalid_value",
    Code.TOO_LARGE: "request_too_large",
    Code.BUSY: "rate_limit_exceeded",
    Code.DEADLINE: "timeout",
    Code.UPSTREAM_AUTH: "invalid_api_key",
    Code.UPSTREAM_LIMIT: "rate_limit_exceeded",
    Code.CONTEXT_TOO_LONG: "context_length_exceeded",
    Code.BUDGET: "insufficient_quota",
    Code.LOST: "daemon_unavailable",
    Code.DRAINING: "daemon_unavailable",
}
#: What OpenAI's API would answer where the model API answers with this; other statuses mean the same in both.
_STATUS_OF_UPSTREAM = {402: 429, 529: 503}
_WORKER_CODES = frozenset({Code.WORKER_CRASHED, Code.WORKER_OOM, Code.WORKER_STUCK, Code.WORKER_SPAWN})
_DEFAULT_RETRY_AFTER_MS = 1000


class Upstream(NamedTuple):
    """What the model API itself said of a failure: its status, its type of error, its words."""

    status: int
    type: str | None
    message: str | None


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
        headers: to add to the answer, names in lower case.
        error: OpenAI's `error` object: `message`, `type`, `param`, `code`.
        upstream: what the model API said, where the failure is its refusal.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str | None = None,
        headers: Headers = (),
        upstream: Upstream | None = None,
    ) -> None:
        super().__init__(message)
        self.upstream = upstream
        self.status = status
        self.headers = headers
        kind = type or _TYPE_OF_STATUS.get(status, "internal_error")
        self.error = {"message": message, "type": kind, "param": param, "code": code}


def bad_request(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    """A 400 that names the parameter."""
    return ApiError(400, message, param=param, code=code)


def unsupported(param: str, what: str) -> ApiError:
    """A 400 for something that OpenAI's API has and this gateway has not."""
    return bad_request(f"{what} is not supported by this gateway.", param, "unsupported_parameter")


def overloaded(message: str, retry_after_s: int = 1) -> ApiError:
    """A 503 that says when to come back."""
    return ApiError(503, message, code="overloaded", headers=[("retry-after", str(retry_after_s))])


def fault() -> ApiError:
    """The 500 for a fault of the gateway's own, which its log describes. No SDK is to repeat it: turns cost money."""
    return ApiError(500, "The gateway failed. See its log.", headers=[_NO_RETRY])


def from_rpc(error: RpcError) -> ApiError:
    """The HTTP answer for a failed call."""
    upstream = _upstream(error)
    status = MEANINGS[error.code].http_status
    if upstream is not None:
        status = _STATUS_OF_UPSTREAM.get(upstream.status, upstream.status)
    param = error.data.get("param")
    return ApiError(
        status,
        error.message,
        param=param if isinstance(param, str) else None,
        code=_WORD_OF_CODE.get(error.code, error.code.name.lower()),
        type=_type_of(error.code, status),
        headers=_retry_headers(error, status),
        upstream=upstream,
    )


def _upstream(error: RpcError) -> Upstream | None:
    status, kind, text = (error.data.get(f"upstream_{name}") for name in ("status", "type", "message"))
    if not isinstance(status, int) or not 400 <= status < 600:
        return None
    return Upstream(status, kind if isinstance(kind, str) else None, text if isinstance(text, str) else None)


def _type_of(code: Code, status: int) -> str:
    if code in _WORKER_CODES:
        return "claude_process_error"
    if code is Code.BUDGET:
        return "insufficient_quota"
    if code is Code.UPSTREAM_ERROR:
        return "server_error"
    return _TYPE_OF_STATUS.get(status, "internal_error")


def _retry_headers(error: RpcError, status: int) -> list[tuple[str, str]]:
    """SDKs repeat every 409, 429 and 5xx unless told not to, and a repeated turn costs money."""
    if not error.retryable:
        return [_NO_RETRY]
    wait_ms = error.retry_after_ms
    if wait_ms is None:
        return [("retry-after", str(_DEFAULT_RETRY_AFTER_MS // 1000))] if status in (429, 503) else []
    wait_ms = max(0, wait_ms)
    return [("retry-after", str(max(1, math.ceil(wait_ms / 1000)))), ("retry-after-ms", str(wait_ms))]
