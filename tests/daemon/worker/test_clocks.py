"""The clocks on a loop whose time the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from ccd_daemon import config
from ccd_daemon.config import Settings
from ccd_daemon.request.body import Script
from ccd_daemon.worker.clocks import OutputClock, StateClock
from ccd_daemon.worker.lifecycle import State
from ccd_daemon.worker.turn import Stage, Turn

LIMITS = {"FIRST_OUTPUT_S": "90", "STALL_S": "120", "RESULT_S": "10", "WARM_TIMEOUT_S": "60"}


def settings() -> Settings:
    limits = {f"CCD_DEADLINES__{name}": value for name, value in LIMITS.items()}
    environ = {"HOME": "/nonexistent", "CCD_SOCKET": "/nonexistent/ccd.sock", "CCD_POOL__MAX_IDLE_S": "100"}
    return config.read({**environ, **limits})


class Loop(asyncio.SelectorEventLoop):
    """Time stands still except in `pass_s`."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += seconds
        self.run_until_complete(self._a_round())

    async def _a_round(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


class Watched:
    """An output clock and the turn it watches."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.paused = False
        self.passed: list[str] = []
        loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.turn = Turn(Script(b""), "m", None, self.loop.now)
        self.clock = OutputClock(settings(), lambda: self.paused, self.passed.append)
        self.clock.watch(self.turn)

    def output(self) -> None:
        self.turn.last_output = self.loop.now


def test_a_first_output_must_come_in_time(loop: Loop) -> None:
    watched = Watched(loop)
    loop.pass_s(89)
    assert not watched.passed
    loop.pass_s(1.1)
    assert watched.passed == ["no output for 90 s"]
    loop.pass_s(500)
    assert len(watched.passed) == 1


def test_output_puts_the_limit_off_without_the_clock_being_told(loop: Loop) -> None:
    watched = Watched(loop)
    watched.turn.stage = Stage.FLOWING
    watched.clock.watch(watched.turn)
    for _ in range(10):
        loop.pass_s(100)
        watched.output()
    assert not watched.passed
    loop.pass_s(121)
    loop.pass_s(0.1)
    assert watched.passed == ["no further output for 120 s"]


def test_after_the_answer_only_the_result_is_waited_for(loop: Loop) -> None:
    watched = Watched(loop)
    watched.turn.stage = Stage.COMPLETE
    watched.clock.watch(watched.turn)
    loop.pass_s(10.1)
    assert watched.passed == ["no further output for 10 s"]


def test_silence_while_the_caller_holds_back_is_not_the_clis(loop: Loop) -> None:
    watched = Watched(loop)
    watched.paused = True
    for _ in range(5):
        loop.pass_s(100)
    assert not watched.passed
    watched.paused = False
    watched.output()
    loop.pass_s(89)
    assert not watched.passed
    loop.pass_s(2)
    assert watched.passed


def test_a_stopped_clock_says_nothing(loop: Loop) -> None:
    watched = Watched(loop)
    watched.clock.stop()
    loop.pass_s(500)
    assert not watched.passed


def test_each_state_has_its_own_limit_and_starts_it_anew(loop: Loop) -> None:
    passed: list[str] = []

    async def start() -> StateClock:
        return StateClock(settings(), Random(1), passed.append)

    clock = loop.run_until_complete(start())
    clock.enter(State.WARMING)
    loop.pass_s(59)
    clock.enter(State.WARMING)
    loop.pass_s(59)
    assert not passed
    loop.pass_s(2)
    clock.enter(State.READY)  # give or take a tenth
    loop.pass_s(89)
    assert passed == ["warm_timeout_s"]
    loop.pass_s(22)
    assert passed == ["warm_timeout_s", "max_idle_s"]
    clock.enter(State.HELD)
    clock.enter(State.DEAD)
    loop.pass_s(10_000)
    assert len(passed) == 2
