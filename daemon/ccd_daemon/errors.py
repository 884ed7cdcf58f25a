"""The one place where the ways a turn can end badly become CCDP codes.

The CLI reports API failures as results of subtype `success` with `is_error` set, so nothing here trusts the
subtype. A message that was completed (its `message_delta` was seen) is an answer whatever the CLI tried afterwards.
"""

from __future__ import annotations

import re
from typing import Any

from ccd_daemon.claude.control import ResultLine, RetryLine
from ccd_protocol.errors import Code, RpcError

LOGIN_HINT = (
    "Log in once with the `claude` command as the user that runs ccd, or set ANTHROPIC_API_KEY "
    "(or CLAUDE_CODE_OAUTH_TOKEN) in ccd's environment, then restart ccd."
)
_NO_LOGIN = re.compile(r"not logged in|/login|invalid api key|authentication|oauth token", re.IGNORECASE)
_TOO_LONG = re.compile(r"prompt is too long|context (window|length)|too many tokens", re.IGNORECASE)
_NO_MODEL = re.compile(r"model", re.IGNORECASE)
_MAX_TEXT_CHARS = 2000
#: The CLI's advice to whoever sits before it; it names the host that ANTHROPIC_BASE_URL points to.
_ADVICE = re.compile(r"\s*If it persists, check [^\n]*$")

_BY_STATUS = {
    401: Code.UPSTREAM_AUTH,
    403: Code.UPSTREAM_AUTH,
    429: Code.UPSTREAM_LIMIT,
    529: Code.UPSTREAM_OVERLOADED,
    503: Code.UPSTREAM_OVERLOADED,
    413: Code.CONTEXT_TOO_LONG,
}
_DEFAULT_RETRY_MS = {Code.UPSTREAM_LIMIT: 5000, Code.UPSTREAM_OVERLOADED: 5000, Code.UPSTREAM_ERROR: 1000}


def from_result(result: ResultLine, *, model: str) -> RpcError:
    """The failure that an unsuccessful `result` line stands for."""
    text = _text(result)
    if result.subtype == "error_max_budget_usd":
        return RpcError(Code.BUDGET, "the CLI's budget for this process is used up")
    if result.terminal_reason == "prompt_too_long" or (
        result.api_error_status == 400 and _TOO_LONG.search(text)
    ):
        data = {} if result.api_error_status is None else {"upstream_status": result.api_error_status}
        return RpcError(Code.CONTEXT_TOO_LONG, text or "the prompt is longer than the model's context", data)
    return from_status(result.api_error_status, text, model=model)


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


def from_retry(retry: RetryLine, *, model: str) -> RpcError:
    """The failure that the caller gets at once instead of waiting through the CLI's own retries."""
    status = retry.error_status
    names = {401: "says no", 403: "says no", 429: "limits the rate", 529: "is overloaded"}
    words = names.get(status or 0, "fails" if status else "cannot be reached")
    text = f"The model API {words}" + (f" (HTTP {status})." if status else ".")
    return from_status(status, text, model=model, retry_after_ms=max(1000, int(retry.retry_delay_ms)))


def hopeless(retry: RetryLine, *, patience_ms: int) -> bool:
    """Whether waiting for this retry would only keep the caller waiting."""
    return retry.error_status in (401, 403) or retry.retry_delay_ms > patience_ms


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


def _text(result: ResultLine) -> str:
    text = result.result or "; ".join(str(error) for error in result.errors or ())
    return _ADVICE.sub("", re.sub(r"^API Error: (\d{3} )?", "", text))[:_MAX_TEXT_CHARS]
