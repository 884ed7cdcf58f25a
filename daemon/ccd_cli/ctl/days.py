"""Days and periods as they are typed: `2026-11-01`, `90d`, `12h`."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta

import click

_PERIOD = re.compile(r"(\d{1,5})([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def moment(when: str) -> float:
    """When a day is over (UTC), or a period from now is: seconds since the epoch.

    Raises:
        click.BadParameter: it is neither.
    """
    period = _period(when)
    if period is not None:
        return round(time.time() + period.total_seconds())
    return datetime.combine(_day(when), datetime.min.time(), UTC).timestamp() + 86400


def first_day(since: str | None) -> str:
    """The first day that is meant, as 2026-11-01 (UTC); None is today.

    Raises:
        click.BadParameter: it is neither a day nor a period.
    """
    period = _period(since or "0d")
    if period is not None:
        return (datetime.now(UTC) - period).date().isoformat()
    return _day(since or "").isoformat()


def _period(text: str) -> timedelta | None:
    found = _PERIOD.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"expected a day like 2026-11-01 or a period like 7d, got {text[:40]!r}"
        ) from None
