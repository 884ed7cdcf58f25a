"""A stand-in for the daemon: CCDP on a Unix socket from a thread, with one scripted function per method."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ccd_protocol.errors import Code, RpcError
from ccd_protocol.peer import Called, Cancelled, Closed, Credited, Peer

RESULT = {
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "model": "claude-mock-1",
    "usage": {
        "input_tokens": 5,
        "output_tokens": 7,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 3,
    },
    "cost_usd": 0.0,
    "duration_ms": 5,
    "api_calls": 1,
    "worker": "w1",
    "mode": "full",
    "ignored": [],
}
MODELS = {
    "models": [
        {"id": "claude-sonnet-5-20260115", "alias": "sonnet", "display_name": "Sonnet 5"},
        {"id": "vendor/claude-x", "alias": None, "display_name": "X"},
    ],
    "profiles": ["chat", "agent"],
    "default": "claude-sonnet-5-20260115",
    "of_profiles": {
        "chat": {"model": None, "fallback_model": None},
        "agent": {"model": None, "fallback_model": None},
    },
}
CONVERSATION = {
    "id": "mine",
    "created_at": 1767225600.25,
    "updated_at": 1767225601.5,
    "message_count": 4,
    "total_tokens": 77,
    "metadata": {"model": "sonnet"},
}
CACHE = {"enabled": False, "total_entries": 0, "total_hits": 0, "total_bytes": 0}
SESSION = {
    "session_id": "s1",
    "state": {
        "session_id": "s1",
        "cli_session_id": None,
        "model": "claude-mock-1",
        "cwd": "/srv/a",
        "tools": [],
        "permission_mode": "default",
        "claude_code_version": "2.1.330",
        "mcp_servers": [],
        "total_cost_usd": 0.5,
        "num_turns": 0,
        "is_compacting": False,
    },
    "connected_clients": 0,
    "cli_connected": True,
    "pending_permissions": 0,
}
HEALTHY = {"ready": True, "state": "ready", "reason": None, "version": "0.1.0", "cli_version": "2.1.330"}


def line(event: dict[str, Any], **more: Any) -> bytes:
    """One `stream_event` line as the CLI writes it."""
    body = {"type": "stream_event", "event": event, "session_id": "s", "parent_tool_use_id": None, **more}
    return json.dumps(body, ensure_ascii=False).encode() + b"\n"


def start(message_id: str = "msg_1") -> bytes:
    return line({"type": "message_start", "message": {"id": message_id, "role": "assistant", "content": []}})


def stop(index: int) -> bytes:
    return line({"type": "content_block_stop", "index": index})


def whole(message_id: str, block: dict[str, Any]) -> bytes:
    """An `assistant` line: a block of a message as the CLI repeats it, or brings it at once."""
    message = {"id": message_id, "role": "assistant", "content": [block]}
    return json.dumps({"type": "assistant", "message": message, "parent_tool_use_id": None}).encode() + b"\n"


def call(index: int, call_id: str, name: str, *pieces: str) -> bytes:
    """A tool call whose arguments come in these pieces of JSON."""
    block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    events: list[dict[str, Any]] = [{"type": "content_block_start", "index": index, "content_block": block}]
    events += [
        {
            "type": "content_block_delta",
            "index": index,
            "delta": {"type": "input_json_delta", "partial_json": piece},
        }
        for piece in pieces
    ]
    return b"".join(line(event) for event in events) + stop(index)


def text(piece: str) -> bytes:
    delta = {"type": "text_delta", "text": piece}
    return line({"type": "content_block_delta", "index": 0, "delta": delta})


def thinking(piece: str) -> bytes:
    delta = {"type": "thinking_delta", "thinking": piece}
    return line({"type": "content_block_delta", "index": 0, "delta": delta})


class Call:
    """One call that a script answers."""

    def __init__(self, connection: _Connection, called: Called) -> None:
        self.method, self.params, self.window = called.method, called.params, called.window
        self.cancelled = asyncio.Event()
        self._id = called.id
        self._connection = connection
        self._writable = asyncio.Event()
        self._writable.set()

    async def send(self, payload: bytes) -> None:
        await self._writable.wait()
        if self._connection.peer.item(self._id, payload) <= 0:
            self._writable.clear()
        self._connection.flush()

    def credited(self) -> None:
        self._writable.set()

    def drop_connection(self) -> None:
        self._connection.transport.abort()

    def finish(self, result: Any, error: RpcError | None) -> None:
        if error is None:
            self._connection.peer.end(self._id, result)
        else:
            self._connection.peer.fail(self._id, error.code, error.message, error.data)
        self._connection.flush()


class Gate:
    """Opened by the test's thread, passed on the stand-in's loop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        self._event.set()

    async def passed(self) -> None:
        assert await asyncio.to_thread(self._event.wait, 20)


Script = Callable[[Call], Awaitable[Any]]


class _Connection(asyncio.Protocol):
    def __init__(self, daemon: Daemon) -> None:
        self.peer = Peer("accepting", "stand-in/1")
        self._daemon = daemon
        self._calls: dict[int, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._daemon.connections.add(self)
        self.flush()

    def flush(self) -> None:
        self.transport.writelines(self.peer.outgoing())

    def data_received(self, data: bytes) -> None:
        for event in self.peer.receive(data):
            self._on_event(event)
        self.flush()

    def _on_event(self, event: Any) -> None:
        if isinstance(event, Called):
            call = self._calls[event.id] = Call(self, event)
            task = asyncio.ensure_future(self._daemon.serve(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif isinstance(event, Cancelled):
            self._daemon.cancelled.append(self._calls[event.id].method)
            self._daemon.cancellations.release()
            self._calls[event.id].cancelled.set()
        elif isinstance(event, Credited):
            self._calls[event.id].credited()
        elif isinstance(event, Closed):
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._daemon.connections.discard(self)
        for event in self.peer.lost():
            self._on_event(event)


async def _cancelled_error(call: Call) -> None:
    await call.cancelled.wait()
    raise RpcError(Code.CANCELLED)


class Daemon:
    """Use as a context manager. `scripts` may be changed at any time; `calls` is what came, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: list[str] = []
        self.cancellations = threading.Semaphore(0)
        self.arrivals = threading.Semaphore(0)
        self.connections: set[_Connection] = set()
        self.scripts: dict[str, Script] = {}
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Daemon:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *args: object) -> None:
        self.vanish()
        self.run(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def run(self, work: Any) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(10)

    def listen(self) -> None:
        self.run(self._listen())

    def vanish(self) -> None:
        """Stop listening and cut every connection, as a killed daemon does."""
        self.run(self._vanish())

    def chat(self, *payloads: bytes, **result: Any) -> None:
        """Answer chats with these payloads and this result."""

        async def streamed(call: Call) -> Any:
            for payload in payloads:
                await call.send(payload)
            return {**RESULT, **result}

        async def whole(call: Call) -> Any:
            answer = {"content": [{"type": "text", "text": "whole"}], "text": "whole"}
            return {**RESULT, **answer, **result}

        self.scripts["chat.stream"], self.scripts["chat.complete"] = streamed, whole

    def fail(self, code: Code, message: str = "", **data: Any) -> None:
        """Fail every chat."""

        async def failing(call: Call) -> Any:
            raise RpcError(code, message, data)

        self.scripts["chat.stream"] = self.scripts["chat.complete"] = failing

    def hang(self) -> None:
        """Never answer a chat, until it is cancelled."""
        self.scripts["chat.stream"] = self.scripts["chat.complete"] = _cancelled_error

    async def serve(self, call: Call) -> None:
        self.calls.append((call.method, call.params))
        self.arrivals.release()
        script = self.scripts.get(call.method, self._default)
        try:
            result, error = await script(call), None
        except RpcError as failed:
            result, error = None, failed
        call.finish(result, error)

    @staticmethod
    async def _default(call: Call) -> Any:
        answers = {
            "daemon.ping": {"pid": 1, "version": "0"},
            "daemon.health": HEALTHY,
            "model.list": MODELS,
            "conversation.create": CONVERSATION,
            "conversation.get": CONVERSATION,
            "conversation.list": {"conversations": [CONVERSATION]},
            "conversation.delete": {},
            "cache.stats": CACHE,
            "session.open": SESSION,
            "session.get": SESSION,
            "session.list": {"sessions": [SESSION]},
            "session.close": {},
            "session.send": {},
            "session.answer": {},
            "session.interrupt": {"interrupted": True},
            "session.set_model": SESSION,
            "session.set_permission_mode": SESSION,
        }
        if call.method not in answers:
            raise RpcError(Code.NO_METHOD)
        return answers[call.method]

    async def _listen(self) -> None:
        self._server = await self._loop.create_unix_server(lambda: _Connection(self), str(self.path))

    async def _vanish(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink(missing_ok=True)
        for connection in list(self.connections):
            connection.transport.abort()

    async def _end_tasks(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
