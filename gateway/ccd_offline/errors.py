"""Refusals in the Messages API's form: status, error type, message."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

MESSAGES: Mapping[int, str] = {
    401: "invalid x-api-key",
    404: "Not found",
    413: "Request exceeds the maximum size",
    429: "This request would exceed the rate limit of your organization.",
    500: "Internal server error",
    529: "Overloaded",
}


class RefusedError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        kind: the error's `type`; by default the one that belongs to the status.
        message: what the caller reads.
        headers: further response headers (`retry-after`).
    """

    def __init__(
        self, status: int, message: str = "", kind: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.kind = kind or TYPES.get(status, "api_error")
        self.message = message or MESSAGES.get(status, "The offline API was told to fail.")
        self.headers = dict(headers or {})
        super().__init__(self.message)

    def body(self, request_id: str) -> bytes:
        """The JSON body of the answer."""
        return error_json(self.kind, self.message, request_id)


def invalid(message: str) -> RefusedError:
    """A 400: the request itself is wrong, and sending it again is useless."""
    return RefusedError(400, message)


def error_json(kind: str, message: str, request_id: str) -> bytes:
    """An error object as the API writes it, in bodies and in `error` events alike."""
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    return msgspec.json.encode(error)
