from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_gateway.access.limits import Bucket, duration, full, refilled, shown, wait_s


def test_a_bucket_refills_evenly_up_to_a_minute() -> None:
    bucket = Bucket(0, 1000)
    assert refilled(bucket, 60, 1001).level == 1
    assert refilled(bucket, 60, 1030).level == 30
    assert refilled(bucket, 60, 2000) == (60, 2000)


def test_debt_has_to_be_paid_first() -> None:
    bucket = Bucket(-60, 1000)
    assert wait_s(bucket, 1, 60) == 61
    assert refilled(bucket, 60, 1061).level == 1


def test_a_clock_that_goes_back_adds_nothing() -> None:
    assert refilled(Bucket(5, 1000), 60, 900) == (5, 900)


def test_a_smaller_limit_holds_at_once() -> None:
    assert refilled(full(100, 0), 10, 1).level == 10


@given(st.integers(1, 10**6), st.lists(st.floats(0, 30), max_size=50))
def test_no_minute_gives_more_than_the_limit_and_what_refills(limit: int, pauses: list[float]) -> None:
    bucket, taken = full(limit, 0), 0
    for pause in pauses:
        bucket = refilled(bucket, limit, bucket.at_s + pause)
        while bucket.level >= 1 and taken < 1000:
            bucket, taken = bucket._replace(level=bucket.level - 1), taken + 1
    assert taken <= limit + sum(pauses) * limit / 60 + 1e-6


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.0204, "21ms"), (1, "1s"), (6.2, "7s"), (60, "1m0s"), (359, "5m59s")]
)
def test_durations_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_headers() -> None:
    assert dict(shown("requests", Bucket(2.9, 0), 3)) == {
        b"x-ratelimit-limit-requests": b"3",
        b"x-ratelimit-remaining-requests": b"2",
        b"x-ratelimit-reset-requests": b"2s",
    }
    assert dict(shown("tokens", Bucket(-5, 0), 60))[b"x-ratelimit-remaining-tokens"] == b"0"
