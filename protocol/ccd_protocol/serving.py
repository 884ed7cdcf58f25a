"""The half of a peer that serves: calls of the other side, and the items and answers sent for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccd_protocol import frames as f
from ccd_protocol.calls import ASKED, PLAIN_SERVED, SERVED, Act, CallState, ServedCall
from ccd_protocol.calls import CallEvent as On
from ccd_protocol.errors import Code
from ccd_protocol.events import Called, Cancelled, Credited, PeerEvent
from ccd_protocol.frames import MAX_U32, Violation
from ccd_protocol.wire import UNPACKABLE, Wire, fields, is_method, sendable

_OPEN = CallState.OPEN  # looking members up in their enum costs more than the work that they decide
_tuple = tuple.__new__  # builds an event without the detour through its own __new__


class Serving(Wire):
    """Receives calls and sends their answers."""

    def item(self, call_id: int, payload: bytes | memoryview) -> int:
        """Send a payload and return the bytes of window left; at 0 or less stop until `Credited`.

        What is given nevertheless, or does not fit into one frame, is held back here until there is credit. An empty
        payload sends nothing; for a call that is cancelled or answered nothing is sent and 0 returned.

        Raises:
            ValueError: no such call was ever received, or it gave no window.
        """
        call = self._served.get(call_id)
        size = len(payload)
        if (
            call is not None
            and call.state is _OPEN
            and call.held is None
            and 0 < size <= self._max_item_bytes
        ):
            if call.left_bytes > 0:
                call.left_bytes -= size
                self._out += f.item_buffers(call.prefix, payload)
                return call.left_bytes
        elif call is None or SERVED[call.state, On.ITEM][1] is Act.DROP:
            self._check_known(call_id, call)
            return 0
        if not call.window:
            raise ValueError(f"call {call_id} gave no window: it takes no items")
        if size:
            call.hold(f.pieces(payload, self._max_item_bytes))
            self._flush(call_id, call)
        return call.left_bytes if call.held is None else min(call.left_bytes, 0)

    def end(self, call_id: int, result: Any = None) -> bool:
        """Answer a served call with its result; False if it was answered before or the connection is gone.

        A result that cannot be sent becomes FAIL INTERNAL or TOO_LARGE.

        Raises:
            ValueError: no such call was ever received.
        """
        call = self._served.get(call_id)
        if call is None:
            return self._check_known(call_id, call)
        try:
            frame = self._pack((f.END, call_id, result))
        except UNPACKABLE as error:
            return self.fail(call_id, Code.INTERNAL, f"the result cannot be encoded: {error}")
        if len(frame) > f.KEPT_BYTES:
            self._pack = f.new_packer().pack  # the old one keeps its buffer for ever
        if len(frame) > self._max_frame_bytes:
            return self.fail(call_id, Code.TOO_LARGE, "the result is larger than the caller accepts")
        if len(frame) > f.MAX_CONTAINER_LEN:  # a smaller one holds nothing that is too long
            refused = f.unacceptable(frame, strict=self._parity == 1)
            if refused is not None:
                return self.fail(call_id, Code.INTERNAL, f"the result cannot be sent: {refused.message}")
        return self._answer(call_id, call, frame)

    def fail(self, call_id: int, code: int, message: str = "", data: Mapping[str, Any] | None = None) -> bool:
        """Answer a served call with a failure; False if it was answered before or the connection is gone.

        Data that cannot be sent is left out.

        Raises:
            ValueError: no such call was ever received.
        """
        call = self._served.get(call_id)
        if call is None:
            return self._check_known(call_id, call)
        text = sendable(message)
        try:
            frame = self._pack((f.FAIL, call_id, int(code), text, dict(data) if data else None))
        except UNPACKABLE:
            frame = b""
        if not 0 < len(frame) <= self._max_frame_bytes:
            frame = self._pack((f.FAIL, call_id, int(code), text, None))
        return self._answer(call_id, call, frame)

    def _answer(self, call_id: int, call: ServedCall, frame: bytes) -> bool:
        if call is PLAIN_SERVED or (
            call.state is _OPEN and call.held is None and call.children is None and not call.parent
        ):
            del self._served[call_id]
            self._out.append(frame)
            return True
        state, act = SERVED[call.state, On.ANSWER]
        if act is Act.DROP:
            return False
        call.state = state
        if call.children:
            for child in sorted(call.children):
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
            if call.parent:
                asked = self._asked.get(call.parent)
                if asked is not None and asked.children:
                    asked.children.discard(call_id)

    def _cancel_served(self, call_id: int, reason: str, events: list[PeerEvent]) -> None:
        call = self._own_served(call_id)
        call.state, act = SERVED[call.state, On.CANCEL]
        if act is Act.DROP:
            return
        call.held = None
        for child in sorted(call.children or ()):
            self.cancel(child, reason)
        if act is Act.SKIP:
            self._flush(call_id, call)
        else:
            events.append(Cancelled(call_id, reason))

    def _check_known(self, call_id: int, call: ServedCall | None) -> bool:
        if call is None and not self._was_opened(call_id):
            raise ValueError(f"call {call_id} was never received")
        return False

    def _was_opened(self, call_id: int) -> bool:
        return 0 < call_id <= self._seen_id and call_id & 1 != self._parity & 1

    def _find_served(self, call_id: Any, kind: str) -> ServedCall | None:
        """Returns the served call, or None for one that is over; CREDIT and CANCEL may cross an answer."""
        if not f.is_u32(call_id) or not self._was_opened(call_id):
            raise Violation(Code.PROTOCOL, f"{kind} for a call that was never opened")
        return self._served.get(call_id)

    def _on_call(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, method, params, timeout_ms, window, parent = (
            frame if len(frame) == 7 else fields(frame, 7)
        )
        if type(call_id) is not int or call_id & 1 == self._parity & 1:
            raise Violation(Code.PROTOCOL, "CALL with an id that is not the other side's to give")
        if not self._seen_id < call_id <= MAX_U32:
            raise Violation(Code.PROTOCOL, "CALL with an id that does not increase")
        if not (type(timeout_ms) is type(window) is type(parent) is int and is_method(method)):
            raise Violation(Code.PROTOCOL, "CALL has a field of the wrong type")
        if not (0 <= timeout_ms <= MAX_U32 and 0 <= window <= MAX_U32 and type(params) is dict):
            raise Violation(Code.PROTOCOL, "CALL has a field that is out of range")
        self._seen_id = call_id
        if self._leaving and not parent:
            return  # it crossed our GOAWAY, whose last_id says that it was not started
        if parent and self._refused_child(call_id, parent):
            return
        if len(self._served) >= self._limits.max_open_calls:
            self._refuse(call_id, Code.BUSY, f"{len(self._served)} calls are open on this connection")
            return
        if window or parent:
            prefix = f.item_prefix(call_id) if window else b""
            self._served[call_id] = ServedCall(window, parent, prefix)
        else:
            self._served[call_id] = PLAIN_SERVED
        if parent:
            self._own_asked(parent).adopt(call_id)
        events.append(_tuple(Called, (call_id, method, params, timeout_ms, window, parent)))

    def _refused_child(self, call_id: int, parent: int) -> bool:
        """Returns whether a callback came for a call of ours that we have cancelled, and was answered so."""
        asked = self._asked.get(parent)
        if asked is None:
            raise Violation(Code.PROTOCOL, "CALL on behalf of a call that is not open")
        if ASKED[asked.state, On.CHILD][1] is Act.PASS:
            return False
        self._refuse(call_id, Code.CANCELLED, "the call on whose behalf this was asked is cancelled")
        return True

    def _refuse(self, call_id: int, code: Code, message: str) -> None:
        self._out.append(self._pack((f.FAIL, call_id, int(code), message, None)))

    def _on_cancel(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, reason = fields(frame, 3)
        call = self._find_served(call_id, "CANCEL")
        if type(reason) is not str:
            raise Violation(Code.PROTOCOL, "the reason of a CANCEL is not a string")
        if call is not None:
            self._cancel_served(call_id, reason, events)

    def _on_credit(self, frame: list[Any], events: list[PeerEvent]) -> None:
        _, call_id, nbytes = fields(frame, 3)
        call = self._find_served(call_id, "CREDIT")
        if not f.is_u32(nbytes) or nbytes == 0:
            raise Violation(Code.PROTOCOL, "CREDIT is not a positive number")
        if call is None:
            return
        if not call.window or call.left_bytes + nbytes > MAX_U32:
            raise Violation(Code.PROTOCOL, "CREDIT for more than a window can hold")
        starved = call.held is not None or call.left_bytes <= 0
        call.left_bytes += nbytes
        if SERVED[call.state, On.CREDIT][1] is Act.DROP:
            return
        self._flush(call_id, call)
        if starved and call.state is CallState.OPEN and call.left_bytes > 0:
            events.append(Credited(call_id, call.left_bytes))
