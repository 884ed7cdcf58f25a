"""One client of a session, fast or slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ccd_daemon.session.follower import Follower
from ccd_protocol.errors import Code, RpcError


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@in_loop
async def test_lines_pass_at_once() -> None:
    sent: list[bytes] = []
    follower = Follower(sent.append, 100)
    follower.tell(b"a\n")
    follower.tell(b"")
    follower.tell(b"b\n")
    assert sent == [b"a\n", b"b\n"]
    follower.finish("closed")
    assert follower.ended.result() == "closed"
    follower.tell(b"late\n")
    follower.finish("again")
    assert sent == [b"a\n", b"b\n"] and follower.ended.result() == "closed"


@in_loop
async def test_lines_wait_for_a_slow_client_in_order() -> None:
    sent: list[bytes] = []
    follower = Follower(sent.append, 100)
    follower.pause()
    follower.tell(b"a\n")
    follower.tell(b"b\n")
    follower.finish("idle")
    assert sent == [] and not follower.ended.done()
    follower.resume()
    assert sent == [b"a\n", b"b\n"] and follower.ended.result() == "idle"


@in_loop
async def test_a_window_that_closes_again_stops_the_rest() -> None:
    sent: list[bytes] = []

    def send(lines: bytes) -> None:
        sent.append(lines)
        follower.pause()

    follower = Follower(send, 100)
    for lines in (b"a\n", b"b\n", b"c\n"):
        follower.tell(lines)
    assert sent == [b"a\n"]
    follower.resume()
    assert sent == [b"a\n", b"b\n"]
    follower.resume()
    assert sent == [b"a\n", b"b\n", b"c\n"]


@in_loop
async def test_who_is_interested_in_the_flow_is_told() -> None:
    follower = Follower(lambda lines: None, 100)
    told: list[bool] = []
    follower.flow_changed = lambda: told.append(follower.paused)
    for act in (follower.pause, follower.pause, follower.resume):
        act()
    assert told == [True, False]


@in_loop
async def test_a_client_that_does_not_read_is_cut_off() -> None:
    sent: list[bytes] = []
    follower = Follower(sent.append, 5)
    follower.pause()
    follower.tell(b"1234\n")
    assert not follower.ended.done()
    follower.tell(b"5\n")
    with pytest.raises(RpcError) as failure:
        await follower.ended
    assert failure.value.code is Code.BUSY and failure.value.data["reason"] == "slow"
    follower.resume()
    assert sent == []
