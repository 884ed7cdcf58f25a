"""A call that is being served, and what may serve it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ccd_daemon.rpc.identity import Identity
from ccd_protocol import peer as p
from ccd_protocol.methods import METHODS, NoParams

# smaller payloads wait for those of the same turn of the loop, and share one write
_AT_ONCE_BYTES = 16 * 1024


class Source(Protocol):
    """What produces a stream and can be held back."""

    def pause(self) -> None:
        """Produce nothing more."""

    def resume(self) -> None:
        """Go on."""


@dataclass(frozen=True)
class Handler:
    """A method's implementation: a coroutine function gets a `Call` and a task.

    One that answers `at_once` is a plain function and gets the `Called` as it came.
    """

    run: Callable[[Any], Any]
    streams: bool = False
    admin: bool = False
    at_once: bool = False
    bare: bool = False  # takes no parameters


def handlers(nouns: Mapping[str, object]) -> dict[str, Handler]:
    """Returns one handler for each of `METHODS`: `session.open` is `nouns["session"].open`."""
    found: dict[str, Handler] = {}
    for name, method in METHODS.items():
        noun, _, verb = name.partition(".")
        run = getattr(nouns[noun], verb)
        at_once, bare = not inspect.iscoroutinefunction(run), method.params is NoParams
        found[name] = Handler(run, method.streams, method.admin, at_once, bare)
    return found


class Carrier(Protocol):
    """The connection that a call came on."""

    peer: p.Peer
    identity: Identity
    choked: bool
    flush_is_due: bool

    def flush(self) -> None:
        """Write what the peer has queued."""

    def flush_soon(self) -> None:
        """Write it in this turn of the loop."""


class Call:
    """A call that is being served."""

    __slots__ = (
        *("_connection", "_source", "begun", "id", "method", "nbytes", "params", "task", "timeout_ms"),
        "window",
    )

    def __init__(self, connection: Carrier, event: p.Called) -> None:
        self.id = event.id
        self.method = event.method
        self.params = event.params
        self.timeout_ms = event.timeout_ms
        self.window = event.window
        self.nbytes = 0  # of its parameters, when they are many
        self.task: asyncio.Task[None] | None = None
        self.begun = False  # the task has had its first step
        self._connection = connection
        self._source: Source | None = None

    @property
    def identity(self) -> Identity:
        """Who calls."""
        return self._connection.identity

    def feed_from(self, source: Source | None) -> None:
        """Name what is to be held back when the caller's window is used up."""
        self._source = source

    def send(self, payload: bytes) -> None:
        """Pass one payload on; holds the source back when the caller cannot take more."""
        connection = self._connection
        window = connection.peer.item(self.id, payload)
        if len(payload) > _AT_ONCE_BYTES:
            connection.flush()
        elif not connection.flush_is_due:
            connection.flush_soon()
        if (window <= 0 or connection.choked) and self._source is not None:
            self._source.pause()

    def resume(self) -> None:
        """The caller can take more."""
        if self._source is not None:
            self._source.resume()
