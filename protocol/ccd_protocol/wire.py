"""What the two halves of a peer share: the calls that are open, and the buffers to write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from ccd_protocol import frames as f
from ccd_protocol.calls import PLAIN_ASKED, PLAIN_SERVED, AskedCall, ServedCall
from ccd_protocol.errors import Code
from ccd_protocol.events import PeerEvent
from ccd_protocol.frames import Limits, Violation

MAX_MESSAGE_CHARS = 8192  # of FAIL, CANCEL and GOAWAY, so that they fit into the smallest frame
UNPACKABLE = (TypeError, ValueError, OverflowError)  # what packing an application's value may raise


class Wire(ABC):
    """The state of a connection that both halves use.

    Args:
        first_id: the first id to give to a call, 1 or 2; its parity says whose an id is.
        limits: what this side accepts.
    """

    def __init__(self, first_id: int, limits: Limits) -> None:
        self._limits = limits
        self._parity = first_id
        self._next_id = first_id
        self._seen_id = 0  # the highest id that the other side has opened
        self._asked: dict[int, AskedCall] = {}
        self._served: dict[int, ServedCall] = {}
        self._closed = False  # nothing more is received
        self._usable = True  # this side may open calls, not only callbacks
        self._leaving = False  # this side said GOAWAY
        self._goodbye = ""  # what the other side said with its own
        self._max_frame_bytes = f.MIN_FRAME_BYTES  # of the other side, until its HELLO says more
        self._max_item_bytes = self._max_frame_bytes - f.ITEM_OVERHEAD_BYTES
        self._max_asked = Limits().max_open_calls
        self._pack: Callable[[Any], bytes] = f.new_packer().pack
        self._out: list[bytes | memoryview] = []

    def _own_asked(self, call_id: int) -> AskedCall:
        """Returns the record of an open call of ours, to be changed."""
        if self._asked[call_id] is PLAIN_ASKED:
            self._asked[call_id] = AskedCall(0, 0)
        return self._asked[call_id]

    def _own_served(self, call_id: int) -> ServedCall:
        """Returns the record of a served call, to be changed."""
        if self._served[call_id] is PLAIN_SERVED:
            self._served[call_id] = ServedCall(0, 0, b"")
        return self._served[call_id]

    @abstractmethod
    def cancel(self, call_id: int, reason: str = "") -> None:
        """Stop wanting a call of ours; the asking half's."""

    @abstractmethod
    def _cancel_served(self, call_id: int, reason: str, events: list[PeerEvent]) -> None:
        """A served call is no longer wanted; the serving half's."""

    @abstractmethod
    def _unusable(self) -> tuple[Code, str]:
        """Returns why this side may not open calls; the peer's."""


def fields(frame: list[Any], count: int) -> list[Any]:
    """Returns the fields of a frame; those that a later minor version appended are left out."""
    if len(frame) == count:
        return frame
    if len(frame) < count:
        raise Violation(Code.PROTOCOL, f"{f.KIND_NAMES[frame[0]]} with too few fields")
    return frame[:count]


def sendable(message: str) -> str:
    """Returns a text that certainly can be packed: bounded, and without lone surrogates."""
    return message[:MAX_MESSAGE_CHARS].encode("utf-8", "replace").decode()


def is_method(value: object) -> bool:
    """Returns whether a value can name a method."""
    return type(value) is str and 0 < len(value) <= f.MAX_METHOD_CHARS
