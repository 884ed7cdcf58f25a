"""What the CLI's lines say of an API call that failed, as the error for the caller.

The CLI reports API failures as results of subtype `success` with `is_error` set, so nothing here trusts the
subtype. A message that was completed (its `message_delta` was seen) is an answer whatever the CLI tried afterwards.
"""

from __future__ import annotations

import re

from ccd_daemon.claude.control import ResultLine, RetryLine
from ccd_daemon.errors import from_status
from ccd_protocol.errors import Code, RpcError

_TOO_LONG = re.compile(r"prompt is too long|context (window|length)|too many tokens", re.IGNORECASE)
_MAX_TEXT_CHARS = 2000
#: The CLI's advice to whoever sits before it; it names the host that ANTHROPIC_BASE_URL points to.
_ADVICE = re.compile(r"\s*If it persists, check [^\n]*$")


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


def _text(result: ResultLine) -> str:
    text = result.result or "; ".join(str(error) for error in result.errors or ())
    return _ADVICE.sub("", re.sub(r"^API Error: (\d{3} )?", "", text))[:_MAX_TEXT_CHARS]
