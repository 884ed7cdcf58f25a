"""Spares that practise a turn: when they do, what it changes, and what ends the practice."""

from __future__ import annotations

import pytest

from ccd_daemon import config
from ccd_daemon.claude.login import Mode
from ccd_daemon.pool.pool import Pool
from ccd_daemon.pool.shelf import LeaseWish
from ccd_daemon.worker.lifecycle import State
from ccd_daemon.worker.worker import Event, Worker
from fakes.in_loop import in_loop

REFUSED = (
    b'{"type":"result","subtype":"success","is_error":true,"result":"Invalid ANTHROPIC_CUSTOM_HEADERS"}\n'
)
BY_THE_API = b'{"type":"result","subtype":"success","is_error":true,"api_error_status":400}\n'
ANSWERED = b'{"type":"result","subtype":"success","is_error":false,"result":"Hello!"}\n'
RESET = (
    b'{"type":"conversation_reset"}\n'
    b'{"type":"result","subtype":"success","is_error":false,"local_command":"clear"}\n'
)
TWO = {"CCD_POOL__SPARES": "2", "CCD_POOL__MAX_WORKERS": "4", "CCD_POOL__SPAWN_CONCURRENCY": "4"}


class Stage:
    """A pool whose processes the test plays."""

    def __init__(self, mode: Mode = Mode.FULL, *, private_login: bool = True, **overrides: str) -> None:
        environ = {"HOME": "/nonexistent", "CCD_SOCKET": "/nonexistent/ccd.sock", **TWO, **overrides}
        self.workers: list[Worker] = []
        self.pool = Pool(
            config.read(environ),
            mode,
            self.workers.append,
            list[Worker]().append,
            private_login=private_login,
        )
        self.pool.spawner.refill()

    def answer(self, worker: Worker) -> State:
        """The process is there and answers its first question."""
        worker.feed(Event.SPAWNED)
        reply = worker.controller.warm_up(None).split(b'"request_id":"')[1].split(b'"')[0]
        worker.on_stdout(
            b'{"type":"control_response","response":{"subtype":"success","request_id":"%s"}}\n' % reply
        )
        return worker.state


@in_loop
async def test_a_spare_rehearses_forgets_it_and_is_ready() -> None:
    stage = Stage()
    worker = stage.workers[0]
    assert stage.answer(worker) is State.REHEARSING
    worker.on_stdout(REFUSED)
    assert worker.state is State.RESETTING
    assert len(stage.workers) == 2, "it counts as one that is on its way"
    worker.on_stdout(RESET)
    assert worker.state is State.READY
    assert worker.wear.turns == 0
    assert worker.tenant is None
    assert await stage.pool.leases.lease("chat", LeaseWish("t")) is worker


@in_loop
async def test_who_is_waited_for_does_not_rehearse() -> None:
    stage = Stage(CCD_POOL__SPARES="1")
    (worker,) = stage.workers
    stage.pool.shelves["chat"].queue.push("t", object())  # type: ignore[arg-type]
    assert not stage.pool.may_rehearse(worker)


@pytest.mark.parametrize(
    ("mode", "private_login", "overrides"),
    [
        (Mode.KEEP_SYSTEM, True, {}),
        (Mode.REPLAY, True, {}),
        (Mode.FULL, False, {}),
        (Mode.FULL, True, {"CCD_POOL__REHEARSE": "false"}),
    ],
)
@in_loop
async def test_where_it_is_of_no_use_or_not_wanted_nobody_rehearses(
    mode: Mode, private_login: bool, overrides: dict[str, str]
) -> None:
    stage = Stage(mode, private_login=private_login, **overrides)
    assert stage.answer(stage.workers[0]) is State.READY


@pytest.mark.parametrize("end", [BY_THE_API, ANSWERED])
@in_loop
async def test_a_rehearsal_that_reaches_the_api_is_the_last(end: bytes) -> None:
    stage = Stage()
    first, second = stage.workers
    stage.answer(first)
    first.on_stdout(end)
    first.on_stdout(RESET)
    assert first.state is State.READY, "it was reset, so nothing of it remains"
    assert stage.answer(second) is State.READY
    assert stage.pool.rehearsals.fault is not None


@in_loop
async def test_two_spares_lost_in_a_row_end_the_practice_and_not_the_service() -> None:
    stage = Stage()
    for worker in stage.workers[:2]:
        assert stage.answer(worker) is State.REHEARSING
        worker.on_exit(1)
    assert not stage.pool.rehearsals.allowed
    assert stage.pool.broken() is None
    assert stage.answer(stage.workers[2]) is State.READY


@in_loop
async def test_one_spare_lost_between_good_ones_means_nothing() -> None:
    stage = Stage(CCD_POOL__SPARES="4")
    lost, good, lost_too, _ = stage.workers
    for worker in (lost, good, lost_too):
        assert stage.answer(worker) is State.REHEARSING
        if worker is good:
            worker.on_stdout(REFUSED)
        else:
            worker.on_exit(1)
    assert stage.pool.rehearsals.allowed
