"""What the CLI says of a failed API call becomes the API's own words again, as far as they are told."""

from __future__ import annotations

from typing import Any

import pytest

from ccd_daemon.claude.control import ResultLine
from ccd_daemon.claude.failures import from_result
from ccd_daemon.errors import param_in
from ccd_protocol.errors import Code

TEMPORARY = "This is a server-side issue, usually temporary — try again in a moment."
ADVICE = "If it persists, check your inference gateway (127.0.0.1:4711)."


def failed(status: int | None, kind: str | None, text: str, **more: Any) -> Any:
    return from_result(
        ResultLine(
            subtype="success",
            is_error=True,
            result=text,
            api_error_status=status,
            api_error_type=kind,
            **more,
        ),
        model="m",
    )


@pytest.mark.parametrize(
    ("status", "kind", "text", "code", "said"),
    [
        (400, "invalid_request_error", "API Error: 400 tools: bad", Code.BAD_PARAMS, "tools: bad"),
        (402, "billing_error", "Credit balance is too low", Code.BUDGET, "Credit balance is too low"),
        (
            403,
            "permission_error",
            "Failed to authenticate. API Error: 403 Your key may not use this",
            Code.FORBIDDEN,
            "Your key may not use this",
        ),
        (408, "timeout_error", "API Error: 408 slow", Code.UPSTREAM_ERROR, "slow"),
        (409, "conflict_error", "API Error: 409 busy", Code.UPSTREAM_ERROR, "busy"),
        (
            413,
            "request_too_large",
            "Request too large (max 32MB). Accumulated images pushed the request over the limit.",
            Code.TOO_LARGE,
            "Request exceeds the maximum size",
        ),
        (422, "invalid_request_error", "API Error: 422 no", Code.BAD_PARAMS, "no"),
        (
            429,
            "rate_limit_error",
            "API Error: Request rejected (429) · This request would exceed your limit",
            Code.UPSTREAM_LIMIT,
            "This request would exceed your limit",
        ),
        *(
            (status, kind, f"API Error: {status} it. {TEMPORARY} {ADVICE}", code, "it")
            for status, kind, code in (
                (500, "api_error", Code.UPSTREAM_ERROR),
                (502, "api_error", Code.UPSTREAM_ERROR),
                (503, "api_error", Code.UPSTREAM_OVERLOADED),
                (504, "timeout_error", Code.UPSTREAM_ERROR),
                (529, "overloaded_error", Code.UPSTREAM_OVERLOADED),
            )
        ),
        (
            400,
            "invalid_request_error",
            "API Error: an image in the conversation could not be processed and was removed. Re-read the file.",
            Code.BAD_PARAMS,
            "Could not process image",
        ),
    ],
)
def test_the_words_are_the_apis(status: int, kind: str, text: str, code: Code, said: str) -> None:
    error = failed(status, kind, text)
    assert (error.code, error.message) == (code, said)
    assert error.data["upstream_status"] == status and error.data["upstream_type"] == kind


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Prompt is too long · the request is ~210000 tokens (limit 200000) but only ~16 tokens",
            "prompt is too long: 210000 tokens > 200000 maximum",
        ),
        (
            "Prompt is too long · this conversation is a single exchange and cannot be compacted",
            "prompt is too long",
        ),
    ],
)
def test_a_prompt_that_is_too_long_is_said_so_that_clients_know_it(text: str, said: str) -> None:
    error = failed(400, "invalid_request_error", text, terminal_reason="prompt_too_long")
    assert (error.code, error.message) == (Code.CONTEXT_TOO_LONG, said)
    assert error.data == {"upstream_status": 400, "upstream_type": "invalid_request_error"}


def test_a_refused_login_says_what_to_do_and_what_the_api_said() -> None:
    error = failed(401, "authentication_error", "Invalid API key · Fix external API key")
    assert error.code is Code.UPSTREAM_AUTH and "Log in once" in error.message
    assert error.data["upstream_message"] == "invalid x-api-key"
    oauth = failed(
        403, "permission_error", "Failed to authenticate. API Error: 403 OAuth token has been revoked"
    )
    assert oauth.code is Code.UPSTREAM_AUTH
    assert failed(None, None, "Not logged in · Please run /login").code is Code.UPSTREAM_AUTH


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("tools.0.custom.input_schema: JSON schema is invalid.", "tools[0].input_schema"),
        ("tools.12.custom.name: String should match", "tools[12].name"),
        ("messages.1.content.0: Invalid `signature`", "messages[1].content[0]"),
        ("messages.0.content.2.image.source.base64.data: too large", "messages[0].content[2].source.data"),
        ("thinking.enabled.budget_tokens: Input should be", "thinking.budget_tokens"),
        ("metadata.user_id: user_id appears to contain an email address.", "metadata.user_id"),
        ("messages: text content blocks must be non-empty", "messages"),
        ("Could not process image", None),
        ("something: else", None),
    ],
)
def test_the_place_that_a_refusal_begins_with(text: str, param: str | None) -> None:
    assert param_in(text) == param
