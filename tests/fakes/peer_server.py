"""A small CCDP/1 server for the tests of the clients: asyncio in a thread, over a real Unix socket.

It serves what a test needs to happen (`_METHODS`) and remembers what it saw (`calls`, `cancelled`,
`connections`).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ccd_protocol.errors import Code
from ccd_protocol.frames import Limits
from ccd_protocol.methods import METHODS
from ccd_protocol.peer import Called, CallFailed, Cancelled, Credited, Ended, Peer


class PeerServer:
    """Use as a context manager; `path` is its socket."""

    def __init__(self, path: Path, *, limits: Limits | None = None, refuse_first: int = 0) -> None:
        self.path = path
        self.limits = limits or Limits()
        self.refuse_first = refuse_first  # so many connections are closed before HELLO
        self.connections = 0
        self.calls: list[Called] = []
        self.cancelled: list[int] = []
        self.sent_bytes = 0  # of ITEM payload
        self.most_held = 0
        self.results: dict[str, Any] = {}  # of methods of the catalogue, where a test gives them
        self._held: list[asyncio.Future[None]] = []
        self._changed = threading.Condition()
        self._live: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._server: asyncio.AbstractServer | None = None

    def __enter__(self) -> PeerServer:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.run(self._listen())
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def run(self, work: Awaitable[Any]) -> Any:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def stop(self) -> None:
        """Stop listening and drop every connection, as a killed daemon does."""
        self.run(self._stop())

    def start(self) -> None:
        """Listen again."""
        self.run(self._listen())

    def drop(self) -> None:
        """Drop every connection and go on listening."""
        self.run(self._drop())

    def goaway(self, message: str) -> None:
        """Tell every connection that the server leaves."""

        async def work() -> None:
            for connection in list(self._live):
                connection.peer.goaway(Code.DRAINING, message)
                connection.flush()

        self.run(work())

    async def hold(self, together: int) -> None:
        """Hold a call back until so many are held, and remember how many were."""
        self._held.append(asyncio.get_running_loop().create_future())
        self.most_held = max(self.most_held, len(self._held))
        mine = self._held[-1]
        if len(self._held) == together:
            for held in self._held:
                held.set_result(None)
        await mine
        self._held.remove(mine)

    def noted(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until what the server saw satisfies a condition."""
        with self._changed:
            assert self._changed.wait_for(condition, 10), "the server did not see it"

    async def _listen(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        self.path.unlink(missing_ok=True)
        sock.bind(os.fspath(self.path))
        self._server = await self._loop.create_unix_server(lambda: _Connection(self), sock=sock)

    async def _drop(self) -> None:
        for connection in list(self._live):
            connection.transport.abort()
            await connection.gone

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink(missing_ok=True)
        await self._drop()


class _Connection(asyncio.Protocol):
    def __init__(self, server: PeerServer) -> None:
        self.server = server
        self.peer = Peer("accepting", "peer-server/1", limits=server.limits)
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.begun: set[int] = set()
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.connections += 1
        if self.server.refuse_first > 0:
            self.server.refuse_first -= 1
            transport.close()
            return
        self.server._live.add(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.peer.receive(data):
            self.on(event)
        self.flush()
        if self.peer.closed:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        for event in self.peer.lost():
            self.on(event)
        for task in self.tasks.values():
            task.cancel()
        self.server._live.discard(self)
        if not self.gone.done():
            self.gone.set_result(None)
        self.server.noted()

    def flush(self) -> None:
        self.transport.writelines(self.peer.outgoing())

    def on(self, event: Any) -> None:
        match event:
            case Called():
                self.server.calls.append(event)
                self.tasks[event.id] = asyncio.get_running_loop().create_task(self.serve(event))
            case Cancelled():
                self.server.cancelled.append(event.id)
                if event.id in self.begun:
                    self.tasks[event.id].cancel()
                else:  # a task that is cancelled before its first step never runs
                    self.tasks.pop(event.id).cancel()
                    self.peer.fail(event.id, Code.CANCELLED)
            case Credited() | Ended() | CallFailed():
                if not self.waiting.get(event.id, self.gone).done():
                    self.waiting.pop(event.id).set_result(event)
        self.server.noted()

    async def serve(self, called: Called) -> None:
        self.begun.add(called.id)
        method = _METHODS.get(called.method)
        try:
            if method is None:
                self.peer.fail(called.id, Code.NO_METHOD, f"no method {called.method}")
            else:
                self.peer.end(called.id, await method(self, called))
        except asyncio.CancelledError:
            self.peer.fail(called.id, Code.CANCELLED)
        except _Failure as failure:
            self.peer.fail(called.id, *failure.args)
        finally:
            self.tasks.pop(called.id, None)
        if not self.transport.is_closing():
            self.flush()

    async def next_event(self, call_id: int) -> Any:
        self.flush()
        self.waiting[call_id] = asyncio.get_running_loop().create_future()
        return await self.waiting[call_id]

    async def send(self, called: Called, payload: bytes) -> None:
        left = self.peer.item(called.id, payload)
        self.server.sent_bytes += len(payload)
        self.flush()
        self.server.noted()
        if left <= 0:
            await self.next_event(called.id)


class _Failure(Exception):
    """What a method fails with."""


async def _echo(connection: _Connection, called: Called) -> Any:
    return called.params


async def _ping(connection: _Connection, called: Called) -> Any:
    return {"pid": os.getpid(), "version": "0"}


async def _stream(connection: _Connection, called: Called) -> Any:
    """`count` payloads of `size` bytes each."""
    for index in range(called.params["count"]):
        await connection.send(called, bytes([index % 256]) * called.params["size"])
    return {"count": called.params["count"]}


async def _payloads(connection: _Connection, called: Called) -> Any:
    for payload in called.params["payloads"]:
        await connection.send(called, payload)
    return called.params.get("result")


async def _stall(connection: _Connection, called: Called) -> Any:
    """Sends `first` and is then silent."""
    if called.params.get("first"):
        await connection.send(called, called.params["first"])
    await asyncio.shield(connection.gone)


async def _stubborn(connection: _Connection, called: Called) -> Any:
    """Does not answer, even when it is cancelled; nor does it keep its deadline."""
    while not connection.gone.done():
        try:
            await asyncio.shield(connection.gone)
        except asyncio.CancelledError:
            continue


async def _fail(connection: _Connection, called: Called) -> Any:
    for payload in called.params.get("payloads", []):
        await connection.send(called, payload)
    raise _Failure(called.params["code"], called.params["message"], called.params.get("data"))


async def _drop(connection: _Connection, called: Called) -> Any:
    """Sends `first`, then the connection breaks."""
    if called.params.get("first"):
        await connection.send(called, called.params["first"])
    connection.transport.close()


async def _garbage(connection: _Connection, called: Called) -> Any:
    connection.transport.write(b"\xc1\xc1\xc1")


async def _ask(connection: _Connection, called: Called) -> Any:
    """Calls back `ask` with `params`, and ends with what came of it."""
    child = connection.peer.call(called.params["ask"], called.params["params"], parent=called.id)
    answer = await connection.next_event(child)
    if isinstance(answer, Ended):
        return {"ended": answer.result}
    return {"failed": [int(answer.code), answer.message, dict(answer.data)]}


async def _ask_and_cancel(connection: _Connection, called: Called) -> Any:
    """Calls back `ask` twice: the first is cancelled once the second was answered."""
    first = connection.peer.call(called.params["ask"], {"n": 1}, parent=called.id)
    second = connection.peer.call("begun", {}, parent=called.id)
    await connection.next_event(second)
    connection.peer.cancel(first, "not needed")
    answer = await connection.next_event(first)
    return [type(answer).__name__, int(getattr(answer, "code", 0))]


async def _slow_echo(connection: _Connection, called: Called) -> Any:
    await asyncio.sleep(called.params["delay_s"])
    return called.params


def lines(*texts: str) -> bytes:
    """CLI lines of an answer that consists of these deltas."""
    start = {"type": "message_start", "message": {"id": "msg_1", "model": "claude-x"}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    events: list[dict[str, Any]] = [start, block]
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in texts
    ]
    events.append({"type": "content_block_stop", "index": 0})
    whole = [{"type": "stream_event", "event": event, "parent_tool_use_id": None} for event in events]
    return b"".join(json.dumps(line).encode() + b"\n" for line in whole)


CHAT_RESULT = {
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "model": "claude-x",
    "usage": {"input_tokens": 3, "output_tokens": 2},
    "cost_usd": 0.0,
    "duration_ms": 1,
    "api_calls": 1,
    "worker": "w1",
    "mode": "full",
    "ignored": [],
}


def _said(called: Called) -> str:
    content = called.params["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[0].get("text", ""))


async def _chat_stream(connection: _Connection, called: Called) -> Any:
    """Echoes the last message, a word per delta, cut into payloads at odd places."""
    await _busy_at_first(connection, called, _said(called))
    whole = lines(*re.findall(r"\S+\s*", _said(called)))
    for start in range(0, len(whole), 97):
        await connection.send(called, whole[start : start + 97])
    return CHAT_RESULT


async def _chat_complete(connection: _Connection, called: Called) -> Any:
    """Echoes the last message: "hold…" only when three are held, "…stuck" never, "busy" at the second attempt."""
    text = _said(called)
    await _busy_at_first(connection, called, text)
    if text.startswith("hold"):
        await connection.server.hold(3)
    if text.endswith("stuck"):
        await asyncio.shield(connection.gone)
    return {**CHAT_RESULT, "content": [{"type": "text", "text": text}], "text": text}


async def _busy_at_first(connection: _Connection, called: Called, text: str) -> None:
    if text.startswith("busy") and sum(_said(other) == text for other in connection.server.calls) == 1:
        raise _Failure(Code.BUSY, "full", {"retry_after_ms": 10})


async def _known(connection: _Connection, called: Called) -> Any:
    """A method of the catalogue: what a typed call looks for in its result, and what it was asked with."""
    if called.method in connection.server.results:
        return connection.server.results[called.method]
    return {
        **called.params,
        "asked": called.method,
        "session_id": "s1",
        "interrupted": True,
        **{kind: [{"id": "n", "asked": called.method}] for kind in ("conversations", "messages", "sessions")},
    }


async def _attach(connection: _Connection, called: Called) -> Any:
    """Two lines, cut in the middle of the second."""
    for payload in (b'{"type":"state"}\n{"ty', b'pe":"past"}\n'):
        await connection.send(called, payload)
    return {"reason": "closed"}


_METHODS: dict[str, Callable[[_Connection, Called], Awaitable[Any]]] = {
    **dict.fromkeys(METHODS, _known),
    "session.attach": _attach,
    "ask": _ask,
    "ask_and_cancel": _ask_and_cancel,
    "chat.complete": _chat_complete,
    "chat.stream": _chat_stream,
    "daemon.ping": _ping,
    "drop": _drop,
    "echo": _echo,
    "fail": _fail,
    "garbage": _garbage,
    "payloads": _payloads,
    "slow_echo": _slow_echo,
    "stall": _stall,
    "stream": _stream,
    "stubborn": _stubborn,
}
