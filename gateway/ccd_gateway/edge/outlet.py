"""The way out of one answer, and the bodies that are streamed through it.

A streamed body begins when the framework is done with its request: the framework sends the head and an end, which is
held back here, and nothing that it keeps for a request lives as long as the stream does.

A piece may also be written at once, from within a callback of the loop, while the body waits for the next one
(`Express`). ASGI's `send` is a coroutine, but one that has nothing to wait for is done after its first step. When the
server makes it wait because its client reads too slowly, the rest of it is kept for whoever sends next, and until then
nothing is written at once: backpressure holds as it does for any other body.

What that buys: a chunk takes one turn of the loop instead of two, because no task is woken for it. CPU of the gateway
per chunk, as `python -m bench g` measures it, with and without in turns, on a busy machine of two cores: 50 µs instead
of 68 with 100 streams, 200 instead of 250 with one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, MutableMapping
from types import CoroutineType, coroutine
from typing import Any, NamedTuple, TypeAlias

import falcon.asgi

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Steps: TypeAlias = Generator[Any, None, None] | Coroutine[Any, Any, None]

_SCOPE_NAME = "ccd.outlet"


class Body(NamedTuple):
    """A streamed body: its pieces, and what to do when no more of them are wanted."""

    pieces: AsyncGenerator[bytes, None]
    on_close: Callable[[], object] = lambda: None

    async def close(self) -> None:
        """However the answer ended, and also when nothing was ever taken."""
        try:
            await self.pieces.aclose()
        finally:
            self.on_close()


class Outlet:
    """One answer's `send`.

    Args:
        send: the server's.

    Attributes:
        body: what follows after the head, if the answer is streamed.
    """

    __slots__ = ("_rest", "_send", "body")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._rest: tuple[Steps, Any] | None = None
        self.body: Body | None = None

    async def send(self, message: Message) -> None:
        """An ASGI `send`; the end of an answer whose body is still to come is held back."""
        if self.body is None or message["type"] != "http.response.body":
            await self._send(message)

    async def stream(self) -> None:
        """Send the body."""
        assert self.body is not None
        async for piece in self.body.pieces:
            await self._settled()
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            del piece  # not kept while the next one is waited for
        await self._settled()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    @property
    def ready(self) -> bool:
        """Whether `write` may be called."""
        return self._rest is None

    def write(self, piece: bytes) -> None:
        """Send a piece of the body at once; only while the body itself waits for its next piece."""
        sending: Any = self._send({"type": "http.response.body", "body": piece, "more_body": True})
        if type(sending) is not CoroutineType:
            sending = sending.__await__()
        try:
            waits_for = sending.send(None)
        except StopIteration:
            return
        self._rest = (sending, waits_for)

    async def _settled(self) -> None:
        if self._rest is not None:
            rest, self._rest = self._rest, None
            await _resumed(*rest)

    async def close(self) -> None:
        """The answer is over, however it ended."""
        rest, self._rest = self._rest, None
        if rest is not None:
            rest[0].close()
        body, self.body = self.body, None
        if body is not None:
            await body.close()


@coroutine
def _resumed(rest: Steps, waits_for: Any) -> Generator[Any, None, None]:
    """Go on with a coroutine that has made its first step outside of a task."""
    try:
        while True:
            yield waits_for
            waits_for = rest.send(None)
    except StopIteration:
        return
    finally:
        rest.close()


class Express(NamedTuple):
    """The short way from the daemon's connection to the client's.

    Attributes:
        outlet: where to.
        made: makes of what a turn has brought the bytes to send; empty for nothing.
    """

    outlet: Outlet
    made: Callable[[list[Any]], bytes]


def admit(scope: MutableMapping[str, Any], outlet: Outlet) -> None:
    """Make `outlet` the one that `outlet_of` finds; for the envelope."""
    scope[_SCOPE_NAME] = outlet


def outlet_of(req: falcon.asgi.Request) -> Outlet:
    """The way out of the answer to a request."""
    outlet: Outlet = req.scope[_SCOPE_NAME]
    return outlet


def stream_events(req: falcon.asgi.Request, resp: falcon.asgi.Response, body: Body) -> None:
    """Answer with server-sent events; the envelope sends them, and closes the body."""
    resp.content_type = "text/event-stream; charset=utf-8"
    resp.set_header("cache-control", "no-cache")
    resp.set_header("x-accel-buffering", "no")
    resp.stream = _nothing()  # else the framework would say that there is none
    outlet_of(req).body = body


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield
