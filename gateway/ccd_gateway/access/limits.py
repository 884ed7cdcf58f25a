"""Rate limits as buckets that refill evenly: arithmetic only, the clock is given.

A bucket holds one minute's worth. What is taken may drive it below zero (how many tokens an answer costs
is known only afterwards); then it has to refill above zero first, so over time the limit holds exactly.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Bucket(NamedTuple):
    """What one bucket held at one moment.

    Attributes:
        level: units that may be taken at once; negative is debt.
        at_s: when that was, in seconds since 1970.
    """

    level: float
    at_s: float


def full(per_minute: int, now_s: float) -> Bucket:
    """A bucket that nobody has taken from."""
    return Bucket(float(per_minute), now_s)


def refilled(bucket: Bucket, per_minute: int, now_s: float) -> Bucket:
    """The bucket as it is now; a clock that went back adds nothing."""
    gained = max(0.0, now_s - bucket.at_s) * per_minute / 60
    return Bucket(min(float(per_minute), bucket.level + gained), now_s)


def wait_s(bucket: Bucket, needed: float, per_minute: int) -> float:
    """Seconds until `needed` units are there; 0 when they are."""
    return max(0.0, (needed - bucket.level) * 60 / per_minute)


def shown(name: str, bucket: Bucket, per_minute: int) -> list[tuple[bytes, bytes]]:
    """The three `x-ratelimit-*` headers of `requests` or `tokens`, as OpenAI writes them."""
    values = {
        "limit": str(per_minute),
        "remaining": str(max(0, math.floor(bucket.level))),
        "reset": duration(wait_s(bucket, per_minute, per_minute)),
    }
    return [(f"x-ratelimit-{what}-{name}".encode(), value.encode()) for what, value in values.items()]


def duration(seconds: float) -> str:
    """A time as OpenAI writes it: `0s`, `120ms`, `7s`, `1m0s`."""
    if 0 < seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(round(seconds, 6)), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
