from __future__ import annotations

import os

import pytest

from ccd_gateway.compat import rate
from ccd_gateway.compat.rate import SharedLimit


def test_it_refills_evenly_and_knows_callers_apart() -> None:
    now_s = 1000.0
    limit = SharedLimit(60, clock=lambda: now_s)
    assert [limit.take("a") for _ in range(60)] == [0] * 60
    assert limit.take("a") == pytest.approx(1)
    assert limit.take("b") == 0
    now_s += 1.5
    assert limit.take("a") == 0
    assert limit.take("a") == pytest.approx(0.5)
    now_s += 3600
    assert [limit.take("a") > 0 for _ in range(61)] == [False] * 60 + [True]


def test_a_forked_process_takes_from_the_same_bucket() -> None:
    limit = SharedLimit(2, clock=lambda: 0.0)
    child = os.fork()
    if not child:
        limit.take("a")
        limit.take("a")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert limit.take("a") > 0


def test_more_callers_than_fit_forget_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "_SLOTS", 8)
    now_s = 0.0
    limit = SharedLimit(1, clock=lambda: now_s)
    for number in range(8):
        now_s += 0.001
        assert limit.take(str(number)) == 0
    assert limit.take("7") > 0
    assert limit.take("new") == 0
    assert limit.take("0") == 0  # forgotten, so it begins anew
    assert limit.take("7") > 0
