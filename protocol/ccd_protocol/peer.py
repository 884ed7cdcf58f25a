"""The symmetric CCDP/1 peer, without I/O: bytes in, events out; method calls in, buffers out.

Theory of operation. Whoever owns the socket gives received bytes to `receive`, acts on the events, and writes
what `outgoing` returns. Both sides may call: `asking.py` is the half that asks, `serving.py` the half that
answers. What may happen to a call is data (`calls.py`), and so is which frame may come in which phase of the
connection (`_RECEIVERS` below). What is in no table breaks the protocol, and that ends the connection with a
typed `Closed` and a GOAWAY, never with an exception.

The peer reads no clock, starts nothing and waits for nothing. HELLO in time, deadlines of calls and the
number of buffered outgoing bytes are the business of the program around it. It is not safe to use from two
threads at once.

Not here: what a method means (`methods`), what an ITEM's payload is, and waiting for credit, which is the source's. A
queue of items for a slow reader would be the obvious place for backpressure, and would hold a whole answer of everybody
who does not read; instead the caller's window holds back the CLI itself (DECISIONS, "CCDP/1 is a bare stream").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from ccd_protocol import frames as f
from ccd_protocol.asking import Asking
from ccd_protocol.calls import CallState
from ccd_protocol.errors import Code
from ccd_protocol.events import (
    Called,
    CallFailed,
    Cancelled,
    Closed,
    Credited,
    Ended,
    GoingAway,
    Greeted,
    Item,
    PeerEvent,
)
from ccd_protocol.frames import Limits, Violation
from ccd_protocol.serving import Serving
from ccd_protocol.wire import fields, sendable

__all__ = [
    "CallFailed",
    "Called",
    "Cancelled",
    "Closed",
    "Credited",
    "Ended",
    "GoingAway",
    "Greeted",
    "Item",
    "Limits",
    "Peer",
    "PeerEvent",
]

Role: TypeAlias = Literal["connecting", "accepting"]


class Peer(Asking, Serving):
    """One end of a connection.

    Args:
        role: `connecting` opens odd call ids, `accepting` even ones.
        agent: program and version, for the other side's logs.
        limits: what this side accepts; announced in HELLO.
    """

    def __init__(self, role: Role, agent: str, *, limits: Limits | None = None) -> None:
        super().__init__(1 if role == "connecting" else 2, limits or Limits())
        self._receivers = _RECEIVERS["opening"]
        self._last_id = 0  # of our GOAWAY: calls above it were never started
        self._reader = f.FrameReader(self._limits, strict=role == "accepting")
        hello = (f.HELLO, f.MAJOR, f.MINOR, agent[: f.MAX_AGENT_CHARS], self._limits.caps())
        self._out.append(self._pack(hello))

    @property
    def greeted(self) -> bool:
        """Whether the other side's HELLO has come."""
        return self._receivers is not _RECEIVERS["opening"]

    @property
    def closed(self) -> bool:
        """Whether nothing more is received: the protocol was broken or the connection lost."""
        return self._closed

    @property
    def usable(self) -> bool:
        """Whether `call` may open a call now, as far as the connection is concerned; if not, open another."""
        return self._usable and not self._leaving

    @property
    def open_calls(self) -> int:
        """Calls of either side that are not answered; at 0 a connection that goes away can be closed."""
        return len(self._asked) + len(self._served)

    def receive(self, data: bytes) -> list[PeerEvent]:
        """Returns what bytes from the socket mean. Never raises: bad input yields `Closed` as the last event."""
        events: list[PeerEvent] = []
        if self._closed:
            return events
        try:
            for frame in self._reader.read(data):
                if type(frame) is not list or not frame or type(frame[0]) is not int:
                    raise Violation(Code.PROTOCOL, "a frame is not an array that begins with its kind")
                receiver = self._receivers.get(frame[0])
                if receiver is None:
                    raise self._unexpected(frame[0])
                receiver(self, frame, events)
            if self._reader.violation is not None:
                raise self._reader.violation
        except Violation as violation:
            self._farewell(violation.code, violation.message)
            self._close(violation.message)
            events.append(Closed(violation.code, violation.message))
        return events

    def outgoing(self) -> list[bytes | memoryview]:
        """Buffers to write, in order; they are handed over and then forgotten."""
        out = self._out
        self._out = []
        return out

    def goaway(self, code: int = Code.DRAINING, message: str = "") -> None:
        """Take no new calls; those already open finish. Close the socket once `open_calls` is 0."""
        if not (self._closed or self._leaving):
            self._farewell(code, message)

    def lost(self, message: str = "") -> list[PeerEvent]:
        """The connection is gone. Returns the events: every call of ours fails LOST, every served one is cancelled."""
        text = message or self._goodbye or "the connection was lost"
        self._close(text)
        self._out = []
        events: list[PeerEvent] = [CallFailed(call_id, Code.LOST, text, {}) for call_id in self._asked]
        served = [call_id for call_id, call in self._served.items() if call.state is CallState.OPEN]
        events += [Cancelled(call_id, text) for call_id in served]
        self._asked.clear()
        self._served.clear()
        return events

    def _close(self, why: str) -> None:
        self._receivers = _RECEIVERS["closed"]
        self._reader.close()
        self._closed = True
        self._usable = False
        self._goodbye = self._goodbye or why

    def _farewell(self, code: int, message: str) -> None:
        if not self._leaving:
            self._leaving = True
            self._last_id = self._seen_id
        self._out.append(self._pack((f.GOAWAY, self._last_id, int(code), sendable(message))))

    def _unusable(self) -> tuple[Code, str]:
        if self.closed:
            return Code.LOST, self._goodbye
        if self._next_id > f.MAX_U32:
            return Code.DRAINING, "the connection has used up its call ids; open another"
        return Code.DRAINING, self._goodbye or "the connection is going away; open another"

    def _unexpected(self, kind: int) -> Violation:
        if not f.HELLO <= kind <= f.GOAWAY:
            return Violation(Code.PROTOCOL, "unknown kind of frame")
        problem = f"a second {f.KIND_NAMES[kind]}" if self.greeted else f"{f.KIND_NAMES[kind]} before HELLO"
        return Violation(Code.PROTOCOL, problem)

    def _on_hello(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, major, minor, agent, caps = fields(frame, 5)
        if not (f.is_u32(major) and f.is_u32(minor) and type(agent) is str and type(caps) is dict):
            raise Violation(Code.PROTOCOL, "HELLO has a field of the wrong type")
        if major != f.MAJOR:
            raise Violation(Code.VERSION, f"this side speaks version {f.MAJOR}, the other {major}")
        if len(agent) > f.MAX_AGENT_CHARS:
            raise Violation(Code.PROTOCOL, "the agent of HELLO is too long")
        limits = f.announced(caps)
        self._max_frame_bytes = limits.max_frame_bytes
        self._max_item_bytes = self._max_frame_bytes - f.ITEM_OVERHEAD_BYTES
        self._max_asked = limits.max_open_calls
        self._receivers = _RECEIVERS["open"]
        events.append(Greeted(agent, minor, caps))

    def _on_goaway(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, last_id, code, message = fields(frame, 4)
        if not (f.is_u32(last_id) and f.is_u32(code) and type(message) is str):
            raise Violation(Code.PROTOCOL, "GOAWAY has a field of the wrong type")
        self._usable = False
        self._goodbye = message
        events.append(GoingAway(last_id, code, message))
        # Callbacks are not new calls: they belong to one that finishes, and go on like it.
        ours = [
            (call_id, call) for call_id, call in self._asked.items() if call_id > last_id and not call.parent
        ]
        for call_id, call in ours:
            self._finish_asked(call_id, call, events)
            events.append(CallFailed(call_id, code, message, {}))


_Receiver: TypeAlias = Callable[[Peer, list[Any], list[PeerEvent]], None]
_RECEIVERS: Final[Mapping[str, Mapping[int, _Receiver]]] = {
    "opening": {f.HELLO: Peer._on_hello},
    "open": {
        f.CALL: Peer._on_call,
        f.ITEM: Peer._on_item,
        f.END: Peer._on_end,
        f.FAIL: Peer._on_fail,
        f.CANCEL: Peer._on_cancel,
        f.CREDIT: Peer._on_credit,
        f.GOAWAY: Peer._on_goaway,
    },
    "closed": {},
}
