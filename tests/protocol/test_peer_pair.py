"""Two peers joined in memory, under a scheduler that hypothesis drives.

The wire keeps order and delivers any number of bytes at a time. A model on the side remembers what the two
applications did; after every step the invariants of the protocol are compared with it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ccd_protocol.errors import Code, RpcError
from ccd_protocol.frames import MIN_FRAME_BYTES, Limits
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

LIMITS = Limits(max_frame_bytes=MIN_FRAME_BYTES, max_open_calls=4)
SIDES = st.sampled_from([0, 1])
OVER = (Ended, CallFailed)


class Asked:
    """What a test knows of a call, seen from the side that opened it."""

    def __init__(self, window: int, parent: int) -> None:
        self.window = window
        self.parent = parent
        self.cancelled = False
        self.received = bytearray()
        self.consumed = 0
        self.outcome: Any = None


class Served:
    """What a test knows of a call, seen from the side that answers it."""

    def __init__(self, called: Called) -> None:
        self.called = called
        self.sent = bytearray()
        self.cancelled = False
        self.answer: Any = None


class Side:
    def __init__(self, role: Any) -> None:
        self.peer = Peer(role, f"{role}/1", limits=LIMITS)
        self.inbox = bytearray()  # bytes under way to this side
        self.asked: dict[int, Asked] = {}
        self.served: dict[int, Served] = {}
        self.leaving = False
        self.told_to_leave = False

    def open_asked(self) -> list[int]:
        return [call_id for call_id, call in self.asked.items() if call.outcome is None]

    def open_served(self) -> list[int]:
        return [call_id for call_id, call in self.served.items() if call.answer is None]


class Pair(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.sides = [Side("connecting"), Side("accepting")]
        self.counter = 0

    def flush(self) -> None:
        for index in (0, 1):
            for buffer in self.sides[index].peer.outgoing():
                self.sides[1 - index].inbox += buffer

    def deliver(self, index: int, count: int) -> None:
        self.flush()
        side = self.sides[index]
        data, side.inbox = bytes(side.inbox[:count]), side.inbox[count:]
        for event in side.peer.receive(data):
            self.on(side, event)
        self.flush()

    def on(self, side: Side, event: Any) -> None:
        assert not isinstance(event, Closed), event
        if isinstance(event, Called):
            assert event.id not in side.served
            assert len(side.peer._served) <= LIMITS.max_open_calls
            side.served[event.id] = Served(event)
        elif isinstance(event, Cancelled):
            served = side.served[event.id]
            assert not served.cancelled and served.answer is None
            served.cancelled = True
        elif isinstance(event, Item):
            asked = side.asked[event.id]
            assert asked.outcome is None and not asked.cancelled
            asked.received += event.payload
        elif isinstance(event, OVER):
            asked = side.asked[event.id]
            assert asked.outcome is None
            asked.outcome = event
            for served in side.served.values():  # no child outlives its parent
                assert served.called.parent != event.id or served.answer is not None or served.cancelled
        elif isinstance(event, Credited):
            assert event.window > 0 and side.served[event.id].answer is None
        elif isinstance(event, GoingAway):
            side.told_to_leave = True
        else:
            assert isinstance(event, Greeted)

    @rule(index=SIDES, count=st.integers(1, 400) | st.just(1 << 20))
    def transfer(self, index: int, count: int) -> None:
        self.deliver(index, count)

    @rule(index=SIDES, window=st.sampled_from([0, 1, 10, 1000]), data=st.data())
    def call(self, index: int, window: int, data: st.DataObject) -> None:
        side = self.sides[index]
        parents = [call_id for call_id in side.open_served() if not side.served[call_id].cancelled]
        parent = data.draw(st.sampled_from([0, *parents]))
        self.counter += 1
        try:
            call_id = side.peer.call("m", {"n": self.counter}, window=window, parent=parent)
        except RpcError as error:
            full = len(side.open_asked()) >= LIMITS.max_open_calls
            leaving = not parent and (side.told_to_leave or side.leaving)
            assert (error.code is Code.BUSY and full) or (error.code is Code.DRAINING and leaving)
            return
        assert call_id % 2 == 1 - index
        assert call_id > max(side.asked, default=0)
        side.asked[call_id] = Asked(window, parent)

    @rule(index=SIDES, size=st.integers(0, 30) | st.just(MIN_FRAME_BYTES * 2), data=st.data())
    def item(self, index: int, size: int, data: st.DataObject) -> None:
        side = self.sides[index]
        able = [call_id for call_id in side.open_served() if side.served[call_id].called.window]
        if not able:
            return
        served = side.served[data.draw(st.sampled_from(able))]
        self.counter += 1
        payload = bytes([self.counter % 256]) * size
        side.peer.item(served.called.id, payload)
        if not served.cancelled:
            served.sent += payload

    @rule(index=SIDES, failing=st.booleans(), data=st.data())
    def answer(self, index: int, failing: bool, data: st.DataObject) -> None:
        side = self.sides[index]
        if not side.open_served():
            return
        call_id = data.draw(st.sampled_from(side.open_served()))
        self.counter += 1
        served = side.served[call_id]
        served.answer = (Code.UPSTREAM_ERROR, str(self.counter)) if failing else self.counter
        if failing:
            assert side.peer.fail(call_id, *served.answer)
        else:
            assert side.peer.end(call_id, served.answer)
        assert not side.peer.end(call_id, "twice")

    @rule(index=SIDES, data=st.data())
    def cancel(self, index: int, data: st.DataObject) -> None:
        side = self.sides[index]
        if side.asked:
            call_id = data.draw(st.sampled_from(sorted(side.asked)))
            side.peer.cancel(call_id, "enough")
            side.asked[call_id].cancelled = True

    @rule(index=SIDES, data=st.data())
    def consume(self, index: int, data: st.DataObject) -> None:
        side = self.sides[index]
        able = [call_id for call_id, call in side.asked.items() if len(call.received) > call.consumed]
        if able:
            call_id = data.draw(st.sampled_from(able))
            asked = side.asked[call_id]
            count = data.draw(st.integers(1, len(asked.received) - asked.consumed))
            asked.consumed += count
            side.peer.consumed(call_id, count)

    @precondition(lambda self: self.counter > 20)
    @rule(index=SIDES)
    def goaway(self, index: int) -> None:
        self.sides[index].peer.goaway(Code.DRAINING, "restarting")
        self.sides[index].leaving = True

    @invariant()
    def window_is_overdrawn_by_one_item_at_most(self) -> None:
        for side in getattr(self, "sides", []):
            for call_id, asked in side.asked.items():
                if asked.window:
                    ahead = len(asked.received) - asked.consumed
                    assert ahead <= asked.window + MIN_FRAME_BYTES, call_id
                else:
                    assert not asked.received

    @invariant()
    def answers_are_true(self) -> None:
        for index, side in enumerate(getattr(self, "sides", [])):
            for call_id, asked in side.asked.items():
                served = self.sides[1 - index].served.get(call_id)
                parent = side.served.get(asked.parent)
                void = parent is not None and (parent.cancelled or parent.answer is not None)
                self.check_outcome(asked, served, asked.cancelled or void)
                if served is not None:
                    assert served.sent.startswith(asked.received)
                else:
                    assert not asked.received

    def check_outcome(self, asked: Asked, served: Served | None, cancelled: bool) -> None:
        outcome = asked.outcome
        if served is None:
            # refused without the application: too many, gone away, or its parent was cancelled
            refusals = (Code.BUSY, Code.DRAINING, Code.CANCELLED)
            assert outcome is None or (isinstance(outcome, CallFailed) and outcome.code in refusals)
        elif isinstance(outcome, Ended):
            assert outcome.result == served.answer
            assert cancelled or asked.received == served.sent
        elif isinstance(outcome, CallFailed):
            assert (outcome.code, outcome.message) == served.answer

    def teardown(self) -> None:
        """Let both applications finish: everything is answered, everything arrives, nothing is left."""
        if not hasattr(self, "sides"):
            return
        for _ in range(200):
            if not self.finish_some():
                break
        for side in self.sides:
            assert not side.inbox
            assert side.open_asked() == [] and side.peer.open_calls == 0, side.asked
        self.answers_are_true()

    def finish_some(self) -> bool:
        busy = False
        for index, side in enumerate(self.sides):
            self.flush()
            if side.inbox:
                busy = True
                self.deliver(index, 1 << 20)
            for call_id in side.open_served():
                busy = True
                side.served[call_id].answer = "finished"
                side.peer.end(call_id, "finished")
            for call_id, asked in side.asked.items():
                if len(asked.received) > asked.consumed:
                    busy = True
                    side.peer.consumed(call_id, len(asked.received) - asked.consumed)
                    asked.consumed = len(asked.received)
        return busy


class LossyPair(Pair):
    """The same, and at any moment the connection may be lost."""

    @precondition(lambda self: self.counter > 5)
    @rule(kept=st.integers(0, 200))
    def lose(self, kept: int) -> None:
        for index in (0, 1):
            self.deliver(index, kept)
        for side in self.sides:
            failing, cancelling = side.open_asked(), side.open_served()
            cancelling = [call_id for call_id in cancelling if not side.served[call_id].cancelled]
            events = side.peer.lost("lost")
            assert [event.id for event in events if isinstance(event, CallFailed)] == failing
            assert [event.id for event in events if isinstance(event, Cancelled)] == cancelling
            assert side.peer.open_calls == 0 and side.peer.outgoing() == []
            for call_id in cancelling:
                assert not side.peer.end(call_id)
        self.start()


TestPair = Pair.TestCase
TestPair.settings = settings(
    stateful_step_count=60,
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking runs of this length takes minutes
)
TestLossyPair = LossyPair.TestCase
TestLossyPair.settings = TestPair.settings
