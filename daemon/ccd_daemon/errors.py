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
_PARAM = re.compile(
    r"((?:messages|system|tools|tool_choice|thinking|metadata|output_config|stop_sequences)(?:\.\w+)*): "
)
_INDEX = re.compile(r"\.(\d+)\b")
#: The name of a variant, which the API's own paths have after the place.
_TAG = re.compile(
    r"(\[\d+\]|thinking|source|tool_choice)\.(?:custom|text|image|document|tool_use|tool_result|enabled|adaptive|base64|url|auto)"
    r"(?=\.|\Z)"
)
_NO_MODEL = re.compile(r"model", re.IGNORECASE)

#: What a status of the model API is to a caller; others are the caller's request (400 to 499) or the API's fault.
_BY_STATUS = {
    401: Code.UPSTREAM_AUTH,
    402: Code.BUDGET,
    403: Code.FORBIDDEN,
    413: Code.TOO_LARGE,
    429: Code.UPSTREAM_LIMIT,
    503: Code.UPSTREAM_OVERLOADED,
    529: Code.UPSTREAM_OVERLOADED,
}
_AGAIN = frozenset({408, 409})  # of the statuses below 500: another try may succeed
_DEFAULT_RETRY_MS = {Code.UPSTREAM_LIMIT: 5000, Code.UPSTREAM_OVERLOADED: 5000, Code.UPSTREAM_ERROR: 1000}


def from_status(
    status: int | None,
    text: str,
    *,
    model: str,
    kind: str | None = None,
    retry_after_ms: int | None = None,
) -> RpcError:
    """Returns the failure for an HTTP status of the model API, or for the CLI's own words when there is none.

    Args:
        status: the API's, where the CLI tells it.
        text: the API's words as far as they are known.
        model: what was asked.
        kind: the API's type of error, where the CLI tells it.
        retry_after_ms: how long to wait.
    """
    data: dict[str, Any] = {} if status is None else {"upstream_status": status}
    if status is not None and kind:
        data["upstream_type"] = kind
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
        return RpcError(code, f"{what} {LOGIN_HINT}", {**data, "upstream_message": text} if status else data)
    if code is Code.MODEL_NOT_FOUND:
        return RpcError(code, f"The model {model!r} does not exist or is not available to this login.", data)
    if code is Code.BAD_PARAMS:
        data["param"] = param_in(text)
    return RpcError(code, text or "the model API failed", data)


def _code(status: int | None, text: str) -> Code:
    if status is None:
        return Code.UPSTREAM_AUTH if _NO_LOGIN.search(text) else Code.UPSTREAM_ERROR
    if status == 404:
        return Code.MODEL_NOT_FOUND if _NO_MODEL.search(text) or not text else Code.UPSTREAM_ERROR
    if status == 403 and _NO_LOGIN.search(text):
        return Code.UPSTREAM_AUTH
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Code.BAD_PARAMS if 400 <= status < 500 and status not in _AGAIN else Code.UPSTREAM_ERROR


def param_in(text: str) -> str | None:
    """Returns the parameter that a refusal of the model API's begins with, in the daemon's words.

    `messages.1.content.0: …` is about `messages[1].content[0]`, `tools.0.custom.input_schema: …` about
    `tools[0].input_schema`.
    """
    found = _PARAM.match(text)
    if found is None:
        return None
    path = _INDEX.sub(r"[\1]", found[1])
    return _TAG.sub(r"\1", path)


def broke_off() -> RpcError:
    """Returns what to say when the API ended the answer in the middle: what came of it cannot be completed."""
    return RpcError(
        Code.UPSTREAM_ERROR, "the model API broke off in the middle of the answer", {"retry_after_ms": 1000}
    )


def crashed(exit_status: str, stderr_tail: str) -> RpcError:
    """Returns what to say when the CLI process ended before its result."""
    data = {"exit_status": exit_status, "stderr_tail": stderr_tail}
    return RpcError(
        Code.WORKER_CRASHED, f"the CLI process ended before the answer was complete ({exit_status})", data
    )
