"""Who gets which worker, and when one is started: real workers without processes, moved by hand."""

from __future__ import annotations

import asyncio

import pytest

from ccd_daemon import config
from ccd_daemon.claude.login import Mode
from ccd_daemon.pool.pool import Pool
from ccd_daemon.pool.shelf import LeaseWish
from ccd_daemon.request.body import Script
from ccd_daemon.worker.lifecycle import Event, State
from ccd_daemon.worker.worker import Worker
from ccd_protocol.errors import Code, RpcError
from fakes.in_loop import in_loop


class Bench:
    """A pool whose processes are started and answered by the test."""

    def __init__(self, **overrides: str) -> None:
        environ = {"HOME": "/nonexistent", "CCD_SOCKET": "/nonexistent/ccd.sock", **overrides}
        self.launched: list[Worker] = []
        self.ended: list[Worker] = []
        self.pool = Pool(config.read(environ), Mode.FULL, self.launched.append, self.ended.append)

    def warm(self, worker: Worker) -> Worker:
        worker.feed(Event.SPAWNED)
        worker.was_ready = True
        worker.feed(Event.WARMED)
        return worker

    def warm_all(self) -> None:
        for worker in self.launched:
            if worker.state is State.SPAWNING:
                self.warm(worker)

    def warmed(self) -> Bench:
        """With its spares."""
        self.pool.spawner.refill()
        self.warm_all()
        return self

    def fail(self, worker: Worker) -> None:
        worker.feed(Event.SPAWN_FAILED)

    def forgotten(self, worker: Worker) -> None:
        """The process has confirmed a reset."""
        worker.on_stdout(RESET)

    async def wanted_by(self, tenant: str) -> asyncio.Task[Worker]:
        """Somebody who waits for a worker by now."""
        asking = asyncio.get_running_loop().create_task(self.pool.leases.lease("chat", LeaseWish(tenant)))
        await asyncio.sleep(0)
        return asking

    @property
    def starting(self) -> list[Worker]:
        return [worker for worker in self.launched if worker.state is State.SPAWNING]


RESET = (
    b'{"type":"conversation_reset"}\n'
    b'{"type":"result","subtype":"success","is_error":false,"local_command":"clear"}\n'
)
ONE = {"CCD_POOL__SPARES": "0", "CCD_POOL__MAX_WORKERS": "1", "CCD_POOL__SPAWN_CONCURRENCY": "1"}
SMALL = {"CCD_POOL__SPARES": "2", "CCD_POOL__MAX_WORKERS": "4", "CCD_POOL__SPAWN_CONCURRENCY": "4"}


@in_loop
async def test_the_warmest_worker_is_leased_first() -> None:
    bench = Bench(**SMALL)
    bench.pool.spawner.refill()
    first, second = bench.launched
    bench.warm(first)
    bench.warm(second)
    leased = await bench.pool.leases.lease("chat", LeaseWish("t"))
    assert leased is second
    bench.pool.leases.release(leased)
    assert await bench.pool.leases.lease("chat", LeaseWish("t")) is second
    assert await bench.pool.leases.lease("chat", LeaseWish("t")) is first


@in_loop
async def test_a_tenant_gets_its_own_worker_and_a_stranger_a_fresh_one() -> None:
    bench = Bench(**SMALL).warmed()
    mine = await bench.pool.leases.lease("chat", LeaseWish("a"))
    bench.pool.leases.release(mine)
    theirs = await bench.pool.leases.lease("chat", LeaseWish("b"))
    assert theirs is not mine
    assert await bench.pool.leases.lease("chat", LeaseWish("a")) is mine


@in_loop
async def test_a_waiter_cancelled_in_the_moment_of_the_hand_over_loses_no_worker() -> None:
    bench = Bench(**SMALL)
    bench.pool.spawner.refill()
    asking = await bench.wanted_by("t")
    bench.warm(bench.launched[0])  # handed over now …
    asking.cancel()  # … and cancelled before the waiter runs
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert bench.launched[0].state is State.READY
    assert await bench.pool.leases.lease("chat", LeaseWish("t")) is bench.launched[0]
    assert bench.pool.waiting == 0


@in_loop
async def test_a_worker_handed_to_a_cancelled_waiter_goes_to_the_next_in_line() -> None:
    bench = Bench(**SMALL)
    bench.pool.spawner.refill()
    first, second = await bench.wanted_by("t"), await bench.wanted_by("t")
    bench.warm(bench.launched[0])
    first.cancel()
    assert await second is bench.launched[0]
    assert first.cancelled()


@in_loop
async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    bench = Bench(**SMALL)
    bench.pool.spawner.refill()
    asking = await bench.wanted_by("t")
    assert bench.pool.waiting == 1
    asking.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.pool.waiting == 0
    bench.warm_all()
    assert {worker.state for worker in bench.launched} == {State.READY}


@in_loop
async def test_waiting_too_long_is_busy_with_a_time_to_retry() -> None:
    bench = Bench(**SMALL, CCD_QUEUE__TIMEOUT_S="0.05")
    bench.pool.spawner.refill()
    with pytest.raises(RpcError) as caught:
        await bench.pool.leases.lease("chat", LeaseWish("t"))
    assert caught.value.code is Code.BUSY
    assert (caught.value.retry_after_ms or 0) >= 1000


@in_loop
async def test_starts_are_limited_at_a_time_and_in_all() -> None:
    bench = Bench(CCD_POOL__SPARES="8", CCD_POOL__MAX_WORKERS="5", CCD_POOL__SPAWN_CONCURRENCY="2")
    bench.pool.spawner.refill()
    for expected in (2, 3, 4, 5, 5):
        assert len(bench.launched) == expected
        assert len(bench.starting) <= 2
        if bench.starting:
            bench.warm(bench.starting[0])
    bench.warm_all()
    assert len(bench.launched) == 5


@in_loop
async def test_an_open_breaker_fails_fast_and_lets_one_probe_through() -> None:
    backoff = {"CCD_BREAKER__DEATHS": "2", "CCD_BREAKER__BACKOFF_S": "0.1", "CCD_BREAKER__WINDOW_S": "10"}
    bench = Bench(**SMALL, **backoff)
    bench.pool.spawner.refill()
    waiting = await bench.wanted_by("t")
    while bench.starting:
        bench.starting[0].death = "no such file"
        bench.fail(bench.starting[0])
    with pytest.raises(RpcError) as caught:
        await waiting
    assert caught.value.code is Code.WORKER_SPAWN
    assert "no such file" in caught.value.message
    assert bench.pool.broken() is not None
    launched = len(bench.launched)
    with pytest.raises(RpcError):
        await bench.pool.leases.lease("chat", LeaseWish("t"))
    assert len(bench.launched) == launched, "nothing is started while it is open"
    async with asyncio.timeout(5):
        while len(bench.launched) == launched:
            await asyncio.sleep(0.01)
    assert len(bench.starting) == 1, "one probe"
    bench.warm(bench.starting[0])
    assert bench.pool.broken() is None
    assert len(bench.starting) == 1, "closed: the spares are filled up again"


@in_loop
async def test_a_failing_probe_waits_longer() -> None:
    backoff = {"CCD_BREAKER__DEATHS": "1", "CCD_BREAKER__BACKOFF_S": "0.05", "CCD_POOL__SPARES": "1"}
    bench = Bench(**{**SMALL, **backoff})
    bench.pool.spawner.refill()
    shelf = bench.pool.shelves["chat"]
    waits = []
    for _ in range(3):
        async with asyncio.timeout(5):
            while not bench.starting:
                await asyncio.sleep(0.005)
        bench.fail(bench.starting[0])
        waits.append(shelf.breaker.wait_s(asyncio.get_running_loop().time()))
    assert waits[0] < waits[1] < waits[2]
    assert bench.pool.counters["died_unready"] == 3


async def lent_and_wanted_by_a_stranger() -> tuple[Bench, Worker, asyncio.Task[Worker]]:
    """The only worker has heard somebody, is idle again, and another tenant waits."""
    bench = Bench(**ONE)
    first = await bench.wanted_by("a")
    bench.warm_all()
    worker = await first
    bench.pool.leases.release(worker)
    return bench, worker, await bench.wanted_by("b")


@in_loop
async def test_an_idle_worker_of_another_tenant_is_taken_after_a_confirmed_reset() -> None:
    bench, worker, second = await lent_and_wanted_by_a_stranger()
    assert worker.state is State.RESETTING
    assert not second.done()
    bench.forgotten(worker)
    assert await second is worker
    assert worker.tenant == "b"
    assert bench.pool.counters["resets"] == 1


@in_loop
async def test_an_unconfirmed_reset_ends_the_worker_and_the_waiter_gets_another() -> None:
    bench, worker, second = await lent_and_wanted_by_a_stranger()
    worker.feed(Event.RESULT)  # a result, but not the one of a reset
    assert worker.state is State.KILLING
    assert not second.done()
    worker.feed(Event.EXITED)
    bench.warm_all()
    replacement = await second
    assert replacement is not worker
    assert bench.pool.counters["died_unready"] == 0


@in_loop
async def test_a_worker_that_dies_while_idle_is_replaced() -> None:
    bench = Bench(**SMALL).warmed()
    gone = bench.launched[0]
    gone.feed(Event.EXITED)
    assert gone not in bench.pool.workers
    assert len(bench.starting) == 1
    assert bench.pool.counters["died_unready"] == 0


@in_loop
async def test_under_pressure_no_spares_are_started_but_waiters_are_served() -> None:
    bench = Bench(**SMALL).warmed()
    bench.pool.under_pressure(True)
    assert [worker.state for worker in bench.launched] == [State.DRAINING, State.READY]
    bench.launched[0].feed(Event.EXITED)
    assert not bench.starting
    assert await bench.pool.leases.lease("chat", LeaseWish("t")) is bench.launched[1]
    asking = await bench.wanted_by("t")
    assert len(bench.starting) == 1, "one for the waiter, none besides"
    bench.warm_all()
    await asking
    bench.pool.under_pressure(False)
    assert len(bench.starting) == 2, "relieved: the spares come back"


@in_loop
async def test_a_replaced_cli_is_rolled_out_without_touching_running_turns() -> None:
    bench = Bench(**SMALL).warmed()
    busy = await bench.pool.leases.lease("chat", LeaseWish("t"))
    bench.pool.spawner.refill()
    (warming,) = bench.starting
    idle = next(worker for worker in bench.launched if worker.state is State.READY)
    bench.pool.roll()
    assert idle.state is State.DRAINING
    assert busy.state is State.HELD
    assert warming.state is State.KILLING
    for worker in (idle, warming):
        worker.feed(Event.EXITED)
    assert bench.pool.counters["died_unready"] == 0, "a rolled worker is no failure"
    assert len(bench.starting) == 2
    bench.pool.leases.release(busy)
    assert busy.state is State.DRAINING
    bench.warm_all()
    fresh = await bench.pool.leases.lease("chat", LeaseWish("t"))
    assert not fresh.stale


@in_loop
async def test_draining_refuses_the_waiting_and_lets_the_running_end() -> None:
    bench = Bench(**{**SMALL, "CCD_POOL__MAX_WORKERS": "1", "CCD_POOL__SPARES": "1"}).warmed()
    running = await bench.pool.leases.lease("chat", LeaseWish("t"))
    turn = running.turns.begin(Script(b""), "m", None)
    waiting = await bench.wanted_by("t")
    stopping = asyncio.get_running_loop().create_task(bench.pool.stop(10))
    with pytest.raises(RpcError) as caught:
        await waiting
    assert caught.value.code is Code.DRAINING
    with pytest.raises(RpcError):
        await bench.pool.leases.lease("chat", LeaseWish("t"))
    assert running.state is State.BUSY
    running.on_stdout(b'{"type":"result","subtype":"success","is_error":false,"result":"x"}\n')
    assert (await turn.future)["worker"] == running.id
    bench.pool.leases.release(running)
    async with asyncio.timeout(5):
        while running.state is not State.DRAINING:
            await asyncio.sleep(0.01)
    running.feed(Event.EXITED)
    await stopping
    assert not bench.pool.workers
    assert not bench.starting
