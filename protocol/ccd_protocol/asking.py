"""The half of a peer that asks: calls of this side, and the ITEM, END and FAIL that answer them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccd_protocol import frames as f
from ccd_protocol.calls import ASKED, PLAIN_ASKED, Act, AskedCall, CallState
from ccd_protocol.calls import CallEvent as On
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.events import CallFailed, Ended, Item, PeerEvent
from ccd_protocol.frames import MAX_U32, Violation
from ccd_protocol.wire import UNPACKABLE, Wire, fields, is_method, sendable

_OPEN = CallState.OPEN  # looking members up in their enum costs more than the work that they decide
_tuple = tuple.__new__  # builds an event without the detour through its own __new__


class Asking(Wire):
    """Opens calls and receives their answers."""

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
            RpcError: LOST or DRAINING when the connection takes no new calls, BUSY when too many are open, CANCELLED
                when the parent is over, BAD_PARAMS or TOO_LARGE when the call cannot be sent.
        """
        call_id = self._next_id
        if not self._usable or self._leaving or parent or len(self._asked) >= self._max_asked:
            self._check_may_call(parent)
        if not (0 <= timeout_ms <= MAX_U32 and 0 <= window <= MAX_U32 and is_method(method)):
            raise RpcError(Code.BAD_PARAMS, "method, timeout_ms or window is out of range")
        try:
            frame = self._pack((f.CALL, call_id, method, params or {}, timeout_ms, window, parent))
        except UNPACKABLE as error:
            raise RpcError(Code.BAD_PARAMS, f"the parameters cannot be encoded: {error}") from None
        if len(frame) > f.KEPT_BYTES:
            self._pack = f.new_packer().pack  # the old one keeps its buffer for ever
        refused = f.unacceptable(frame, strict=self._parity == 1) if params else None
        if refused is not None:
            code = Code.TOO_LARGE if refused.code is Code.TOO_LARGE else Code.BAD_PARAMS
            raise RpcError(code, f"the parameters cannot be sent: {refused.message}")
        if len(frame) > self._max_frame_bytes:
            problem = f"the call is {len(frame)} bytes, the other side accepts {self._max_frame_bytes}"
            raise RpcError(Code.TOO_LARGE, problem)
        self._next_id = next_id = call_id + 2
        if next_id > MAX_U32:
            self._usable = False
        self._asked[call_id] = AskedCall(window, parent) if window or parent else PLAIN_ASKED
        if parent:
            self._own_served(parent).adopt(call_id)
        self._out.append(frame)
        return call_id

    def cancel(self, call_id: int, reason: str = "") -> None:
        """Stop wanting a call of ours. Its `CallFailed` or `Ended` still comes; its late ITEMs do not."""
        if call_id not in self._asked:
            return
        call = self._own_asked(call_id)
        call.state, act = ASKED[call.state, On.CANCEL]
        if act is Act.PASS:
            self._out.append(self._pack((f.CANCEL, call_id, sendable(reason))))

    def consumed(self, call_id: int, nbytes: int) -> None:
        """The application has used some bytes of a payload; credit is returned in halves of the window."""
        call = self._asked.get(call_id)
        if call is None or call.state is not _OPEN or not call.window:
            return
        call.owed_bytes += nbytes
        if call.owed_bytes * 2 >= call.window:
            self._out.append(self._pack((f.CREDIT, call_id, call.owed_bytes)))
            call.left_bytes += call.owed_bytes
            call.owed_bytes = 0

    def _check_may_call(self, parent: int) -> None:
        if self._closed or self._next_id > MAX_U32 or not (parent or (self._usable and not self._leaving)):
            raise RpcError(*self._unusable())
        if len(self._asked) >= self._max_asked:
            raise RpcError(Code.BUSY, f"{self._max_asked} calls are open on this connection; open another")
        if parent:
            served = self._served.get(parent)
            if served is None or served.state is not CallState.OPEN:
                raise RpcError(Code.CANCELLED, "the call on whose behalf this is asked is over")

    def _finish_asked(self, call_id: int, call: AskedCall, events: list[PeerEvent]) -> None:
        """A call of ours is answered: it takes its children with it."""
        del self._asked[call_id]
        if call.children:
            for child in sorted(call.children):
                self._cancel_served(child, "the call on whose behalf this was asked is over", events)
        if call.parent:
            served = self._served.get(call.parent)
            if served is not None and served.children:
                served.children.discard(call_id)

    def _on_item(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, payload = frame if len(frame) == 3 else fields(frame, 3)
        call = self._asked.get(call_id) if type(call_id) is int else None
        if call is None:
            raise Violation(Code.PROTOCOL, "ITEM for a call that is not open")
        if type(payload) is not bytes or not payload:
            raise Violation(Code.PROTOCOL, "the payload of an ITEM is not bytes, or empty")
        if call.left_bytes <= 0:
            raise Violation(Code.PROTOCOL, "ITEM without window")
        call.left_bytes -= len(payload)
        if call.state is _OPEN or ASKED[call.state, On.ITEM][1] is Act.PASS:
            events.append(_tuple(Item, (call_id, payload)))

    def _on_end(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, result = frame if len(frame) == 3 else fields(frame, 3)
        call = self._asked.get(call_id) if type(call_id) is int else None
        if call is None:
            raise Violation(Code.PROTOCOL, "END for a call that is not open")
        if call is PLAIN_ASKED:
            del self._asked[call_id]
        else:
            self._finish_asked(call_id, call, events)
        events.append(_tuple(Ended, (call_id, result)))

    def _on_fail(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, code, message, data = fields(frame, 5)
        call = self._asked.get(call_id) if type(call_id) is int else None
        if call is None:
            raise Violation(Code.PROTOCOL, "FAIL for a call that is not open")
        if not (f.is_u32(code) and type(message) is str and (data is None or type(data) is dict)):
            raise Violation(Code.PROTOCOL, "FAIL has a field of the wrong type")
        self._finish_asked(call_id, call, events)
        events.append(CallFailed(call_id, code, message, data or {}))
