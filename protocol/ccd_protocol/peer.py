"""The symmetric CCDP/1 peer, without I/O: bytes in, events out; method calls in, buffers out.

Theory of operation. Whoever owns the socket gives received bytes to `receive`, acts on the events, and writes
what `outgoing` returns. Both sides may call. What may happen to a call is data (`calls.py`), and so is which
frame may come in which phase of the connection (`_RECEIVERS` below): what is not in a table is a violation of
the protocol, which ends the connection with a typed `Closed` and a GOAWAY and never with an exception.

The peer reads no clock, starts nothing and waits for nothing. HELLO in time, deadlines of calls and the
number of buffered outgoing bytes are the business of the program around it. It is not safe to use from two
threads at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ccd_protocol import frames as f
from ccd_protocol.calls import ASKED, SERVED, Act, AskedCall, Event, ServedCall, State
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.frames import Limits, Violation

_MAX_MESSAGE_CHARS: Final = 8192  # of FAIL, CANCEL and GOAWAY, so that they fit into the smallest frame


class Greeted(NamedTuple):
    """HELLO came: the other side's program, minor version and announced limits."""

    agent: str
    minor: int
    caps: Mapping[str, Any]


class Called(NamedTuple):
    """The other side calls; answer with `end` or `fail`, exactly once, also after `Cancelled`."""

    id: int
    method: str
    params: dict[str, Any]
    timeout_ms: int  # 0: none; the application enforces it
    window: int  # bytes of ITEM payload that the caller accepts at first; 0: no ITEMs
    parent: int  # the call of ours on whose behalf this is asked, or 0


class Item(NamedTuple):
    """One payload of a call of ours; give its size back with `consumed` once the application has used it."""

    id: int
    payload: bytes


class Ended(NamedTuple):
    """A call of ours succeeded. Nothing more comes for it."""

    id: int
    result: Any


class Failed(NamedTuple):
    """A call of ours failed. Nothing more comes for it. `code` may be unknown to this version."""

    id: int
    code: int
    message: str
    data: Mapping[str, Any]


class Cancelled(NamedTuple):
    """A served call is no longer wanted. Stop, and still answer it."""

    id: int
    reason: str


class Credited(NamedTuple):
    """A served call that had used up its window may send again."""

    id: int
    window: int


class GoingAway(NamedTuple):
    """The other side takes no new calls; those of ours above `last_id` were never started."""

    last_id: int
    code: int
    message: str


class Closed(NamedTuple):
    """The other side broke the protocol. Write what is outgoing, close the socket, call `lost`."""

    code: Code
    message: str


PeerEvent: TypeAlias = Greeted | Called | Item | Ended | Failed | Cancelled | Credited | GoingAway | Closed
Role: TypeAlias = Literal["connecting", "accepting"]


class _Phase(Enum):
    __hash__ = object.__hash__  # as in `calls`: looked up for every frame

    OPENING = auto()  # HELLO is due
    OPEN = auto()
    LEFT = auto()  # the other side sent GOAWAY
    CLOSED = auto()


class Peer:
    """One end of a connection.

    Args:
        role: `connecting` opens odd call ids, `accepting` even ones.
        agent: program and version, for the other side's logs.
        limits: what this side accepts; announced in HELLO.
    """

    def __init__(self, role: Role, agent: str, *, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._next_id = 1 if role == "connecting" else 2
        self._parity = self._next_id & 1
        self._seen_id = 0  # the highest id that the other side has opened
        self._asked: dict[int, AskedCall] = {}
        self._served: dict[int, ServedCall] = {}
        self._phase = _Phase.OPENING
        self._leaving = False
        self._goodbye = ""
        self._max_frame_bytes = f.MIN_FRAME_BYTES  # of the other side, until its HELLO says more
        self._max_asked = Limits().max_open_calls
        self._packer = f.new_packer()
        self._pack: Callable[[Any], bytes] = self._packer.pack
        self._reader = f.FrameReader(self._limits, count_nodes=role == "accepting")
        hello = (f.HELLO, f.MAJOR, f.MINOR, agent[: f.MAX_AGENT_CHARS], self._limits.caps())
        self._out: list[bytes | memoryview] = [self._pack(hello)]

    # -- state -------------------------------------------------------------------------------------

    @property
    def greeted(self) -> bool:
        """Whether the other side's HELLO has come."""
        return self._phase is not _Phase.OPENING

    @property
    def closed(self) -> bool:
        """Whether nothing more is received: the protocol was broken or the connection lost."""
        return self._phase is _Phase.CLOSED

    @property
    def usable(self) -> bool:
        """Whether `call` may open a call now; if not, open another connection."""
        return self._phase in (_Phase.OPEN, _Phase.OPENING) and self._next_id <= f.MAX_U32

    @property
    def open_calls(self) -> int:
        """Calls of either side that are not answered; at 0 a connection that goes away can be closed."""
        return len(self._asked) + len(self._served)

    # -- bytes -------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[PeerEvent]:
        """What bytes from the socket mean. Never raises: bad input yields `Closed` as the last event."""
        events: list[PeerEvent] = []
        if self._phase is _Phase.CLOSED:
            return events
        try:
            for frame in self._reader.frames(data):
                if type(frame) is not list or not frame or type(frame[0]) is not int:
                    raise Violation(Code.PROTOCOL, "a frame is not an array that begins with its kind")
                receiver = _RECEIVERS[self._phase].get(frame[0])
                if receiver is None:
                    raise _unexpected(frame[0], self._phase)
                receiver(self, frame, events)
        except Violation as violation:
            self._farewell(violation.code, violation.message)
            self._phase = _Phase.CLOSED
            events.append(Closed(violation.code, violation.message))
        return events

    def outgoing(self) -> list[bytes | memoryview]:
        """Buffers to write, in order; they are handed over and then forgotten."""
        out = self._out
        if out:
            self._out = []
        return out

    def lost(self, message: str = "") -> list[PeerEvent]:
        """The connection is gone: every call of ours fails LOST and every served one is cancelled."""
        self._phase = _Phase.CLOSED
        self._out = []
        text = message or self._goodbye or "the connection was lost"
        events: list[PeerEvent] = [Failed(call_id, Code.LOST, text, {}) for call_id in self._asked]
        events += [
            Cancelled(call_id, text) for call_id, call in self._served.items() if call.state is State.OPEN
        ]
        self._asked.clear()
        self._served.clear()
        return events

    # -- calls of ours -----------------------------------------------------------------------------

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int = 0,
        window: int = 0,
        parent: int = 0,
    ) -> int:
        """Open a call and return its id.

        Args:
            method: what to call.
            params: a map of what msgpack can carry.
            timeout_ms: told to the other side; 0 is none.
            window: bytes of ITEM payload to accept before credit; 0 accepts no ITEMs.
            parent: the served call on whose behalf this is asked, or 0.

        Raises:
            RpcError: LOST or DRAINING when the connection takes no new calls, BUSY when too many are open,
                CANCELLED
                when the parent is over, BAD_PARAMS or TOO_LARGE when the parameters cannot be sent.
        """
        self._check_may_call(parent)
        call_id = self._next_id
        frame = self._call_frame((f.CALL, call_id, method, params or {}, timeout_ms, window, parent))
        self._next_id = call_id + 2
        self._asked[call_id] = AskedCall(window, parent)
        if parent:
            served = self._served[parent]
            served.children = served.children or set()
            served.children.add(call_id)
        self._out.append(frame)
        return call_id

    def cancel(self, call_id: int, reason: str = "") -> None:
        """Stop wanting a call of ours. Its `Failed` or `Ended` still comes; its late ITEMs do not."""
        call = self._asked.get(call_id)
        if call is None:
            return
        state, act = ASKED[call.state, Event.CANCEL]
        call.state = state or call.state
        if act is Act.PASS:
            self._out.append(self._pack((f.CANCEL, call_id, reason[:_MAX_MESSAGE_CHARS])))

    def consumed(self, call_id: int, nbytes: int) -> None:
        """The application has used so many bytes of a payload; credit is returned in halves of the window."""
        call = self._asked.get(call_id)
        if call is None or call.state is not State.OPEN or not call.window:
            return
        call.owed_bytes += nbytes
        if call.owed_bytes * 2 >= call.window:
            self._out.append(self._pack((f.CREDIT, call_id, call.owed_bytes)))
            call.left_bytes += call.owed_bytes
            call.owed_bytes = 0

    # -- calls of the other side -------------------------------------------------------------------

    def item(self, call_id: int, payload: bytes | memoryview) -> int:
        """Send a payload and return the bytes of window left; at 0 or less stop until `Credited`.

        What is given nevertheless, or does not fit into one frame, is held back here until there is credit.
        An empty payload sends nothing; for a call that is cancelled or answered nothing is sent and 0
        returned.
        """
        call = self._served.get(call_id)
        if call is None or call.state is not State.OPEN or not call.window:
            self._check_known(call_id, call)
            return 0
        if call.held is None and call.left_bytes > 0 and 0 < len(payload) <= self._max_frame_bytes - 16:
            call.left_bytes -= len(payload)
            self._out += f.item_buffers(call.prefix, payload)
            return call.left_bytes
        if payload:
            call.held = call.held if call.held is not None else deque()
            call.held.extend(f.pieces(payload, self._max_frame_bytes - f.ITEM_OVERHEAD_BYTES))
            self._flush(call_id, call)
        return call.left_bytes if call.held is None else min(call.left_bytes, 0)

    def end(self, call_id: int, result: Any = None) -> bool:
        """Answer a served call with its result; False if it was answered before or the connection is gone."""
        call = self._served.get(call_id)
        if call is None:
            self._check_known(call_id, call)
            return False
        try:
            frame = self._pack((f.END, call_id, result))
        except (TypeError, ValueError, OverflowError) as error:
            return self.fail(call_id, Code.INTERNAL, f"the result cannot be encoded: {error}")
        if len(frame) > self._max_frame_bytes:
            return self.fail(call_id, Code.TOO_LARGE, "the result is larger than the caller accepts")
        return self._answer(call_id, call, frame)

    def fail(self, call_id: int, code: int, message: str = "", data: Mapping[str, Any] | None = None) -> bool:
        """Answer a served call with a failure; False if it was answered before or the connection is gone."""
        call = self._served.get(call_id)
        if call is None:
            self._check_known(call_id, call)
            return False
        text = _sendable(message)
        try:
            frame = self._pack((f.FAIL, call_id, int(code), text, dict(data) if data else None))
        except (TypeError, ValueError, OverflowError):
            frame = self._pack((f.FAIL, call_id, int(code), text, None))
        if len(frame) > self._max_frame_bytes:
            frame = self._pack((f.FAIL, call_id, int(code), text, None))
        return self._answer(call_id, call, frame)

    def goaway(self, code: int = Code.DRAINING, message: str = "") -> None:
        """Take no new calls; those already open finish. Close once `open_calls` is 0."""
        if self._phase is not _Phase.CLOSED and not self._leaving:
            self._farewell(code, message)

    # -- inside ------------------------------------------------------------------------------------

    def _farewell(self, code: int, message: str) -> None:
        self._leaving = True
        self._out.append(self._pack((f.GOAWAY, self._seen_id, int(code), _sendable(message))))

    def _check_may_call(self, parent: int) -> None:
        if self._phase is _Phase.CLOSED:
            raise RpcError(Code.LOST, self._goodbye or "the connection is closed")
        if self._phase is _Phase.LEFT or self._next_id > f.MAX_U32 or (self._leaving and not parent):
            raise RpcError(Code.DRAINING, self._goodbye or "the connection takes no new calls; open another")
        if len(self._asked) >= self._max_asked:
            raise RpcError(Code.BUSY, f"{self._max_asked} calls are open on this connection; open another")
        if parent:
            served = self._served.get(parent)
            if served is None or served.state is not State.OPEN:
                raise RpcError(Code.CANCELLED, "the call on whose behalf this is asked is over")

    def _call_frame(self, frame: Sequence[Any]) -> bytes:
        _, _, method, _, timeout_ms, window, _ = frame
        if not (_is_method(method) and f.is_u32(timeout_ms) and f.is_u32(window)):
            raise RpcError(Code.BAD_PARAMS, "method, timeout_ms or window is out of range")
        try:
            packed = self._pack(frame)
        except (TypeError, ValueError, OverflowError) as error:
            raise RpcError(Code.BAD_PARAMS, f"the parameters cannot be encoded: {error}") from None
        if len(packed) > self._max_frame_bytes:
            raise RpcError(
                Code.TOO_LARGE,
                f"the call is {len(packed)} bytes, the other side accepts {self._max_frame_bytes}",
            )
        return packed

    def _answer(self, call_id: int, call: ServedCall, frame: bytes) -> bool:
        state, act = SERVED[call.state, Event.ANSWER]
        if act is Act.DROP:
            return False
        call.state = state
        for child in sorted(call.children or ()):
            self.cancel(child, "the call on whose behalf this was asked is over")
        call.answer = frame
        self._flush(call_id, call)
        return True

    def _flush(self, call_id: int, call: ServedCall) -> None:
        """Send what is held as far as credit allows, and the answer after the last of it."""
        held = call.held
        while held and call.left_bytes > 0:
            payload = held.popleft()
            call.left_bytes -= len(payload)
            self._out += f.item_buffers(call.prefix, payload)
        if held:
            return
        call.held = None
        if call.answer is not None:
            self._out.append(call.answer)
            del self._served[call_id]
            self._orphan(call_id, call.parent)

    def _orphan(self, call_id: int, parent: int) -> None:
        """Forget a served child at the call of ours that it belonged to."""
        asked = self._asked.get(parent)
        if asked is not None and asked.children:
            asked.children.discard(call_id)

    def _check_known(self, call_id: int, call: ServedCall | None) -> None:
        if call is None and not self._was_opened_by_other(call_id):
            raise ValueError(f"call {call_id} was never received")

    def _was_opened_by_other(self, call_id: int) -> bool:
        return 0 < call_id <= self._seen_id and call_id & 1 != self._parity

    def _take_asked(self, call_id: Any, kind: str) -> AskedCall:
        call = self._asked.get(call_id) if type(call_id) is int else None
        if call is None:
            raise Violation(Code.PROTOCOL, f"{kind} for a call that is not open")
        return call

    def _find_served(self, call_id: Any, kind: str) -> ServedCall | None:
        """The served call, or None for one that is over; CREDIT and CANCEL may cross an answer."""
        if not f.is_u32(call_id) or not self._was_opened_by_other(call_id):
            raise Violation(Code.PROTOCOL, f"{kind} for a call that was never opened")
        return self._served.get(call_id)

    def _finish_asked(self, call_id: int, call: AskedCall, events: list[PeerEvent]) -> None:
        """A call of ours is answered: it takes its children with it."""
        del self._asked[call_id]
        for child in sorted(call.children or ()):
            self._cancel_served(child, "the call on whose behalf this was asked is over", events)
        if call.parent:
            served = self._served.get(call.parent)
            if served is not None and served.children:
                served.children.discard(call_id)

    def _cancel_served(self, call_id: int, reason: str, events: list[PeerEvent]) -> None:
        call = self._served[call_id]
        call.state, act = SERVED[call.state, Event.CANCEL]
        if act is Act.DROP:
            return
        call.held = None
        for child in sorted(call.children or ()):
            self.cancel(child, reason)
        if act is Act.SKIP:
            self._flush(call_id, call)
        else:
            events.append(Cancelled(call_id, reason))

    # -- received frames; each checks its own fields -----------------------------------------------

    def _on_hello(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, major, minor, agent, caps = _fields(frame, 5)
        if not (f.is_u32(major) and f.is_u32(minor) and type(agent) is str and type(caps) is dict):
            raise Violation(Code.PROTOCOL, "HELLO has a field of the wrong type")
        if major != f.MAJOR:
            raise Violation(Code.VERSION, f"this side speaks version {f.MAJOR}, the other {major}")
        if len(agent) > f.MAX_AGENT_CHARS:
            raise Violation(Code.PROTOCOL, "the agent of HELLO is too long")
        limits = f.announced(caps)
        self._max_frame_bytes = limits.max_frame_bytes
        self._max_asked = limits.max_open_calls
        self._phase = _Phase.OPEN
        events.append(Greeted(agent, minor, caps))

    def _on_call(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, method, params, timeout_ms, window, parent = _fields(frame, 7)
        if type(call_id) is not int or call_id & 1 == self._parity:
            raise Violation(Code.PROTOCOL, "CALL with an id that is not the other side's to give")
        if not self._seen_id < call_id <= f.MAX_U32:
            raise Violation(Code.PROTOCOL, "CALL with an id that does not increase")
        numbers_ok = f.is_u32(timeout_ms) and f.is_u32(window) and f.is_u32(parent)
        if not (numbers_ok and type(params) is dict and _is_method(method)):
            raise Violation(Code.PROTOCOL, "CALL has a field of the wrong type or size")
        if self._leaving and not parent:
            return  # it crossed our GOAWAY, whose last_id says that it was not started
        self._seen_id = call_id
        act = Act.PASS
        if parent:
            act = ASKED[self._take_asked(parent, "CALL on behalf").state, Event.CHILD][1]
        if act is Act.REFUSE:
            self._refuse(call_id, Code.CANCELLED, "the call on whose behalf this was asked is cancelled")
        elif len(self._served) >= self._limits.max_open_calls:
            self._refuse(call_id, Code.BUSY, f"{len(self._served)} calls are open on this connection")
        else:
            self._serve(call_id, window, parent)
            events.append(Called(call_id, method, params, timeout_ms, window, parent))

    def _serve(self, call_id: int, window: int, parent: int) -> None:
        self._served[call_id] = ServedCall(window, parent, f.item_prefix(call_id) if window else b"")
        if parent:
            asked = self._asked[parent]
            asked.children = asked.children or set()
            asked.children.add(call_id)

    def _refuse(self, call_id: int, code: Code, message: str) -> None:
        self._out.append(self._pack((f.FAIL, call_id, int(code), message, None)))

    def _on_item(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, payload = frame if len(frame) == 3 else _fields(frame, 3)
        call = self._take_asked(call_id, "ITEM")
        if type(payload) is not bytes or not payload:
            raise Violation(Code.PROTOCOL, "the payload of an ITEM is not bytes, or empty")
        if call.left_bytes <= 0:
            raise Violation(Code.PROTOCOL, "ITEM without window")
        call.left_bytes -= len(payload)
        if ASKED[call.state, Event.ITEM][1] is Act.PASS:
            events.append(Item(call_id, payload))

    def _on_end(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, result = _fields(frame, 3)
        self._finish_asked(call_id, self._take_asked(call_id, "END"), events)
        events.append(Ended(call_id, result))

    def _on_fail(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, code, message, data = _fields(frame, 5)
        call = self._take_asked(call_id, "FAIL")
        if not (f.is_u32(code) and type(message) is str and (data is None or type(data) is dict)):
            raise Violation(Code.PROTOCOL, "FAIL has a field of the wrong type")
        self._finish_asked(call_id, call, events)
        events.append(Failed(call_id, code, message, data or {}))

    def _on_cancel(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, reason = _fields(frame, 3)
        call = self._find_served(call_id, "CANCEL")
        if type(reason) is not str:
            raise Violation(Code.PROTOCOL, "the reason of a CANCEL is not a string")
        if call is not None:
            self._cancel_served(call_id, reason, events)

    def _on_credit(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, nbytes = _fields(frame, 3)
        call = self._find_served(call_id, "CREDIT")
        if not f.is_u32(nbytes) or nbytes == 0:
            raise Violation(Code.PROTOCOL, "CREDIT is not a positive number")
        if call is None:
            return
        if not call.window or call.left_bytes + nbytes > f.MAX_U32:
            raise Violation(Code.PROTOCOL, "CREDIT for more than a window can hold")
        call.left_bytes += nbytes
        if SERVED[call.state, Event.CREDIT][1] is Act.DROP:
            return
        starved = call.held is not None or call.left_bytes <= nbytes
        self._flush(call_id, call)
        if starved and call.state is State.OPEN and call.left_bytes > 0:
            events.append(Credited(call_id, call.left_bytes))

    def _on_goaway(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, last_id, code, message = _fields(frame, 4)
        if not (f.is_u32(last_id) and f.is_u32(code) and type(message) is str):
            raise Violation(Code.PROTOCOL, "GOAWAY has a field of the wrong type")
        self._phase = _Phase.LEFT
        self._goodbye = message
        events.append(GoingAway(last_id, code, message))
        for call_id in [call_id for call_id in self._asked if call_id > last_id]:
            self._finish_asked(call_id, self._asked[call_id], events)
            events.append(Failed(call_id, code, message, {}))


_Receiver: TypeAlias = Callable[[Peer, list[Any], list[PeerEvent]], None]

_ANY_TIME: Final[Mapping[int, _Receiver]] = {
    f.CALL: Peer._on_call,
    f.ITEM: Peer._on_item,
    f.END: Peer._on_end,
    f.FAIL: Peer._on_fail,
    f.CANCEL: Peer._on_cancel,
    f.CREDIT: Peer._on_credit,
    f.GOAWAY: Peer._on_goaway,
}
_RECEIVERS: Final[Mapping[_Phase, Mapping[int, _Receiver]]] = {
    _Phase.OPENING: {f.HELLO: Peer._on_hello},
    _Phase.OPEN: _ANY_TIME,
    _Phase.LEFT: _ANY_TIME,  # callbacks for calls that are still open come and go until the end
    _Phase.CLOSED: {},
}


def _fields(frame: list[Any], count: int) -> list[Any]:
    """The fields of a frame; those that a later minor version appended are left out."""
    if len(frame) == count:
        return frame
    if len(frame) < count:
        raise Violation(Code.PROTOCOL, f"{f.KIND_NAMES[frame[0]]} with too few fields")
    return frame[:count]


def _unexpected(kind: int, phase: _Phase) -> Violation:
    if not f.HELLO <= kind <= f.GOAWAY:
        return Violation(
            Code.PROTOCOL, f"unknown kind of frame: {kind}" if f.is_u32(kind) else "unknown kind"
        )
    if phase is _Phase.OPENING:
        return Violation(Code.PROTOCOL, f"{f.KIND_NAMES[kind]} before HELLO")
    return Violation(Code.PROTOCOL, f"a second {f.KIND_NAMES[kind]}")


def _is_method(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= f.MAX_METHOD_CHARS


def _sendable(message: str) -> str:
    """A text that certainly can be packed: bounded, and without lone surrogates."""
    return message[:_MAX_MESSAGE_CHARS].encode("utf-8", "replace").decode()
