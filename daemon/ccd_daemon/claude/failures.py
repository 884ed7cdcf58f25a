"""What the CLI's lines say of an API call that failed, as the error for the caller.

The CLI reports API failures as results of subtype `success` with `is_error` set, so nothing here trusts the
subtype. A message that was completed (its `message_delta` was seen) is an answer whatever the CLI tried afterwards.
"""

from __future__ import annotations

import re

from ccd_daemon.claude.control import ResultLine, RetryLine
from ccd_daemon.errors import from_status
from ccd_protocol.errors import Code, RpcError

_TOO_LONG = re.compile(
    r"prompt is too long|exceed context limit|context (window|length)|too many tokens", re.IGNORECASE
)
_MAX_TEXT_CHARS = 2000
#: What the CLI puts before the API's words, and after them, where it names the host of ANTHROPIC_BASE_URL.
_BEFORE = re.compile(r"^(?:Failed to authenticate\. )?API Error: (?:Request rejected \(\d{3}\) · |\d{3} )?")
_AFTER = re.compile(
    r"(?:\.? This is a server-side issue, usually temporary — try again in a moment\.)?"
    r"(?:\s*If it persists, check [^\n]*)?$"
)
#: The CLI's own words in place of the API's, and what the API had said.
_REWORDED = (
    (
        re.compile(r"^Prompt is too long · the request is ~(\d+) tokens \(limit (\d+)\).*", re.DOTALL),
        r"prompt is too long: \1 tokens > \2 maximum",
    ),
    (re.compile(r"^Prompt is too long\b.*", re.DOTALL), "prompt is too long"),
    (re.compile(r"^Request too large \(max 32MB\).*", re.DOTALL), "Request exceeds the maximum size"),
    (re.compile(r"^Invalid API key · .*", re.DOTALL), "invalid x-api-key"),
    (
        re.compile(r"^an? (image|document|PDF) in the conversation could not be processed.*", re.DOTALL),
        r"Could not process \1",
    ),
)


def from_result(result: ResultLine, *, model: str) -> RpcError:
    """Returns the failure that an unsuccessful `result` line stands for."""
    text = _text(result)
    if result.subtype == "error_max_budget_usd":
        return RpcError(Code.BUDGET, "the CLI's budget for this process is used up")
    if result.terminal_reason == "prompt_too_long" or (
        result.api_error_status == 400 and _TOO_LONG.search(text)
    ):
        told = {"upstream_status": result.api_error_status, "upstream_type": result.api_error_type}
        data = {name: value for name, value in told.items() if value is not None}
        return RpcError(Code.CONTEXT_TOO_LONG, text or "the prompt is longer than the model's context", data)
    return from_status(result.api_error_status, text, model=model, kind=result.api_error_type)


def from_retry(retry: RetryLine, *, model: str) -> RpcError:
    """Returns the failure that the caller gets at once instead of waiting through the CLI's own retries."""
    status = retry.error_status
    names = {401: "says no", 403: "says no", 429: "limits the rate", 529: "is overloaded"}
    words = names.get(status or 0, "fails" if status else "cannot be reached")
    text = f"The model API {words}" + (f" (HTTP {status})." if status else ".")
    error = from_status(status, text, model=model, retry_after_ms=max(1000, int(retry.retry_delay_ms)))
    told = {
        key: value for key, value in error.data.items() if key != "upstream_message"
    }  # the API's are not known
    return RpcError(error.code, error.message, told)


def hopeless(retry: RetryLine, *, patience_ms: int) -> bool:
    """Returns whether waiting for this retry would only keep the caller waiting."""
    return retry.error_status in (401, 403) or retry.retry_delay_ms > patience_ms


def _text(result: ResultLine) -> str:
    """Returns the API's words, without what the CLI says around them."""
    text = result.result or "; ".join(str(error) for error in result.errors or ())
    text = _AFTER.sub("", _BEFORE.sub("", text))
    for pattern, words in _REWORDED:
        text = pattern.sub(words, text)
    return text[:_MAX_TEXT_CHARS]
