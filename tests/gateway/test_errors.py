from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_gateway.errors import ApiError, from_rpc
from ccd_gateway.shapes import OPENAI
from ccd_protocol.errors import MEANINGS, Code, RpcError


def parts(error: ApiError) -> tuple[int, dict[str, Any], dict[str, str]]:
    return error.status, json.loads(OPENAI.render(error, "r").body)["error"], dict(error.headers)


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_an_answer(code: Code) -> None:
    status, error, headers = parts(from_rpc(RpcError(code, "what happened")))
    assert status == MEANINGS[code].http_status
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == "what happened"
    assert error["type"] and error["code"]
    assert (headers.get("x-should-retry") == "false") is not MEANINGS[code].retryable
    if MEANINGS[code].retryable and status in (429, 503):
        assert int(headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("code", "kind", "word"),
    [
        (Code.BAD_PARAMS, "invalid_request_error", "invalid_value"),
        (Code.UPSTREAM_AUTH, "authentication_error", "invalid_api_key"),
        (Code.MODEL_NOT_FOUND, "not_found_error", "model_not_found"),
        (Code.BUSY, "rate_limit_error", "rate_limit_exceeded"),
        (Code.CONTEXT_TOO_LONG, "invalid_request_error", "context_length_exceeded"),
        (Code.WORKER_CRASHED, "claude_process_error", "worker_crashed"),
        (Code.WORKER_SPAWN, "claude_process_error", "worker_spawn"),
        (Code.UPSTREAM_ERROR, "server_error", "upstream_error"),
        (Code.DEADLINE, "timeout_error", "timeout"),
        (Code.LOST, "service_unavailable", "daemon_unavailable"),
        (Code.BUDGET, "insufficient_quota", "insufficient_quota"),
        (Code.INTERNAL, "internal_error", "internal"),
    ],
)
def test_types_and_codes(code: Code, kind: str, word: str) -> None:
    _, error, _ = parts(from_rpc(RpcError(code)))
    assert (error["type"], error["code"]) == (kind, word)


@pytest.mark.parametrize(
    ("wait_ms", "seconds"), [(1, "1"), (1000, "1"), (1001, "2"), (61000, "61"), (0, "1"), (-5, "1")]
)
def test_retry_after_is_rounded_up(wait_ms: int, seconds: str) -> None:
    _, _, headers = parts(from_rpc(RpcError(Code.BUSY, "", {"retry_after_ms": wait_ms})))
    assert headers == {"retry-after": seconds, "retry-after-ms": str(max(0, wait_ms))}


def test_no_retry_after_output() -> None:
    _, _, headers = parts(from_rpc(RpcError(Code.UPSTREAM_ERROR, "", {"output_started": True})))
    assert headers == {"x-should-retry": "false"}


def test_param_is_named() -> None:
    _, error, _ = parts(from_rpc(RpcError(Code.BAD_PARAMS, "x", {"param": "messages[2].content"})))
    assert error["param"] == "messages[2].content"
    _, error, _ = parts(from_rpc(RpcError(Code.BAD_PARAMS, "x", {"param": 3})))
    assert error["param"] is None
