"""What a `Peer` reports: one tuple type for each thing that can happen on a connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from ccd_protocol.errors import Code


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


class CallFailed(NamedTuple):
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


PeerEvent: TypeAlias = (
    Greeted | Called | Item | Ended | CallFailed | Cancelled | Credited | GoingAway | Closed
)
