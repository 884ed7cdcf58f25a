"""The tables of call states decide every pair."""

from __future__ import annotations

from ccd_protocol.calls import ASKED, SERVED, Act, CallEvent, CallState, ServedCall


def test_served_table_is_complete() -> None:
    events = set(CallEvent) - {CallEvent.CHILD}
    assert set(SERVED) == {(state, event) for state in CallState for event in events}


def test_asked_table_is_complete() -> None:
    states = set(CallState) - {CallState.FLUSHING}
    assert set(ASKED) == {(state, event) for state in states for event in CallEvent}


def test_a_state_is_never_left_backwards() -> None:
    for table in (ASKED, SERVED):
        for (state, _), (after, _) in table.items():
            assert after.value >= state.value


def test_a_call_is_answered_once_whatever_happens() -> None:
    for (state, event), (after, act) in SERVED.items():
        if event is CallEvent.ANSWER:
            assert after is CallState.FLUSHING
            assert (act is Act.DROP) == (state is CallState.FLUSHING)


def test_cancelled_calls_send_and_deliver_no_items() -> None:
    assert SERVED[CallState.CANCELLED, CallEvent.ITEM][1] is Act.DROP
    assert ASKED[CallState.CANCELLED, CallEvent.ITEM][1] is Act.DROP


def test_held_payloads_keep_their_order() -> None:
    call = ServedCall(10, 0, b"")
    call.hold([b"a"])
    call.hold([b"b", b"c"])
    assert call.held is not None
    assert list(call.held) == [b"a", b"b", b"c"]
