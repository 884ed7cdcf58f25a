import ast
from itertools import product
from pathlib import Path

import pytest

import ccd_daemon
from ccd_daemon.worker.actions import DO
from ccd_daemon.worker.lifecycle import (
    CLOCK,
    ENDING,
    FEEDING,
    IDLE,
    IGNORED,
    RUNNING,
    STARTING,
    TABLE,
    UNHEARD,
    Action,
    Event,
    IllegalTransition,
    State,
    step,
)

#: Pairs that cannot occur. Everything else must be decided by the table or ignored on purpose.
ILLEGAL = {
    *product(set(State) - {State.SPAWNING, State.KILLING}, (Event.SPAWNED, Event.SPAWN_FAILED)),
    *product(set(State) - {State.READY}, (Event.LEASE, Event.REKEY)),
    *product(set(State) - {State.HELD}, (Event.TURN,)),
    *product(set(State) - {State.PARKED}, (Event.TOOL_RESULTS,)),
    *product(set(State) - {State.WARMING, *ENDING}, (Event.WARMED, Event.REHEARSE)),
    *product(set(State) - {State.RESETTING, *ENDING}, (Event.RESET_OK,)),
    *product(set(State) - {State.BUSY, State.DRAINING, State.KILLING, State.DEAD}, (Event.PARK,)),
    *product(
        {State.SPAWNING, State.WARMING, State.REHEARSING, State.READY, State.RESETTING},
        (Event.RELEASE, Event.RELEASE_RESET, Event.RELEASE_RETIRE),
    ),
    *product({State.BUSY, State.PARKED, State.CANCELLING}, (Event.RELEASE, Event.RELEASE_RESET)),
    (State.PARKED, Event.RELEASE_RETIRE),
    *product({State.SPAWNING, State.WARMING, State.READY, State.HELD}, (Event.RESULT,)),
    *product({State.SPAWNING, State.WARMING, State.REHEARSING}, (Event.CANCEL,)),
    *product({State.SPAWNING}, (Event.EOF, Event.BAD_FRAME, Event.RSS_HARD)),
}


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)), ids=lambda value: value.name)
def test_every_pair_is_decided_exactly_once(state: State, event: Event) -> None:
    decided = [(state, event) in where for where in (TABLE, IGNORED, ILLEGAL)]
    assert decided.count(True) == 1
    if (state, event) in ILLEGAL:
        with pytest.raises(IllegalTransition):
            step(state, event)
    else:
        next_state, actions = step(state, event)
        assert isinstance(next_state, State)
        assert all(isinstance(action, Action) for action in actions)


def test_shelves_change_only_by_offer_shelve_and_withdraw() -> None:
    for (state, _), (next_state, actions) in TABLE.items():
        assert (Action.OFFER in actions) == (next_state is State.READY and state is not State.READY)
        assert (Action.SHELVE in actions) == (next_state is State.PARKED)
        shelved = (State.READY, State.PARKED)
        assert (Action.WITHDRAW in actions) == (state in shelved and next_state is not state)


def test_an_open_turn_is_answered_before_its_process_is_ended_by_force() -> None:
    fails = {action for action in Action if action.name.startswith("FAIL")}
    for (state, event), (next_state, actions) in TABLE.items():
        if state in (State.BUSY, State.CANCELLING) and next_state in (
            State.KILLING,
            State.DEAD,
        ):
            assert actions[0] in fails, (state, event)


def test_dead_is_final_and_every_other_state_has_a_clock_and_a_way_out() -> None:
    assert set(CLOCK) == set(State) - {State.DEAD}
    for state in CLOCK:
        assert (state, Event.TIMEOUT) in TABLE
    assert not any(state is State.DEAD for state, _ in TABLE)
    for state in set(State) - {State.DEAD}:
        assert _can_reach_dead(state)


def _can_reach_dead(start: State) -> bool:
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        nexts = {following for (state, _), (following, _) in TABLE.items() if state is here}
        if State.DEAD in nexts:
            return True
        todo += nexts - seen
        seen |= nexts
    return False


def test_every_action_is_used_and_every_one_is_carried_out() -> None:
    assert {action for _, actions in TABLE.values() for action in actions} == set(Action)
    assert set(DO) == set(Action)


def test_every_event_is_fed_by_somebody() -> None:
    """A row for an event that nobody feeds is a promise that nobody keeps."""
    rooms = Path(ccd_daemon.__file__).parent
    others = [file for file in rooms.rglob("*.py") if file.name != "lifecycle.py"]
    fed = {
        node.attr
        for file in others
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Event"
    }
    assert fed >= {event.name for event in Event}


def test_every_state_is_in_one_group() -> None:
    groups = (STARTING, IDLE, RUNNING, ENDING)
    assert all(sum(state in group for group in groups) == 1 for state in State)
    assert UNHEARD < ENDING


def test_an_action_that_may_feed_an_event_is_the_last_of_its_row() -> None:
    for actions in (actions for _, actions in TABLE.values()):
        assert not FEEDING.intersection(actions[:-1])
