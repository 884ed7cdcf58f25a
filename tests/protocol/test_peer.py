"""One peer against frames written by hand: each rule of the protocol, and hostile input."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_protocol import frames as f
from ccd_protocol.calls import PLAIN_ASKED, PLAIN_SERVED, CallState
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.frames import Limits
from ccd_protocol.peer import (
    Called,
    CallFailed,
    Cancelled,
    Closed,
    Credited,
    Ended,
    GoingAway,
    Greeted,
    Item,
    Peer,
)

HELLO = [0, 1, 0, "hand/1", {}]


def pack(*frames: Any) -> bytes:
    return b"".join(map(msgpack.packb, frames))


def sent(peer: Peer) -> list[Any]:
    """Frames that a peer wants to send."""
    unpacker = msgpack.Unpacker(max_buffer_size=1 << 30)
    unpacker.feed(b"".join(peer.outgoing()))
    return list(unpacker)


def greeted(
    role: Any = "accepting", caps: dict[str, Any] | None = None, limits: Limits | None = None
) -> Peer:
    peer = Peer(role, "test/1", limits=limits)
    peer.outgoing()
    assert [type(event) for event in peer.receive(pack([0, 1, 0, "hand/1", caps or {}]))] == [Greeted]
    return peer


def serving(window: int = 100, **kwargs: Any) -> Peer:
    """A peer that serves call 1."""
    peer = greeted(**kwargs)
    peer.receive(pack([1, 1, "m", {}, 0, window, 0]))
    return peer


def asking(window: int = 100, **kwargs: Any) -> Peer:
    """A peer that has asked call 1."""
    peer = greeted("connecting", **kwargs)
    assert peer.call("m", window=window) == 1
    peer.outgoing()
    return peer


def closed_by(peer: Peer, *frames: Any) -> Closed:
    """Frames that break the protocol do so with a typed event, a GOAWAY, and nothing after it."""
    peer.outgoing()
    event = peer.receive(pack(*frames))[-1]
    assert isinstance(event, Closed)
    goaway = sent(peer)[-1]
    assert (goaway[0], goaway[2], goaway[3]) == (f.GOAWAY, event.code, event.message)
    assert peer.closed and not peer.usable
    assert peer.receive(pack(HELLO)) == []
    return event


def test_hello_is_sent_at_once_and_announces_the_limits() -> None:
    peer = Peer("connecting", "test/1", limits=Limits(max_frame_bytes=70_000, max_open_calls=3))
    assert sent(peer) == [[0, 1, 0, "test/1", {"max_frame_bytes": 70_000, "max_open_calls": 3}]]
    assert peer.outgoing() == []


def test_greeting() -> None:
    peer = Peer("accepting", "test/1")
    assert not peer.greeted
    assert peer.receive(pack([0, 1, 7, "hand/1", {"x": 1}, "later"])) == [Greeted("hand/1", 7, {"x": 1})]
    assert peer.greeted


@pytest.mark.parametrize("kind", range(1, 8))
def test_nothing_comes_before_hello(kind: int) -> None:
    event = closed_by(Peer("accepting", "test/1"), [kind, 1, 1, 1, 1, 1, 1])
    assert event.message == f"{f.KIND_NAMES[kind]} before HELLO"


def test_second_hello() -> None:
    assert closed_by(greeted(), HELLO).message == "a second HELLO"


def test_other_major_version() -> None:
    event = closed_by(Peer("accepting", "test/1"), [0, 2, 0, "hand/1", {}])
    assert event.code is Code.VERSION


@pytest.mark.parametrize(
    "frame",
    [
        [0, 1, 0, "a"],
        [0, True, 0, "a", {}],
        [0, 1, -1, "a", {}],
        [0, 1, 0, b"a", {}],
        [0, 1, 0, "a" * 257, {}],
        [0, 1, 0, "a", []],
        [0, 1, 0, "a", {"max_frame_bytes": 1}],
    ],
)
def test_bad_hello(frame: list[Any]) -> None:
    assert closed_by(Peer("accepting", "test/1"), frame).code is Code.PROTOCOL


@pytest.mark.parametrize(
    "frame",
    [
        5,
        None,
        True,
        "text",
        b"bin",
        {},
        {"0": 1},
        [],
        [None],
        [True, 1],
        ["1"],
        [[1]],
        [1.0],
        [-1],
        [8, 1],
        [2**40],
    ],
)
def test_what_is_no_frame(frame: Any) -> None:
    assert closed_by(greeted(), frame).code is Code.PROTOCOL


@pytest.mark.parametrize(
    "frame",
    [
        [1],
        [1, 1, "m", {}, 0, 0],
        [1, 0, "m", {}, 0, 0, 0],
        [1, 2, "m", {}, 0, 0, 0],
        [1, -1, "m", {}, 0, 0, 0],
        [1, 2**32 + 1, "m", {}, 0, 0, 0],
        [1, True, "m", {}, 0, 0, 0],
        [1, 1.0, "m", {}, 0, 0, 0],
        [1, "1", "m", {}, 0, 0, 0],
        [1, [1], "m", {}, 0, 0, 0],
        [1, 1, "", {}, 0, 0, 0],
        [1, 1, "m" * 129, {}, 0, 0, 0],
        [1, 1, b"m", {}, 0, 0, 0],
        [1, 1, "m", [], 0, 0, 0],
        [1, 1, "m", None, 0, 0, 0],
        [1, 1, "m", {}, -1, 0, 0],
        [1, 1, "m", {}, True, 0, 0],
        [1, 1, "m", {}, 2**32, 0, 0],
        [1, 1, "m", {}, 0, -1, 0],
        [1, 1, "m", {}, 0, None, 0],
        [1, 1, "m", {}, 0, 2**32, 0],
        [1, 1, "m", {}, 0, 0, 2],
        [1, 1, "m", {}, 0, 0, -2],
        [1, 1, "m", {}, 0, 0, False],
    ],
)
def test_bad_call(frame: list[Any]) -> None:
    assert closed_by(greeted(), frame).code is Code.PROTOCOL


@pytest.mark.parametrize(
    "frame",
    [
        [2, 1],
        [2, 1, "text"],
        [2, 1, b""],
        [2, 3, b"x"],
        [2, 2, b"x"],
        [2, True, b"x"],
        [2, [], b"x"],
        [3, 1],
        [3, 3, None],
        [3, 1.0, None],
        [3, {}, None],
        [4, 1, 1, "m"],
        [4, 3, 1, "m", None],
        [4, 1, -1, "m", None],
        [4, 1, True, "m", None],
        [4, 1, 1, b"m", None],
        [4, 1, 1, None, None],
        [4, 1, 1, "m", []],
        [5, 2, ""],
        [6, 2, 1],
        [7, 1, 1],
        [7, -1, 1, ""],
        [7, 1, "1", ""],
        [7, 1, 1, None],
    ],
)
def test_bad_frame_for_the_asking_side(frame: list[Any]) -> None:
    assert closed_by(asking(), frame).code is Code.PROTOCOL


@pytest.mark.parametrize(
    "frame",
    [
        [5, 1],
        [5, 1, None],
        [5, 3, ""],
        [5, 2, ""],
        [5, 0, ""],
        [5, True, ""],
        [6, 1],
        [6, 1, 0],
        [6, 1, -1],
        [6, 1, True],
        [6, 1, 1.5],
        [6, 1, 2**32],
        [6, 1, f.MAX_U32],
        [6, 3, 1],
        [6, 0, 1],
    ],
)
def test_bad_frame_for_the_serving_side(frame: list[Any]) -> None:
    assert closed_by(serving(), frame).code is Code.PROTOCOL


def test_ids_increase_and_are_never_reused() -> None:
    peer = greeted()
    peer.receive(pack([1, 5, "m", {}, 0, 0, 0]))
    peer.end(5)
    assert "increase" in closed_by(peer, [1, 5, "m", {}, 0, 0, 0]).message
    peer = greeted()
    peer.receive(pack([1, 5, "m", {}, 0, 0, 0]))
    assert "increase" in closed_by(peer, [1, 3, "m", {}, 0, 0, 0]).message


def test_each_side_gives_ids_of_its_own() -> None:
    connecting, accepting = greeted("connecting"), greeted("accepting")
    assert [connecting.call("m") for _ in range(3)] == [1, 3, 5]
    assert [accepting.call("m") for _ in range(3)] == [2, 4, 6]


def test_used_up_ids() -> None:
    peer = greeted("connecting")
    peer._next_id = f.MAX_U32
    assert peer.call("m") == f.MAX_U32
    assert not peer.usable
    with pytest.raises(RpcError, match="used up"):
        peer.call("m")


def test_call_and_end() -> None:
    peer = greeted()
    (called,) = peer.receive(pack([1, 1, "m", {"a": 1}, 50, 9, 0, "later"]))
    assert called == Called(1, "m", {"a": 1}, 50, 9, 0)
    assert peer.open_calls == 1
    assert peer.end(1, {"ok": True})
    assert sent(peer) == [[3, 1, {"ok": True}]]
    assert peer.open_calls == 0
    assert not peer.end(1) and not peer.fail(1, Code.BUSY)
    assert peer.item(1, b"late") == 0
    assert sent(peer) == []


def test_answering_what_was_never_called_is_the_callers_mistake() -> None:
    peer = greeted()
    for act in (lambda: peer.end(1), lambda: peer.fail(1, Code.BUSY), lambda: peer.item(1, b"x")):
        with pytest.raises(ValueError, match="never received"):
            act()


def test_fail_and_its_event() -> None:
    peer = serving()
    peer.fail(1, Code.BUSY, "full", {"retry_after_ms": 5})
    frame = sent(peer)
    assert frame == [[4, 1, 40, "full", {"retry_after_ms": 5}]]
    assert asking().receive(pack(*frame)) == [CallFailed(1, 40, "full", {"retry_after_ms": 5})]
    assert asking().receive(pack([4, 1, 12345, "new", None, 1])) == [CallFailed(1, 12345, "new", {})]


def test_result_that_cannot_be_sent() -> None:
    peer = serving()
    peer.end(1, object())
    assert sent(peer)[0][:3] == [4, 1, Code.INTERNAL]
    peer = serving(caps={"max_frame_bytes": 65_536})
    peer.end(1, "x" * 70_000)
    assert sent(peer)[0][:3] == [4, 1, Code.TOO_LARGE]


def test_failure_data_that_cannot_be_sent_is_left_out() -> None:
    peer = serving()
    peer.fail(1, Code.INTERNAL, "a \ud800 surrogate", {"data": object()})
    assert sent(peer) == [[4, 1, 80, "a ? surrogate", None]]
    peer = serving(caps={"max_frame_bytes": 65_536})
    peer.fail(1, Code.INTERNAL, "x" * 100_000, {"data": "x" * 100_000})
    (frame,) = sent(peer)
    assert len(frame[3]) == 8192 and frame[4] is None


def test_call_that_cannot_be_sent_uses_no_id() -> None:
    peer = greeted("connecting", caps={"max_frame_bytes": 65_536})
    bad = {"x": object()}, {"x": "\ud800"}, {"x": 2**70}
    for params in bad:
        with pytest.raises(RpcError) as caught:
            peer.call("m", params)
        assert caught.value.code is Code.BAD_PARAMS
    for kwargs in ({"timeout_ms": -1}, {"window": 2**32}):
        with pytest.raises(RpcError) as caught:
            peer.call("m", **kwargs)
        assert caught.value.code is Code.BAD_PARAMS
    with pytest.raises(RpcError) as caught:
        peer.call("", {})
    assert caught.value.code is Code.BAD_PARAMS
    with pytest.raises(RpcError) as caught:
        peer.call("m", {"x": "x" * 70_000})
    assert caught.value.code is Code.TOO_LARGE
    assert peer.call("m") == 1
    assert len(sent(peer)) == 1


def test_items_and_credit_of_the_serving_side() -> None:
    peer = serving(window=10)
    assert peer.item(1, b"123456") == 4
    assert peer.item(1, b"") == 4
    assert peer.item(1, b"12345678") == -4  # the window may be overdrawn by one ITEM
    assert peer.item(1, b"held") <= 0
    assert sent(peer) == [[2, 1, b"123456"], [2, 1, b"12345678"]]
    assert peer.receive(pack([6, 1, 4])) == []  # still at 0
    assert sent(peer) == []
    assert peer.receive(pack([6, 1, 10])) == [Credited(1, 6)]
    assert sent(peer) == [[2, 1, b"held"]]
    assert peer.receive(pack([6, 1, 1])) == []  # it was not starved


def test_end_waits_for_what_is_held() -> None:
    peer = serving(window=1)
    peer.item(1, b"a")
    peer.item(1, b"b")
    peer.item(1, b"c")
    assert peer.end(1, "done")
    assert not peer.end(1, "again")
    assert sent(peer) == [[2, 1, b"a"]]
    assert peer.open_calls == 1
    assert peer.receive(pack([6, 1, 1])) == []
    assert sent(peer) == [[2, 1, b"b"]]
    assert peer.receive(pack([6, 1, 1])) == []
    assert sent(peer) == [[2, 1, b"c"], [3, 1, "done"]]
    assert peer.open_calls == 0
    assert peer.receive(pack([6, 1, 1], [5, 1, ""])) == []


def test_cancel_while_the_end_waits_sends_it_now() -> None:
    peer = serving(window=1)
    peer.item(1, b"a")
    peer.item(1, b"b")
    peer.end(1, "done")
    assert peer.receive(pack([5, 1, "enough"])) == []
    assert sent(peer) == [[2, 1, b"a"], [3, 1, "done"]]


def test_payload_larger_than_a_frame_is_cut() -> None:
    peer = serving(window=10, caps={"max_frame_bytes": 65_536})
    payload = bytes(range(256)) * 600
    assert peer.item(1, payload) <= 0
    peer.end(1)
    got = b""
    for _ in range(10):
        for frame in sent(peer):
            assert len(msgpack.packb(frame)) <= 65_536
            got += frame[2] if frame[0] == 2 else b""
        peer.receive(pack([6, 1, 65_536]))
    assert got == payload
    assert peer.open_calls == 0


def test_cancelling_one_call_leaves_the_others_alone() -> None:
    asking_side = greeted("connecting")
    ids = [asking_side.call("m") for _ in range(3)]
    asking_side.outgoing()
    asking_side.cancel(ids[1])
    assert sent(asking_side) == [[f.CANCEL, ids[1], ""]]
    assert asking_side.receive(pack([f.CALL, 2, "back", {}, 0, 0, ids[0]])) == [
        Called(2, "back", {}, 0, 0, ids[0])
    ]
    asking_side.receive(pack([f.CALL, 4, "back", {}, 0, 0, ids[1]]))
    assert sent(asking_side)[0][:3] == [f.FAIL, 4, Code.CANCELLED]
    asking_side.cancel(ids[2])
    assert sent(asking_side) == [[f.CANCEL, ids[2], ""]]

    serving_side = greeted()
    serving_side.receive(pack(*([f.CALL, n, "m", {}, 0, 0, 0] for n in (1, 3, 5))))
    assert serving_side.receive(pack([f.CANCEL, 3, "no"])) == [Cancelled(3, "no")]
    child = serving_side.call("back", parent=1)
    with pytest.raises(RpcError) as refused:
        serving_side.call("back", parent=3)
    assert refused.value.code is Code.CANCELLED
    assert serving_side.receive(pack([f.CANCEL, 5, "no"])) == [Cancelled(5, "no")]
    assert serving_side.end(1) and serving_side.end(3) and serving_side.end(5)
    assert [frame[:2] for frame in sent(serving_side)] == [
        *([f.CALL, child], [f.CANCEL, child]),
        *([f.END, 1], [f.END, 3], [f.END, 5]),
    ]
    assert (PLAIN_ASKED.state, PLAIN_ASKED.children) == (CallState.OPEN, None)
    assert (PLAIN_SERVED.state, PLAIN_SERVED.children, PLAIN_SERVED.answer) == (CallState.OPEN, None, None)


def test_items_without_a_window_are_the_applications_mistake() -> None:
    with pytest.raises(ValueError, match="no window"):
        serving(window=0).item(1, b"x")
    assert closed_by(serving(window=0), [6, 1, 1]).code is Code.PROTOCOL


def test_items_and_credit_of_the_asking_side() -> None:
    peer = asking(window=10)
    assert peer.receive(pack([2, 1, b"123"])) == [Item(1, b"123")]
    peer.consumed(1, 3)
    assert sent(peer) == []  # not half of the window yet
    assert peer.receive(pack([2, 1, b"45678901"])) == [Item(1, b"45678901")]
    peer.consumed(1, 8)
    assert sent(peer) == [[6, 1, 11]]
    assert peer.receive(pack([2, 1, b"x"], [3, 1, 5])) == [Item(1, b"x"), Ended(1, 5)]
    peer.consumed(1, 1)
    assert sent(peer) == []


def test_item_without_window_is_fatal() -> None:
    peer = asking(window=2)
    peer.receive(pack([2, 1, b"overdrawn"]))
    assert closed_by(peer, [2, 1, b"x"]).message == "ITEM without window"
    assert closed_by(asking(window=0), [2, 1, b"x"]).message == "ITEM without window"


@pytest.mark.parametrize("frame", [[2, 1, b"x"], [3, 1, None], [4, 1, 1, "", None]])
def test_nothing_comes_after_the_answer(frame: list[Any]) -> None:
    peer = asking()
    peer.receive(pack([3, 1, None]))
    assert closed_by(peer, frame).code is Code.PROTOCOL


def test_cancel_of_the_asking_side() -> None:
    peer = asking()
    peer.cancel(1, "enough")
    peer.cancel(1, "again")
    peer.cancel(99, "never")
    assert sent(peer) == [[5, 1, "enough"]]
    assert peer.receive(pack([2, 1, b"late"])) == []
    peer.consumed(1, 1000)
    assert sent(peer) == []
    assert peer.receive(pack([3, 1, "anyway"])) == [Ended(1, "anyway")]


def test_late_items_of_a_cancelled_call_still_obey_the_window() -> None:
    peer = asking(window=4)
    peer.cancel(1)
    assert peer.receive(pack([2, 1, b"12345"])) == []
    assert closed_by(peer, [2, 1, b"x"]).message == "ITEM without window"


def test_cancel_of_the_serving_side() -> None:
    peer = serving(window=1)
    peer.item(1, b"a")
    peer.item(1, b"held")
    assert peer.receive(pack([5, 1, "enough"], [5, 1, "again"], [6, 1, 50])) == [Cancelled(1, "enough")]
    assert peer.item(1, b"late") == 0
    assert peer.fail(1, Code.CANCELLED)
    assert sent(peer) == [[2, 1, b"a"], [4, 1, 25, "", None]]
    assert peer.receive(pack([5, 1, "late"], [6, 1, 50])) == []


def test_callback() -> None:
    peer = serving()
    assert peer.call("permit", {"x": 1}, parent=1) == 2
    assert sent(peer) == [[1, 2, "permit", {"x": 1}, 0, 0, 1]]
    assert peer.receive(pack([3, 2, "yes"])) == [Ended(2, "yes")]
    other = asking()
    assert other.receive(pack([1, 2, "permit", {}, 0, 0, 1])) == [Called(2, "permit", {}, 0, 0, 1)]


def test_callback_for_a_call_that_is_not_open_is_fatal() -> None:
    peer = asking()
    peer.receive(pack([3, 1, None]))
    assert closed_by(peer, [1, 2, "permit", {}, 0, 0, 1]).code is Code.PROTOCOL


def test_callback_that_crosses_a_cancel_is_refused() -> None:
    peer = asking()
    peer.cancel(1)
    peer.outgoing()
    assert peer.receive(pack([1, 2, "permit", {}, 0, 0, 1])) == []
    assert sent(peer)[0][:3] == [4, 2, Code.CANCELLED]


def test_children_never_outlive_their_parent() -> None:
    peer = serving()  # the side that called back
    child = peer.call("permit", parent=1)
    peer.outgoing()
    peer.end(1, "done")
    assert [frame[:2] for frame in sent(peer)] == [[5, child], [3, 1]]
    peer = serving()
    child = peer.call("permit", parent=1)
    peer.outgoing()
    assert peer.receive(pack([5, 1, "enough"])) == [Cancelled(1, "enough")]
    assert sent(peer) == [[5, child, "enough"]]
    with pytest.raises(RpcError) as caught:
        peer.call("permit", parent=1)
    assert caught.value.code is Code.CANCELLED
    peer = asking()  # the side that answers them, should the other forget to cancel
    peer.receive(pack([1, 2, "permit", {}, 0, 0, 1]))
    cancelled, ended = peer.receive(pack([3, 1, "done"]))
    assert (type(cancelled), cancelled.id, ended) == (Cancelled, 2, Ended(1, "done"))
    assert peer.fail(2, Code.CANCELLED)


def test_grandchildren_go_too() -> None:
    peer = asking()
    peer.receive(pack([1, 2, "permit", {}, 0, 0, 1]))
    grandchild = peer.call("why", parent=2)
    peer.outgoing()
    peer.receive(pack([5, 2, "enough"]))
    assert sent(peer) == [[5, grandchild, "enough"]]


def test_parent_that_does_not_exist() -> None:
    peer = greeted("connecting")
    with pytest.raises(RpcError) as caught:
        peer.call("m", parent=2)
    assert caught.value.code is Code.CANCELLED


def test_one_call_too_many_is_answered_busy() -> None:
    peer = greeted(limits=Limits(max_open_calls=2))
    events = peer.receive(pack(*([1, call_id, "m", {}, 0, 0, 0] for call_id in (1, 3, 5))))
    assert [event.id for event in events] == [1, 3]
    assert sent(peer)[0][:3] == [4, 5, Code.BUSY]
    peer.end(1)
    assert len(peer.receive(pack([5, 5, "late"], [1, 7, "m", {}, 0, 0, 0]))) == 1


def test_own_calls_respect_the_others_limit() -> None:
    peer = greeted("connecting", caps={"max_open_calls": 2})
    first = peer.call("m")
    peer.call("m")
    with pytest.raises(RpcError) as caught:
        peer.call("m")
    assert caught.value.code is Code.BUSY
    peer.receive(pack([3, first, None]))
    assert peer.call("m") == 5


def test_before_hello_only_small_calls() -> None:
    peer = Peer("connecting", "test/1")
    assert peer.call("m", {"x": "x" * 60_000}) == 1
    with pytest.raises(RpcError) as caught:
        peer.call("m", {"x": "x" * 70_000})
    assert caught.value.code is Code.TOO_LARGE
    peer.receive(pack(HELLO))
    assert peer.call("m", {"x": "x" * 70_000}) == 3


def test_going_away() -> None:
    peer = serving()
    peer.goaway(Code.DRAINING, "restarting")
    peer.goaway(Code.DRAINING, "again")
    assert sent(peer) == [[7, 1, Code.DRAINING, "restarting"]]
    assert not peer.usable
    assert peer.receive(pack([1, 3, "m", {}, 0, 0, 0], [5, 1, ""])) == [Cancelled(1, "")]
    assert peer.receive(pack([5, 3, "its CALL crossed the GOAWAY, too"])) == []
    assert peer.open_calls == 1
    with pytest.raises(RpcError) as caught:
        peer.call("m")
    assert caught.value.code is Code.DRAINING
    peer.receive(pack([9]))
    assert sent(peer)[-1][:3] == [7, 1, Code.PROTOCOL]  # 3 was not started, whatever else happened


def test_callbacks_go_on_while_going_away() -> None:
    peer = serving()
    peer.goaway()
    child = peer.call("permit", parent=1)
    assert peer.receive(pack([3, child, 1])) == [Ended(child, 1)]


def test_callbacks_go_on_when_told_to_go_away() -> None:
    peer = serving()
    early = peer.call("permit", parent=1)
    assert peer.receive(pack([7, 0, Code.DRAINING, ""])) == [GoingAway(0, Code.DRAINING, "")]
    late = peer.call("permit", parent=1)
    assert peer.receive(pack([3, early, 1], [3, late, 2])) == [Ended(early, 1), Ended(late, 2)]


def test_told_to_go_away() -> None:
    peer = greeted("connecting")
    assert [peer.call("m") for _ in range(3)] == [1, 3, 5]
    going, first, second = peer.receive(pack([7, 1, Code.DRAINING, "restarting"]))
    assert going == GoingAway(1, Code.DRAINING, "restarting")
    assert [(event.id, event.code, event.message) for event in (first, second)] == [
        (3, Code.DRAINING, "restarting"),
        (5, Code.DRAINING, "restarting"),
    ]
    with pytest.raises(RpcError, match="restarting"):
        peer.call("m")
    assert not peer.usable and not peer.closed
    assert peer.receive(pack([3, 1, "done"])) == [Ended(1, "done")]
    assert peer.open_calls == 0


def test_losing_the_connection() -> None:
    peer = greeted("connecting")
    peer.call("m")
    peer.call("m", window=1)
    peer.receive(pack([1, 2, "permit", {}, 0, 0, 1], [1, 4, "permit", {}, 0, 0, 1], [5, 4, "enough"]))
    events = peer.lost("gone")
    assert [(type(event), event.id) for event in events] == [(CallFailed, 1), (CallFailed, 3), (Cancelled, 2)]
    assert all(event.code is Code.LOST and event.message == "gone" for event in events[:2])
    assert peer.lost() == [] and peer.outgoing() == [] and peer.open_calls == 0
    assert not peer.end(2) and not peer.fail(4, Code.CANCELLED) and peer.item(2, b"x") == 0
    with pytest.raises(RpcError) as caught:
        peer.call("m")
    assert caught.value.code is Code.LOST
    assert peer.receive(pack([3, 1, None])) == []


def test_after_broken_protocol_lost_fails_what_was_open() -> None:
    peer = asking()
    closed_by(peer, [9])
    (event,) = peer.lost()
    assert (event.id, event.code, event.message) == (1, Code.LOST, "unknown kind of frame")


frame_like = st.lists(
    st.integers(-2, 10)
    | st.sampled_from([True, None, "m", b"x", b"", {}, [], 1.5, f.MAX_U32, 2**40, {"a": 1}])
    | st.text(max_size=3)
    | st.binary(max_size=3),
    min_size=1,
    max_size=8,
)


@settings(max_examples=300)
@given(
    st.lists(frame_like | st.binary(max_size=30), max_size=12), st.sampled_from(["connecting", "accepting"])
)
def test_anything_at_all_is_survived(junk: list[Any], role: Any) -> None:
    peer = greeted(role)
    peer.call("m", window=5)
    for piece in junk:
        events = peer.receive(piece if isinstance(piece, bytes) else pack(piece))
        for event in events:
            if isinstance(event, Called):
                peer.item(event.id, b"12") if event.window else None
                peer.end(event.id, None)
        if peer.closed:
            assert isinstance(events[-1], Closed)
            break
        assert not any(isinstance(event, Closed) for event in events)
    sent(peer)
    peer.lost()
    assert peer.open_calls == 0


# --- what the other side would refuse ---


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"messages": [0] * 16_385}, Code.BAD_PARAMS),
        ({"tools": [{"enum": {1: 2}}]}, Code.BAD_PARAMS),
        ({"rows": [[0] * 16_000] * 63}, Code.TOO_LARGE),
    ],
)
def test_a_call_that_the_other_side_would_refuse_does_not_cost_the_connection(
    params: dict[str, Any], code: Code
) -> None:
    peer = greeted("connecting")
    with pytest.raises(RpcError, match="cannot be sent") as caught:
        peer.call("m", params)
    assert caught.value.code is code
    assert sent(peer) == []
    assert peer.call("m", {"messages": [0] * 16_384}) == 1


def test_a_result_that_the_other_side_would_refuse_fails_its_own_call_alone() -> None:
    peer = serving()
    assert peer.end(1, [0] * ((1 << 20) + 1))
    [[kind, call_id, code, text, _]] = sent(peer)
    assert (kind, call_id, code) == (f.FAIL, 1, Code.INTERNAL)
    assert "cannot be sent" in text


def test_a_long_array_in_a_result_is_accepted() -> None:
    server, client = serving(), asking()
    result = {"input": {"rows": list(range(20_000))}}
    assert server.end(1, result)
    [frame] = [event for event in client.receive(b"".join(server.outgoing())) if isinstance(event, Ended)]
    assert frame.result == result


def test_an_unfinished_frame_is_given_back_with_the_connection() -> None:
    peer = greeted()
    gc.disable()
    tracemalloc.start()
    try:
        peer.receive(b"\x97\x01\x01\xa1m\x81\xa1x\xc6\x01\x00\x00\x00")
        for _ in range(128):
            peer.receive(b"x" * 65_536)
        assert tracemalloc.get_traced_memory()[0] > 8 << 20
        peer.lost()
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
        assert peer.receive(b"x") == []
    finally:
        tracemalloc.stop()
        gc.enable()
