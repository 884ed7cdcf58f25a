"""One streamed answer as it comes over the socket, with a clock for its silences."""

from __future__ import annotations

from typing import Any, Protocol, cast

from ccd_client import AsyncClient, AsyncStream
from ccd_gateway.access.metering import MeteredAnswer
from ccd_gateway.edge.outlet import Express
from ccd_protocol.methods import ChatResult


class DaemonLink:
    """One connection to the daemon and the number of calls on it."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.open_calls = 0

    def __enter__(self) -> DaemonLink:
        self.open_calls += 1
        return self

    def __exit__(self, *args: object) -> None:
        self.open_calls -= 1


class PieceReader(Protocol):
    """Makes of payloads what a surface needs of them."""

    @property
    def started(self) -> bool:
        """The model's answer has begun, so a failure from now on comes after output."""

    @property
    def model(self) -> str:
        """Who answers, by the full name; empty while that is not known."""

    def feed(self, payload: bytes) -> list[Any]:
        """What is in a payload, in order; a line that is not complete waits for the next one."""


class ChatTurn:
    """One open `chat.stream`. Whoever has one must `close` it.

    Nothing is taken from the daemon ahead of the reader, so a slow HTTP client holds the daemon back.

    Attributes:
        reader: makes the deltas; which type they have is its.
        first: the deltas that came while waiting for the answer to begin.
        silent: the last wait passed without a payload.
    """

    __slots__ = ("_express", "_link", "_run", "_stream", "first", "reader", "silent")

    def __init__(
        self, stream: AsyncStream, link: DaemonLink, reader: PieceReader, run: MeteredAnswer | None = None
    ) -> None:
        self.reader = reader
        self.first: list[Any] = []
        self.silent = False
        self._stream = stream
        self._run = run
        self._express: Express | None = None
        self._link: DaemonLink | None = link
        link.open_calls += 1

    @property
    def result(self) -> ChatResult:
        """Valid once `deltas` has returned None."""
        return cast(ChatResult, self._stream.result)

    async def begin(self, silence_s: float) -> None:
        """Wait for the answer's first line; what the CLI says before it (retries) is not yet an answer."""
        while not self.reader.started and not self.silent:
            deltas = await self.deltas(silence_s)
            if deltas is None:
                return
            self.first += deltas

    def taken(self) -> list[Any]:
        """`first`, which is kept no longer."""
        first, self.first = self.first, []
        return first

    async def deltas(self, silence_s: float, express: Express | None = None) -> list[Any] | None:
        """What came since the last time, waiting if nothing did; None at the end.

        An empty list with `silent` set means `silence_s` without a payload.

        Args:
            silence_s: how long to wait.
            express: takes what comes during the wait, as long as the client does; the wait then goes on.

        Raises:
            RpcError: the turn failed.
        """
        self._express = express
        payloads = await self._stream.next_within(silence_s, None if express is None else self)
        if payloads is None:
            if self._run is not None:
                await self._run.end(self.result)
            return None
        self.silent = not payloads
        return self._read(payloads) if payloads else []

    def _read(self, payloads: list[bytes]) -> list[Any]:
        payload = payloads[0] if len(payloads) == 1 else b"".join(payloads)
        if self._run is not None:
            self._run.saw(payload)
        return self.reader.feed(payload)

    @property
    def ready(self) -> bool:
        """Whether the client takes more; see `ccd_client.Sink`."""
        return self._express is not None and self._express.outlet.ready

    def take(self, payloads: list[bytes]) -> None:
        """Pass on what came, past the task that waits for it; see `ccd_client.Sink`."""
        if self._express is not None and (made := self._express.made(self._read(payloads))):
            self._express.outlet.write(made)

    def close(self) -> None:
        """Cancel the turn unless it has ended; once is enough, more does no harm."""
        link, self._link = self._link, None
        if link is not None:
            link.open_calls -= 1
            self._stream.cancel("the HTTP request is over")
            if self._run is not None:
                self._run.cut()
