"""The gateway's side of the socket: calls to the daemon, over as few connections as their number allows.

A daemon that restarts is waited for: a call that was lost or refused by a daemon that goes away is sent
once more, as long as nothing of its answer was used. A daemon that is not there is reported within a
second, unless somebody is known to start it again.

Not here: queueing and choosing a process, which are the daemon's. A connection for each request would be simpler, but a
thousand streams would be a thousand sockets with a handshake each; the protocol carries 256 calls on one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from ccd_client import AsyncClient, AsyncStream
from ccd_gateway.access.caller import Caller, current_caller
from ccd_gateway.access.metering import Books, MeteredAnswer, begin
from ccd_gateway.access.permission import Known, permitted
from ccd_gateway.answer.lines import LineReader
from ccd_gateway.answer.turn import ChatTurn, DaemonLink, PieceReader
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatAnswer, ChatParams, ModelsResult

_CALLS_PER_CONNECTION = 240  # the daemon takes 256
_REFUSED_S = 0.8  # a daemon that nobody reached for this time counts as down
_PROBE_EVERY_S = 0.05
_PROBE_TIMEOUT_S = 2.0
_WINDOW_BYTES = 262144
_KNOWN_FOR_S = 5.0  # how long the daemon's list of models and profiles is believed
_RESENDABLE = frozenset({Code.LOST, Code.DRAINING})


class Backend:
    """Calls to one daemon, for one worker process. Nothing is opened before the first call.

    Args:
        socket: the daemon's socket.
        max_calls: calls that may be open at a time.
        timeout_s: deadline of a chat.
        reconnect_wait_s: how long to wait for a daemon that goes away to come back.
        supervised: it does come back, so it is waited for also while nobody listens.
        books: where calls of callers with a key are admitted and booked.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str],
        *,
        max_calls: int,
        timeout_s: float,
        reconnect_wait_s: float,
        supervised: bool = False,
        books: Books,
    ) -> None:
        self._socket = socket
        self._links: list[DaemonLink] = []
        self._max_links = max(1, -(-max_calls // _CALLS_PER_CONNECTION))
        self._timeout_s = timeout_s
        self._reconnect_wait_s = reconnect_wait_s
        self._refused_s = reconnect_wait_s if supervised else min(reconnect_wait_s, _REFUSED_S)
        self._books = books
        self._known: Known | None = None
        self._known_until_s = 0.0

    async def call(self, method: str, params: Any = None, *, timeout_s: float | None = None) -> Any:
        """A unary call; sent once more when the daemon was lost.

        Raises:
            RpcError: whatever the daemon says; LOST when it cannot be reached.
        """
        try:
            return await self.call_once(method, params, timeout_s=timeout_s)
        except RpcError as error:
            await self._wait_after(error)
        return await self.call_once(method, params, timeout_s=timeout_s)

    async def call_once(self, method: str, params: Any = None, *, timeout_s: float | None = None) -> Any:
        """A unary call that fails at once when the daemon cannot be reached."""
        with self._link() as link:
            return await link.client.call(method, params, timeout_s=timeout_s or self._timeout_s)

    async def complete(self, params: ChatParams) -> ChatAnswer:
        """`chat.complete`; cancelling the caller cancels the turn."""
        params, run = await self._admitted(params)
        call = self.call("chat.complete", params)
        return cast(ChatAnswer, await call) if run is None else await run.whole(call)

    async def start(
        self, params: ChatParams, silence_s: float, reader: Callable[[], PieceReader] = LineReader
    ) -> ChatTurn:
        """Open `chat.stream` and wait until the answer begins, ends, or has been silent for `silence_s`.

        Raises:
            RpcError: the call failed before its answer began.
        """
        try:
            return await self._start_once(params, silence_s, reader)
        except RpcError as error:
            await self._wait_after(error)
        return await self._start_once(params, silence_s, reader)

    @asynccontextmanager
    async def stream(self, method: str, params: Any) -> AsyncIterator[AsyncStream]:
        """Any other stream, open within the block, for as long as it takes.

        Raises:
            RpcError: whatever the daemon says; LOST when it cannot be reached.
        """
        with self._link() as link:
            async with link.client.call_stream(method, params, window_bytes=_WINDOW_BYTES) as stream:
                yield stream

    async def admit(self, caller: Caller, params: ChatParams) -> MeteredAnswer | None:
        """Admit an answer that is not asked for by `chat.*`; None without a key.

        Raises:
            RpcError: UPSTREAM_LIMIT or BUDGET; STORAGE.
        """
        return await begin(self._books, caller, caller.key, params) if caller.key is not None else None

    async def permit(self, params: ChatParams) -> ChatParams:
        """A call as its caller may make it, with profile and model spelt out where it has a key.

        Raises:
            RpcError: MODEL_NOT_FOUND.
        """
        key = current_caller().key
        return params if key is None else permitted(key, params, await self.known())

    async def known(self) -> Known:
        """The models and profiles that the daemon has, as they were a moment ago.

        Raises:
            RpcError: the daemon cannot be asked.
        """
        now_s = asyncio.get_running_loop().time()
        if self._known is None or now_s >= self._known_until_s:
            found: ModelsResult = await self.call("model.list")
            self._known, self._known_until_s = Known.of(found), now_s + _KNOWN_FOR_S
        return self._known

    async def close(self) -> None:
        """Close the connections."""
        links, self._links = self._links, []
        for link in links:
            await link.client.close()
        self._books.close()

    async def _admitted(self, params: ChatParams) -> tuple[ChatParams, MeteredAnswer | None]:
        """The call as its caller may make it, and the run that it is booked on; None without a key."""
        caller = current_caller()
        if caller.key is None:
            return params, None
        params = permitted(caller.key, params, await self.known())
        return params, await begin(self._books, caller, caller.key, params)

    async def _start_once(
        self, params: ChatParams, silence_s: float, reader: Callable[[], PieceReader]
    ) -> ChatTurn:
        params, run = await self._admitted(params)
        link = self._link()
        stream = link.client.call_stream(
            "chat.stream", params, timeout_s=self._timeout_s, window_bytes=_WINDOW_BYTES
        )
        turn = ChatTurn(stream, link, reader(), run)
        try:
            await turn.begin(silence_s)
        except BaseException:
            turn.close()
            raise
        return turn

    def _link(self) -> DaemonLink:
        """The connection to use next: the fullest that has room, so that a few do for most loads."""
        link = next((link for link in self._links if link.open_calls < _CALLS_PER_CONNECTION), None)
        if link is None and len(self._links) < self._max_links:
            link = DaemonLink(AsyncClient(self._socket, reconnect_wait_s=0))
            self._links.append(link)
        return link or min(self._links, key=lambda link: link.open_calls)

    async def _wait_after(self, error: RpcError) -> None:
        """Return when the daemon can be reached again; raise `error` when it cannot, or is not about that."""
        if error.code not in _RESENDABLE or error.data.get("output_started"):
            raise error
        loop = asyncio.get_running_loop()
        refused_since = now = loop.time()
        until = now + self._reconnect_wait_s
        while now < until:
            state = await self._probe(min(_PROBE_TIMEOUT_S, until - now))
            if state is None:
                return
            now = loop.time()
            if state is not Code.LOST:
                refused_since = now
            elif now - refused_since >= self._refused_s:
                break
            await asyncio.sleep(_PROBE_EVERY_S)
            now = loop.time()
        raise error

    async def _probe(self, timeout_s: float) -> Code | None:
        """None when the daemon takes calls, else why not."""
        try:
            await self.call_once("daemon.ping", timeout_s=timeout_s)
        except RpcError as error:
            return error.code
        return None
