"""The life of one CLI process, as a table: `(state, event) -> (next state, actions)`.

Theory of operation. A worker is spawned and warmed without knowing whom it will serve (SPAWNING, WARMING), may
practise a turn that goes nowhere (REHEARSING), waits in the pool (READY), is leased (HELD), answers one turn at a
time (BUSY), may wait for a client's tool results (PARKED) or for an interrupted turn to end (CANCELLING), forgets
what it heard (RESETTING), and ends either in peace (DRAINING: stdin closed, the CLI finishes and exits) or by force
(KILLING: TERM, then KILL, to the whole process tree). DEAD is final.

The table is pure: it knows no clock, process or pool. The worker feeds it events and carries out the actions in
order. Every state but DEAD has one clock, named in `CLOCK`; when it runs out the worker feeds `TIMEOUT`.
Membership follows state: a worker is on a shelf exactly while READY or PARKED, through OFFER, SHELVE and WITHDRAW.

An action may feed an event to the same process: OFFER and SHELVE do, when somebody waits for it or nobody wants it.
That event is stepped at once, from the state that the first step has led to, and its actions are carried out before
`feed` returns. So such an action stands last in its row: nothing of the step before may be left to do. A test of the
table sees to it.

Not here: clocks, processes, and who waits. A few `if`s at the places where things happen would be shorter, and would
leave out the pair that nobody thought of; that one hands a worker to two callers or kills it under one.

Every pair is decided. A pair that is neither in `TABLE` nor in `IGNORED` is a bug of ours and raises
`IllegalTransition`; the worker then logs it and kills the process, because a process in an unknown state must
not answer anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """Where a worker is in its life."""

    SPAWNING = "spawning"
    WARMING = "warming"
    REHEARSING = "rehearsing"
    READY = "ready"
    HELD = "held"
    BUSY = "busy"
    PARKED = "parked"
    CANCELLING = "cancelling"
    RESETTING = "resetting"
    DRAINING = "draining"
    KILLING = "killing"
    DEAD = "dead"


#: Each state is in one of these groups, and no other module makes groups of its own.
STARTING = frozenset({State.SPAWNING, State.WARMING, State.REHEARSING})
IDLE = frozenset({State.READY, State.RESETTING})  # the pool has it
RUNNING = frozenset({State.HELD, State.BUSY, State.PARKED, State.CANCELLING})  # a lease or a session has it
ENDING = frozenset({State.DRAINING, State.KILLING, State.DEAD})
#: Of those that end: whatever the process still says is moot. While it drains, an open turn can still be answered.
UNHEARD = frozenset({State.KILLING, State.DEAD})


class Event(Enum):
    """What can happen to a worker."""

    SPAWNED = auto()
    SPAWN_FAILED = auto()
    WARMED = auto()  # the control request that warms it up was answered
    REHEARSE = auto()  # it was answered, and nobody waits: there is time for a rehearsal
    LEASE = auto()
    TURN = auto()
    RESULT = auto()  # the CLI's result line: the end of a turn
    PARK = auto()  # every block of the turn so far waits for the client's tool results
    TOOL_RESULTS = auto()
    CANCEL = auto()
    RELEASE = auto()  # given back, clean
    RELEASE_RESET = auto()  # given back, and must forget first
    RELEASE_RETIRE = auto()  # given back for the last time
    REKEY = auto()  # idle, and wanted by another tenant: must forget first
    RESET_OK = auto()
    RSS_SOFT = auto()
    RSS_HARD = auto()
    BAD_FRAME = auto()  # stdout that is not the protocol, or a line over the limit
    EOF = auto()  # stdout closed while the process lives
    STOP = auto()
    TIMEOUT = auto()
    EXITED = auto()


class Action(Enum):
    """What the worker must do, in the order given."""

    WARM_UP = auto()
    REHEARSE = auto()
    OFFER = auto()
    GUARD = auto()  # whatever it still does, it must not ask the API
    SHELVE = auto()  # keep it for the client's next request, and for nobody else
    WITHDRAW = auto()
    WRITE_TURN = auto()
    WRITE_RESULTS = auto()
    INTERRUPT = auto()
    RESET = auto()
    CLOSE_STDIN = auto()
    TERMINATE = auto()
    KILL = auto()
    FAIL_STUCK = auto()
    FAIL_OOM = auto()
    FAIL_BAD_OUTPUT = auto()
    FAIL_DRAINING = auto()
    FAIL_CRASHED = auto()
    END = auto()  # close the pipes, sweep the tree, tell the pool


class IllegalTransition(Exception):
    """An event that cannot happen in this state, so either the table or its user is wrong."""


S, E, A = State, Event, Action
Step = tuple[State, tuple[Action, ...]]

#: The setting that bounds each state's stay. BUSY has two more clocks, for the first output and for silence.
CLOCK: Mapping[State, str] = {
    S.SPAWNING: "spawn_timeout_s",
    S.WARMING: "warm_timeout_s",
    S.REHEARSING: "rehearsal_s",
    S.READY: "max_idle_s",
    S.HELD: "hold_timeout_s",
    S.BUSY: "turn_s",
    S.PARKED: "parked_tool_s",
    S.CANCELLING: "interrupt_grace_s",
    S.RESETTING: "reset_timeout_s",
    S.DRAINING: "drain_grace_s",
    S.KILLING: "kill_grace_s",
}

DRAIN: Step = (S.DRAINING, (A.CLOSE_STDIN,))
TERM: Step = (S.KILLING, (A.TERMINATE,))
# else it would tell the model that its calls were stopped
GUARDED: Step = (S.DRAINING, (A.GUARD, A.CLOSE_STDIN))
ENDED: Step = (S.DEAD, (A.END,))


def _failing(step: Step, action: Action) -> Step:
    """Returns the same step, but the open turn is answered first."""
    return step[0], (action, *step[1])


def _leaving(step: Step) -> Step:
    """Returns the same step, but the worker leaves the shelf first. Its client has its answer, so no turn is open."""
    return step[0], (A.WITHDRAW, *step[1])


TABLE: Mapping[tuple[State, Event], Step] = {
    (S.SPAWNING, E.SPAWNED): (S.WARMING, (A.WARM_UP,)),
    (S.SPAWNING, E.SPAWN_FAILED): ENDED,
    (S.SPAWNING, E.STOP): TERM,
    (S.SPAWNING, E.TIMEOUT): TERM,
    (S.SPAWNING, E.EXITED): ENDED,
    (S.WARMING, E.WARMED): (S.READY, (A.OFFER,)),
    (S.WARMING, E.REHEARSE): (S.REHEARSING, (A.REHEARSE,)),
    (S.WARMING, E.EOF): DRAIN,
    (S.WARMING, E.STOP): DRAIN,
    (S.WARMING, E.TIMEOUT): TERM,
    (S.WARMING, E.BAD_FRAME): TERM,
    (S.WARMING, E.RSS_HARD): TERM,
    (S.WARMING, E.EXITED): ENDED,
    (S.REHEARSING, E.RESULT): (S.RESETTING, (A.RESET,)),
    (S.REHEARSING, E.EOF): DRAIN,
    (S.REHEARSING, E.STOP): DRAIN,
    (S.REHEARSING, E.TIMEOUT): TERM,
    (S.REHEARSING, E.BAD_FRAME): TERM,
    (S.REHEARSING, E.RSS_HARD): TERM,
    (S.REHEARSING, E.EXITED): ENDED,
    (S.READY, E.LEASE): (S.HELD, (A.WITHDRAW,)),
    (S.READY, E.REKEY): (S.RESETTING, (A.WITHDRAW, A.RESET)),
    (S.READY, E.TIMEOUT): (S.DRAINING, (A.WITHDRAW, A.CLOSE_STDIN)),
    (S.READY, E.STOP): (S.DRAINING, (A.WITHDRAW, A.CLOSE_STDIN)),
    (S.READY, E.EOF): (S.DRAINING, (A.WITHDRAW, A.CLOSE_STDIN)),
    (S.READY, E.RSS_SOFT): (S.DRAINING, (A.WITHDRAW, A.CLOSE_STDIN)),
    (S.READY, E.BAD_FRAME): (S.KILLING, (A.WITHDRAW, A.TERMINATE)),
    (S.READY, E.RSS_HARD): (S.KILLING, (A.WITHDRAW, A.TERMINATE)),
    (S.READY, E.EXITED): (S.DEAD, (A.WITHDRAW, A.END)),
    (S.HELD, E.TURN): (S.BUSY, (A.WRITE_TURN,)),
    (S.HELD, E.RELEASE): (S.READY, (A.OFFER,)),
    (S.HELD, E.RELEASE_RESET): (S.RESETTING, (A.RESET,)),
    (S.HELD, E.RELEASE_RETIRE): DRAIN,
    (S.HELD, E.TIMEOUT): DRAIN,
    (S.HELD, E.STOP): DRAIN,
    (S.HELD, E.EOF): DRAIN,
    (S.HELD, E.BAD_FRAME): TERM,
    (S.HELD, E.RSS_HARD): TERM,
    (S.HELD, E.EXITED): ENDED,
    (S.BUSY, E.RESULT): (S.HELD, ()),
    (S.BUSY, E.PARK): (S.PARKED, (A.SHELVE,)),
    (S.BUSY, E.CANCEL): (S.CANCELLING, (A.INTERRUPT,)),
    (S.BUSY, E.STOP): (S.DRAINING, (A.FAIL_DRAINING, A.INTERRUPT, A.CLOSE_STDIN)),
    (S.BUSY, E.RELEASE_RETIRE): (S.DRAINING, (A.INTERRUPT, A.CLOSE_STDIN)),
    (S.BUSY, E.EOF): DRAIN,
    (S.BUSY, E.TIMEOUT): _failing(TERM, A.FAIL_STUCK),
    (S.BUSY, E.RSS_HARD): _failing(TERM, A.FAIL_OOM),
    (S.BUSY, E.BAD_FRAME): _failing(TERM, A.FAIL_BAD_OUTPUT),
    (S.BUSY, E.EXITED): _failing(ENDED, A.FAIL_CRASHED),
    (S.PARKED, E.TOOL_RESULTS): _leaving((S.BUSY, (A.WRITE_RESULTS,))),
    (S.PARKED, E.CANCEL): _leaving((S.CANCELLING, (A.INTERRUPT,))),
    (S.PARKED, E.RESULT): _leaving(GUARDED),  # it went on without them, so the results would come too late
    (S.PARKED, E.STOP): _leaving(GUARDED),
    (S.PARKED, E.TIMEOUT): _leaving(GUARDED),
    (S.PARKED, E.EOF): _leaving(GUARDED),
    (S.PARKED, E.RSS_HARD): _leaving(TERM),
    (S.PARKED, E.BAD_FRAME): _leaving(TERM),
    (S.PARKED, E.EXITED): _leaving(ENDED),
    (S.CANCELLING, E.RESULT): (S.HELD, ()),
    (S.CANCELLING, E.RELEASE_RETIRE): DRAIN,
    (S.CANCELLING, E.STOP): _failing(DRAIN, A.FAIL_DRAINING),
    (S.CANCELLING, E.EOF): DRAIN,
    (S.CANCELLING, E.TIMEOUT): _failing(TERM, A.FAIL_STUCK),
    (S.CANCELLING, E.RSS_HARD): _failing(TERM, A.FAIL_OOM),
    (S.CANCELLING, E.BAD_FRAME): _failing(TERM, A.FAIL_BAD_OUTPUT),
    (S.CANCELLING, E.EXITED): _failing(ENDED, A.FAIL_CRASHED),
    (S.RESETTING, E.RESET_OK): (S.READY, (A.OFFER,)),
    (S.RESETTING, E.STOP): TERM,
    (S.RESETTING, E.EOF): TERM,
    (S.RESETTING, E.TIMEOUT): TERM,
    (S.RESETTING, E.RSS_HARD): TERM,
    (S.RESETTING, E.BAD_FRAME): TERM,
    (S.RESETTING, E.RESULT): TERM,  # a result without the confirmation that precedes it: not reset
    (S.RESETTING, E.EXITED): ENDED,
    #
    # A turn can still be open here: when the CLI closed stdout, or its holder left, before the result.
    (S.DRAINING, E.TIMEOUT): _failing(TERM, A.FAIL_STUCK),
    (S.DRAINING, E.BAD_FRAME): _failing(TERM, A.FAIL_BAD_OUTPUT),
    (S.DRAINING, E.RSS_HARD): _failing(TERM, A.FAIL_OOM),
    (S.DRAINING, E.EXITED): _failing(ENDED, A.FAIL_CRASHED),
    (S.KILLING, E.TIMEOUT): (S.KILLING, (A.KILL,)),
    (S.KILLING, E.SPAWNED): TERM,  # stopped while the spawn was under way
    (S.KILLING, E.SPAWN_FAILED): ENDED,
    (S.KILLING, E.EXITED): ENDED,
}

#: Actions that may feed an event to the same process (see above).
FEEDING = frozenset({A.OFFER, A.SHELVE})

_GIVEN_BACK = (E.RELEASE, E.RELEASE_RESET, E.RELEASE_RETIRE)
_SAID_TOO_LATE = (
    *_GIVEN_BACK,
    *(E.STOP, E.EOF, E.CANCEL, E.RESULT, E.WARMED, E.REHEARSE, E.RESET_OK, E.RSS_SOFT, E.PARK),
)

#: Late, duplicate or remembered elsewhere: nothing happens. A soft memory limit is noted by the worker and acted
#: on when it is released; a cancel may cross the result; whatever a process still says while it ends is moot.
IGNORED: frozenset[tuple[State, Event]] = frozenset(
    {(state, E.RSS_SOFT) for state in set(S) - {S.READY, S.DRAINING, S.KILLING, S.DEAD}}
    | {(state, E.CANCEL) for state in (S.READY, S.HELD, S.CANCELLING, S.RESETTING)}
    | {(S.DRAINING, event) for event in _SAID_TOO_LATE}
    | {(S.KILLING, event) for event in (*_SAID_TOO_LATE, E.RSS_HARD, E.BAD_FRAME)}
    | {(S.DEAD, event) for event in (*_SAID_TOO_LATE, E.TIMEOUT, E.RSS_HARD, E.BAD_FRAME, E.EXITED)}
)


def step(state: State, event: Event) -> Step:
    """Returns what follows from `event` in `state`.

    Raises:
        IllegalTransition: the pair cannot occur.
    """
    found = TABLE.get((state, event))
    if found is not None:
        return found
    if (state, event) in IGNORED:
        return state, ()
    raise IllegalTransition(f"{event.name} in {state.name}")
