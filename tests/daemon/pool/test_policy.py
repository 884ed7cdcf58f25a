from random import Random

import pytest

from ccd_daemon.pool.policy import (
    Breaker,
    FairQueue,
    Login,
    refused_retry_ms,
    spawns_wanted,
)


def test_the_breaker_opens_after_deaths_in_the_window_and_closes_with_a_success() -> None:
    breaker = Breaker(3, 10, 1, 8, Random(1))
    for now in (0.0, 11.0, 12.0):
        breaker.died(now, "bad")
        assert not breaker.is_open
    breaker.died(13.0, "no such file")
    assert breaker.is_open
    assert breaker.reason == "no such file"
    assert 0.9 <= breaker.wait_s(13.0) <= 1.1
    assert breaker.wait_s(15.0) == 0
    breaker.warmed()
    assert not breaker.is_open
    assert breaker.wait_s(13.0) == 0


def test_the_breaker_backs_off_further_with_every_failed_probe_up_to_a_limit() -> None:
    breaker = Breaker(1, 10, 1, 8, Random(1))
    waits = []
    for _ in range(6):
        breaker.died(0.0, "bad")
        waits.append(breaker.wait_s(0.0))
    assert [round(wait) for wait in waits] == pytest.approx([1, 2, 4, 8, 8, 8], abs=1)
    assert max(waits) <= 8.8


def test_a_refused_login_is_tried_once_in_a_while_until_it_works() -> None:
    login = Login(5)
    assert login.may_try(0.0)
    login.refused(0.0, "revoked")
    assert login.may_try(0.0), "one refusal may be an accident"
    login.worked()
    for _ in range(4):
        login.refused(0.0, "revoked")
        assert login.may_try(0.0)
    login.refused(0.0, "revoked")
    assert not login.may_try(4.9)
    assert login.may_try(5.0)
    assert not login.may_try(5.0), "one caller finds out for all"
    assert login.refusal == "revoked"
    login.worked()
    assert login.may_try(5.0)
    assert login.refusal is None


def test_tenants_take_turns() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for item in ("a1", "a2", "a3"):
        queue.push("a", item)
    queue.push("b", "b1")
    assert queue.peek() == "a1"
    assert [queue.pop() for _ in range(len(queue))] == ["a1", "b1", "a2", "a3"]
    assert queue.peek() is None


def test_places_are_counted_per_tenant() -> None:
    queue: FairQueue[str] = FairQueue(2)
    queue.push("a", "1")
    queue.push("a", "2")
    assert queue.full_for("a")
    assert not queue.full_for("b")
    queue.remove("a", "1")
    queue.remove("a", "not there")
    assert not queue.full_for("a")
    queue.remove("a", "2")
    assert len(queue) == 0


@pytest.mark.parametrize(
    ("facts", "count"),
    [
        ({"waiting": 0, "spares": 0, "spare_target": 2, "starting": 0, "alive": 0, "max_workers": 4}, 2),
        ({"waiting": 0, "spares": 1, "spare_target": 2, "starting": 1, "alive": 2, "max_workers": 4}, 0),
        ({"waiting": 3, "spares": 0, "spare_target": 2, "starting": 1, "alive": 2, "max_workers": 4}, 2),
        ({"waiting": 9, "spares": 0, "spare_target": 2, "starting": 0, "alive": 4, "max_workers": 4}, 0),
    ],
)
def test_spawns_wanted(facts: dict[str, int], count: int) -> None:
    assert spawns_wanted(**facts) == count


def test_retry_times_grow_with_the_queue_and_are_at_least_a_second() -> None:
    assert refused_retry_ms(0, 4, 0.01) == 1000
    assert refused_retry_ms(19, 4, 2.0) == 10_000
    assert refused_retry_ms(0, 0, 2.0) == 2000
