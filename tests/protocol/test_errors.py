"""The table of errors is whole, and RpcError says what a caller needs."""

from __future__ import annotations

import pytest

from ccd_protocol.errors import MEANINGS, Code, RpcError, known


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Code)
    for meaning in MEANINGS.values():
        assert 400 <= meaning.http_status < 600
        assert meaning.summary == meaning.summary.strip() and not meaning.summary.endswith(".")


def test_a_callers_own_mistake_is_not_worth_repeating() -> None:
    for code, meaning in MEANINGS.items():
        if meaning.retryable:
            assert meaning.http_status in (429, 502, 503, 504), code


def test_numbers_of_a_later_version_count_as_internal() -> None:
    assert known(40) is Code.BUSY
    assert known(79) is Code.INTERNAL
    assert RpcError(4_000_000).code is Code.INTERNAL


def test_error_without_a_message_has_its_summary() -> None:
    error = RpcError(Code.BUSY)
    assert error.message == MEANINGS[Code.BUSY].summary
    assert str(error) == f"BUSY: {error.message}"
    assert error.data == {}


@pytest.mark.parametrize(("value", "expected"), [(5, 5), (None, None), ("5", None)])
def test_retry_after(value: object, expected: int | None) -> None:
    assert RpcError(Code.BUSY, "", {"retry_after_ms": value}).retry_after_ms == expected


def test_nothing_is_retryable_once_output_was_sent() -> None:
    assert RpcError(Code.UPSTREAM_ERROR).retryable
    assert not RpcError(Code.UPSTREAM_ERROR, "", {"output_started": True}).retryable
    assert not RpcError(Code.BAD_PARAMS).retryable
