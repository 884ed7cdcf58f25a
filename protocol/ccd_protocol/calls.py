"""The life of one call, as data: what each side of it may do in which state.

A call is seen from two sides. The side that opened it has *asked*; the other one *serves* it. Each table
decides every pair of state and event. Done is no state: a call that is done is forgotten, and its id is known
to be used only because ids increase.

Most calls are answered once and are over before anything else happens to them. They all share one record per
side, `PLAIN_ASKED` and `PLAIN_SERVED`; whoever is about to change a record first gives the call its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Final


class CallState(Enum):
    """Where a call is, on either side."""

    __hash__ = object.__hash__  # members are compared by identity; Enum's own hash is slow Python code

    OPEN = auto()
    CANCELLED = auto()  # CANCEL was sent or received, the answer is still due
    FLUSHING = auto()  # served only: answered by the application, items still wait for credit


class CallEvent(Enum):
    """What can happen to a call."""

    __hash__ = object.__hash__

    ITEM = auto()
    ANSWER = auto()  # END or FAIL
    CANCEL = auto()
    CREDIT = auto()  # asked: the application consumed bytes. served: the other side said so
    CHILD = auto()  # asked only: the other side calls back on behalf of this call


class Act(Enum):
    """What the peer then does."""

    PASS = auto()  # send it, or hand it to the application
    DROP = auto()
    REFUSE = auto()  # answer it at once with FAIL CANCELLED
    FLUSH = auto()  # send held items as credit allows, then the answer
    SKIP = auto()  # forget held items, send the answer now


_O, _C, _F = CallState.OPEN, CallState.CANCELLED, CallState.FLUSHING

# The state after an answer does not matter: an answered call is forgotten.
ASKED: Final[Mapping[tuple[CallState, CallEvent], tuple[CallState, Act]]] = {
    (_O, CallEvent.ITEM): (_O, Act.PASS),
    (_O, CallEvent.ANSWER): (_C, Act.PASS),
    (_O, CallEvent.CANCEL): (_C, Act.PASS),
    (_O, CallEvent.CREDIT): (_O, Act.PASS),
    (_O, CallEvent.CHILD): (_O, Act.PASS),
    (_C, CallEvent.ITEM): (_C, Act.DROP),
    (_C, CallEvent.ANSWER): (_C, Act.PASS),
    (_C, CallEvent.CANCEL): (_C, Act.DROP),
    (_C, CallEvent.CREDIT): (_C, Act.DROP),
    (_C, CallEvent.CHILD): (_C, Act.REFUSE),
}

SERVED: Final[Mapping[tuple[CallState, CallEvent], tuple[CallState, Act]]] = {
    (_O, CallEvent.ITEM): (_O, Act.PASS),
    (_O, CallEvent.ANSWER): (_F, Act.FLUSH),
    (_O, CallEvent.CANCEL): (_C, Act.PASS),
    (_O, CallEvent.CREDIT): (_O, Act.FLUSH),
    (_C, CallEvent.ITEM): (_C, Act.DROP),
    (_C, CallEvent.ANSWER): (_F, Act.FLUSH),
    (_C, CallEvent.CANCEL): (_C, Act.DROP),
    (_C, CallEvent.CREDIT): (_C, Act.DROP),
    (_F, CallEvent.ITEM): (_F, Act.DROP),
    (_F, CallEvent.ANSWER): (_F, Act.DROP),
    (_F, CallEvent.CANCEL): (_F, Act.SKIP),
    (_F, CallEvent.CREDIT): (_F, Act.FLUSH),
}


class AskedCall:
    """A call that this side opened and the other side answers."""

    __slots__ = ("children", "left_bytes", "owed_bytes", "parent", "state", "window")

    def __init__(self, window: int, parent: int) -> None:
        self.state = CallState.OPEN
        self.window = window
        self.left_bytes = window  # what the other side may still send
        self.owed_bytes = 0  # consumed, credit not yet returned
        self.parent = parent
        self.children: set[int] | None = None  # served here on behalf of this call; most calls never have one

    def adopt(self, call_id: int) -> None:
        """Note a call that the other side asks on behalf of this one."""
        self.children = self.children or set()
        self.children.add(call_id)


class ServedCall:
    """A call that the other side opened and this side answers."""

    __slots__ = ("answer", "children", "held", "left_bytes", "parent", "prefix", "state", "window")

    def __init__(self, window: int, parent: int, prefix: bytes) -> None:
        self.state = CallState.OPEN
        self.window = window
        self.left_bytes = window  # what this side may still send
        self.parent = parent
        self.prefix = prefix  # the start of each of its ITEM frames
        self.held: deque[bytes | memoryview] | None = None  # items that wait for credit
        self.answer: bytes | None = None  # END or FAIL that waits for them
        self.children: set[int] | None = None  # asked from here on behalf of this call

    def adopt(self, call_id: int) -> None:
        """Note a call that this side asks on behalf of this one."""
        self.children = self.children or set()
        self.children.add(call_id)

    def hold(self, payloads: Iterable[bytes | memoryview]) -> None:
        """Keep payloads until there is credit for them."""
        self.held = deque() if self.held is None else self.held
        self.held.extend(payloads)


PLAIN_ASKED: Final = AskedCall(0, 0)
PLAIN_SERVED: Final = ServedCall(0, 0, b"")
