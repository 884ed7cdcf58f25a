"""The one place where the ways a turn can end badly become CCDP codes.

What the CLI's own lines say of a failure is read in `claude.failures`, which ends here.
"""

from __future__ import annotations

import re
from typing import Any

from ccd_protocol.errors import Code, RpcError

LOGIN_HINT = (
    "Log in once with the `claude` command as the user that runs ccd, or set ANTHROPIC_API_KEY "
    "(or CLAUDE_CODE_OAUTH_TOKEN) in ccd's environment, then restart ccd."
)
_NO_LOGIN = re.compile(r"not logged in|/login|invalid api key|authentication|oauth token", re.IGNORECASE)
_NO_MODEL = re.compile(r"model", re.IGNORECASE)

_BY_STATUS = {
    401: Code.UPSTREAM_AUTH,
    403: Code.UPSTREAM_AUTH,
    429: Code.UPSTREAM_LIMIT,
    529: Code.UPSTREAM_OVERLOADED,
    503: Code.UPSTREAM_OVERLOADED,
    413: Code.CONTEXT_TOO_LONG,
}
_DEFAULT_RETRY_MS = {Code.UPSTREAM_LIMIT: 5000, Code.UPSTREAM_OVERLOADED: 5000, Code.UPSTREAM_ERROR: 1000}


def from_status(status: int | None, text: str, *, model: str, retry_after_ms: int | None = None) -> RpcError:
    """The failure for an HTTP status of the model API, or for the CLI's own words when there is none."""
    data: dict[str, Any] = {} if status is None else {"upstream_status": status}
    code = _code(status, text)
    wait = retry_after_ms or _DEFAULT_RETRY_MS.get(code)
    if wait:
        data["retry_after_ms"] = wait
    if code is Code.UPSTREAM_AUTH:
        what = (
            "The Claude Code CLI is not logged in."
            if status is None
            else f"The model API refused the login: {text}"
        )
        return RpcError(code, f"{what} {LOGIN_HINT}", data)
    if code is Code.MODEL_NOT_FOUND:
        return RpcError(code, f"The model {model!r} does not exist or is not available to this login.", data)
    if code is Code.BAD_PARAMS:
        data["param"] = None
    return RpcError(code, text or "the model API failed", data)


def _code(status: int | None, text: str) -> Code:
    if status is None:
        return Code.UPSTREAM_AUTH if _NO_LOGIN.search(text) else Code.UPSTREAM_ERROR
    if status == 404:
        return Code.MODEL_NOT_FOUND if _NO_MODEL.search(text) or not text else Code.UPSTREAM_ERROR
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Code.BAD_PARAMS if 400 <= status < 500 else Code.UPSTREAM_ERROR


def broke_off() -> RpcError:
    """The API ended the answer in the middle; what came of it cannot be completed."""
    return RpcError(
        Code.UPSTREAM_ERROR, "the model API broke off in the middle of the answer", {"retry_after_ms": 1000}
    )


def crashed(exit_status: str, stderr_tail: str) -> RpcError:
    """The CLI process ended before its result."""
    data = {"exit_status": exit_status, "stderr_tail": stderr_tail}
    return RpcError(
        Code.WORKER_CRASHED, f"the CLI process ended before the answer was complete ({exit_status})", data
    )
