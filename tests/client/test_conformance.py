"""One suite for the three clients, against a small server over a real Unix socket.

Each test is written once, blocking; `Driver` runs an asynchronous client's coroutines in a loop of its own
thread.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest
import trio

from ccd_client import AsyncClient, Client, Code, RpcError, TrioClient
from ccd_client.events import Started, TextDelta
from ccd_protocol.frames import Limits
from ccd_protocol.methods import METHODS
from fakes.peer_server import CHAT_RESULT, PeerServer


class SyncDriver:
    """The blocking client as it is."""

    kind = "sync"

    def __init__(self, path: Path, **options: Any) -> None:
        self.client = Client(path, **options)

    def close(self) -> None:
        self.client.close()

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.client.call(*args, **kwargs)

    def chat(self, *args: Any, **kwargs: Any) -> Any:
        return self.client.chat(*args, **kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        return self.client.call_stream(*args, **kwargs)

    def next(self, stream: Any) -> Any:
        return next(stream, None)

    def drain(self, stream: Any) -> list[Any]:
        return list(stream)

    def batch(self, *args: Any, **kwargs: Any) -> Any:
        return self.client.batch(*args, **kwargs)

    def close_client(self) -> None:
        self.client.close()

    def text(self, *args: Any, **kwargs: Any) -> Any:
        return self.client.stream(*args, **kwargs)

    def do(self, work: Callable[[Any], Any]) -> Any:
        """What comes of a call that is made of the client."""
        return work(self.client)

    def leave_early(self, stream: Any) -> None:
        with stream:
            next(stream)

    def close_stream(self, stream: Any) -> None:
        stream.close()

    def settle(self) -> None:
        self.client.call("echo")  # a blocking client works only while it is used


class AsyncDriver:
    """An asynchronous client, its loop in a thread."""

    cls: type = AsyncClient

    def __init__(self, path: Path, **options: Any) -> None:
        self.started: Future[None] = Future()
        self.thread = threading.Thread(target=self.main, args=(path, options))
        self.thread.start()
        self.started.result(10)

    def main(self, path: Path, options: Any) -> None:
        asyncio.run(self.amain(path, options))

    async def amain(self, path: Path, options: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()
        async with self.cls(path, **options) as client:
            self.client = client
            self.started.set_result(None)
            await self.stop.wait()

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(function(*args), self.loop).result(20)

    def run_and_cancel(self, function: Callable[..., Awaitable[Any]], when: Callable[[], None]) -> None:
        task = asyncio.run_coroutine_threadsafe(function(), self.loop)
        when()
        task.cancel()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)
        assert not self.thread.is_alive()

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(lambda: self.client.call(*args, **kwargs))

    def chat(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(lambda: self.client.chat(*args, **kwargs))

    def batch(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(lambda: self.client.batch(*args, **kwargs))

    def next_within(self, stream: Any, wait_s: float, *sink: Any) -> Any:
        return self.run(stream.next_within, wait_s, *sink)

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        async def opened() -> Any:
            return await self.client.call_stream(*args, **kwargs)

        return self.run(opened)

    def next(self, stream: Any) -> Any:
        async def work() -> Any:
            return await anext(stream, None)

        return self.run(work)

    def drain(self, stream: Any) -> list[Any]:
        async def work() -> list[Any]:
            return [item async for item in stream]

        return self.run(work)

    def close_client(self) -> None:
        self.run(self.client.close)

    def text(self, *args: Any, **kwargs: Any) -> Any:
        return self.client.stream(*args, **kwargs)

    def do(self, work: Callable[[Any], Any]) -> Any:
        """What comes of a call that is made of the client."""
        return self.run(lambda: work(self.client))

    def leave_early(self, stream: Any) -> None:
        async def work() -> None:
            async with stream:
                await anext(stream)

        self.run(work)

    def close_stream(self, stream: Any) -> None:
        self.run(stream.close)

    def settle(self) -> None:
        """Nothing to do: an event loop notices by itself."""


class AsyncioDriver(AsyncDriver):
    kind = "asyncio"


class UvloopDriver(AsyncDriver):
    kind = "uvloop"

    def main(self, path: Path, options: Any) -> None:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self.amain(path, options))


class TrioDriver(AsyncDriver):
    kind = "trio"

    def main(self, path: Path, options: Any) -> None:
        async def main() -> None:
            self.token = trio.lowlevel.current_trio_token()
            self.stop = trio.Event()
            async with TrioClient(path, **options) as client:
                self.client = client
                self.started.set_result(None)
                await self.stop.wait()

        trio.run(main)

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return trio.from_thread.run(function, *args, trio_token=self.token)

    def run_and_cancel(self, function: Callable[..., Awaitable[Any]], when: Callable[[], None]) -> None:
        async def work() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(function)
                await trio.to_thread.run_sync(when)
                nursery.cancel_scope.cancel()

        self.run(work)

    def close(self) -> None:
        self.token.run_sync_soon(self.stop.set)
        self.thread.join(10)
        assert not self.thread.is_alive()


ASYNC_DRIVERS = [AsyncioDriver, UvloopDriver, TrioDriver]
DRIVERS = [SyncDriver, *ASYNC_DRIVERS]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PeerServer]:
    with PeerServer(tmp_path / "s") as server:
        yield server


@pytest.fixture(params=DRIVERS, ids=lambda cls: cls.kind)
def driver_cls(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def driver(driver_cls: Any, server: PeerServer) -> Iterator[Any]:
    driver = driver_cls(server.path)
    yield driver
    driver.close()


@pytest.fixture(params=ASYNC_DRIVERS, ids=lambda cls: cls.kind)
def async_driver(request: pytest.FixtureRequest, server: PeerServer) -> Iterator[Any]:
    driver = request.param(server.path)
    yield driver
    driver.close()


def failed(code: Code, function: Callable[..., Any], *args: Any, **kwargs: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        function(*args, **kwargs)
    assert caught.value.code is code
    return caught.value


def test_call_carries_every_kind_of_value(driver: Any) -> None:
    params = {"none": None, "yes": True, "int": -(2**40), "float": 0.5, "text": "äöü😀", "bytes": b"\x00\xff"}
    params |= {"list": [1, [2, {"deep": []}]], "map": {"": {}}}
    assert driver.call("echo", params) == params


def test_calls_share_one_connection_and_ids_are_not_reused(driver: Any, server: PeerServer) -> None:
    for _ in range(5):
        driver.call("echo")
    assert server.connections == 1
    assert [called.id for called in server.calls] == [1, 3, 5, 7, 9]


def test_a_large_call_and_answer(driver: Any) -> None:
    text = "x" * 20_000_000
    assert driver.call("echo", {"text": text}) == {"text": text}


def test_failure_has_code_message_and_data(driver: Any) -> None:
    params = {"code": int(Code.BUSY), "message": "full", "data": {"retry_after_ms": 7}}
    error = failed(Code.BUSY, driver.call, "fail", params)
    assert (error.message, error.retry_after_ms, error.retryable) == ("full", 7, True)


def test_unknown_code_counts_as_internal(driver: Any) -> None:
    failed(Code.INTERNAL, driver.call, "fail", {"code": 4000, "message": "new"})


def test_unknown_method(driver: Any) -> None:
    failed(Code.NO_METHOD, driver.call, "no.such")


def test_stream_yields_payloads_in_order_and_then_the_result(driver: Any) -> None:
    stream = driver.stream("payloads", {"payloads": [b"a", b"bc", b"d" * 70_000], "result": {"r": 1}})
    assert driver.drain(stream) == [b"a", b"bc", b"d" * 70_000]
    assert stream.result == {"r": 1}


def test_result_before_the_end_is_refused(driver: Any) -> None:
    stream = driver.stream("stall")
    with pytest.raises(RuntimeError, match="has not ended"):
        _ = stream.result
    driver.close_stream(stream)


def test_stream_that_fails_yields_first_what_came_first(driver: Any) -> None:
    params = {"payloads": [b"one"], "code": int(Code.UPSTREAM_ERROR), "message": "cut"}
    stream = driver.stream("fail", params)
    assert driver.next(stream) == b"one"
    failed(Code.UPSTREAM_ERROR, driver.next, stream)
    failed(Code.UPSTREAM_ERROR, lambda: stream.result)


def test_backpressure_stops_the_daemon_until_the_application_takes(driver: Any, server: PeerServer) -> None:
    stream = driver.stream("stream", {"count": 100, "size": 10_000}, window_bytes=50_000)
    server.wait_for(lambda: server.sent_bytes == 50_000)
    driver.call("echo")  # a round trip later it still has not sent more
    assert server.sent_bytes == 50_000
    for _ in range(3):
        assert len(driver.next(stream)) == 10_000
    server.wait_for(lambda: server.sent_bytes > 50_000)
    assert server.sent_bytes <= 90_000
    assert sum(map(len, driver.drain(stream))) == 970_000
    assert stream.result == {"count": 100}


def test_payload_larger_than_the_window_and_the_largest_frame(driver_cls: Any, tmp_path: Path) -> None:
    with PeerServer(tmp_path / "s") as server:
        driver = driver_cls(server.path)
        stream = driver.stream("stream", {"count": 2, "size": 70 << 20}, window_bytes=1000)
        assert sum(map(len, driver.drain(stream))) == 140 << 20
        driver.close()


def test_cancel_stops_the_stream_and_keeps_the_connection(driver: Any, server: PeerServer) -> None:
    stream = driver.stream("stall", {"first": b"x"})
    assert driver.next(stream) == b"x"
    driver.close_stream(stream)
    server.wait_for(lambda: server.cancelled == [1])
    failed(Code.CANCELLED, driver.next, stream)
    assert driver.call("echo", {"still": 1}) == {"still": 1}
    assert server.connections == 1


def test_leaving_the_block_early_cancels(driver: Any, server: PeerServer) -> None:
    driver.leave_early(driver.stream("stream", {"count": 100, "size": 1000}, window_bytes=2000))
    server.wait_for(lambda: server.cancelled == [1])
    assert driver.call("echo") == {}


def test_dropping_a_stream_cancels(driver: Any, server: PeerServer) -> None:
    stream = driver.stream("stall")
    server.wait_for(lambda: len(server.calls) == 1)
    del stream
    gc.collect()
    driver.settle()
    server.wait_for(lambda: server.cancelled == [1])


def test_cancelled_task_cancels_the_call(async_driver: Any, server: PeerServer) -> None:
    async_driver.run_and_cancel(
        lambda: async_driver.client.call("stall"), lambda: server.wait_for(lambda: len(server.calls) == 1)
    )
    server.wait_for(lambda: server.cancelled == [1])
    assert async_driver.call("echo") == {}


def test_cancelled_task_cancels_its_stream(async_driver: Any, server: PeerServer) -> None:
    async def iterate() -> None:
        async for _ in async_driver.client.call_stream("stall"):
            pass

    async_driver.run_and_cancel(iterate, lambda: server.wait_for(lambda: len(server.calls) == 1))
    server.wait_for(lambda: server.cancelled == [1])
    assert async_driver.call("echo") == {}


def test_timeout_is_told_to_the_daemon(driver: Any, server: PeerServer) -> None:
    driver.call("echo", timeout_s=1.5)
    driver.drain(driver.stream("payloads", {"payloads": []}, timeout_s=2.25))
    assert [called.timeout_ms for called in server.calls] == [1500, 2250]


def test_default_timeout(driver_cls: Any, server: PeerServer) -> None:
    driver = driver_cls(server.path, timeout_s=3)
    driver.call("echo")
    driver.call("echo", timeout_s=1)
    driver.close()
    assert [called.timeout_ms for called in server.calls] == [3000, 1000]


def test_guard_ends_a_call_that_the_daemon_does_not(driver: Any, server: PeerServer) -> None:
    started_s = time.monotonic()
    failed(Code.DEADLINE, driver.call, "stubborn", timeout_s=0.05)
    assert 0.05 <= time.monotonic() - started_s < 5
    server.wait_for(lambda: server.cancelled == [1])
    assert driver.call("echo") == {}


def test_guard_ends_a_stream_that_the_daemon_does_not(driver: Any, server: PeerServer) -> None:
    stream = driver.stream("stubborn", timeout_s=0.05)
    failed(Code.DEADLINE, driver.next, stream)
    server.wait_for(lambda: server.cancelled == [1])
    assert driver.call("echo") == {}


def test_callback_is_answered_by_its_handler(driver: Any) -> None:
    asked: list[Any] = []

    def allow(params: dict[str, Any]) -> Any:
        asked.append(params)
        return {"behavior": "allow"}

    stream = driver.stream("ask", {"ask": "permit", "params": {"tool": "x"}}, handlers={"permit": allow})
    assert driver.drain(stream) == []
    assert stream.result == {"ended": {"behavior": "allow"}}
    assert asked == [{"tool": "x"}]


def test_callback_may_be_a_coroutine(async_driver: Any) -> None:
    async def handler(params: dict[str, Any]) -> Any:
        return await async_driver.client.call("echo", params)

    stream = async_driver.stream("ask", {"ask": "q", "params": {"n": 4}}, handlers={"q": handler})
    async_driver.drain(stream)
    assert stream.result == {"ended": {"n": 4}}


def test_blocking_handler_may_use_the_client(server: PeerServer) -> None:
    with Client(server.path) as client:
        handlers = {"q": lambda params: client.call("echo", params)}
        stream = client.call_stream("ask", {"ask": "q", "params": {"n": 4}}, handlers=handlers)
        assert list(stream) == []
        assert stream.result == {"ended": {"n": 4}}


def test_callback_without_a_handler_fails(driver: Any) -> None:
    stream = driver.stream("ask", {"ask": "q", "params": {}}, handlers={"other": lambda params: 1})
    driver.drain(stream)
    code, message, _ = stream.result["failed"]
    assert code == Code.NO_METHOD and "q" in message
    assert driver.call("ask", {"ask": "q", "params": {}})["failed"][0] == Code.NO_METHOD


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ZeroDivisionError("boom"), Code.INTERNAL, "ZeroDivisionError: boom"),
        (RpcError(Code.FORBIDDEN, "no"), Code.FORBIDDEN, "no"),
    ],
)
def test_handler_that_raises_fails_the_callback(driver: Any, error: Exception, code: Code, text: str) -> None:
    def handler(params: dict[str, Any]) -> Any:
        raise error

    stream = driver.stream("ask", {"ask": "q", "params": {}}, handlers={"q": handler})
    driver.drain(stream)
    assert stream.result["failed"][0] == code
    assert text in stream.result["failed"][1]
    assert driver.call("echo") == {}


def test_handler_result_that_cannot_be_sent(driver: Any) -> None:
    stream = driver.stream("ask", {"ask": "q", "params": {}}, handlers={"q": lambda params: object()})
    driver.drain(stream)
    assert stream.result["failed"][0] == Code.INTERNAL


def test_cancelled_callback_cancels_its_handler(async_driver: Any) -> None:
    async def forever(params: dict[str, Any]) -> Any:
        if async_driver.kind == "trio":
            await trio.sleep_forever()
        await asyncio.get_running_loop().create_future()

    handlers = {"q": forever, "begun": lambda params: None}
    stream = async_driver.stream("ask_and_cancel", {"ask": "q"}, handlers=handlers)
    async_driver.drain(stream)
    assert stream.result == ["CallFailed", Code.CANCELLED]


def test_missing_socket_fails_at_once_and_says_what_to_do(driver_cls: Any, tmp_path: Path) -> None:
    driver = driver_cls(tmp_path / "none")
    started_s = time.monotonic()
    error = failed(Code.LOST, driver.call, "echo")
    assert time.monotonic() - started_s < 1
    assert str(tmp_path / "none") in error.message
    assert "is ccd running? start it with: ccd up" in error.message
    failed(Code.LOST, driver.stream, "echo")
    driver.close()


def test_stale_socket(driver_cls: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(tmp_path / "stale"))
    driver = driver_cls(tmp_path / "stale")
    assert "nobody listens" in failed(Code.LOST, driver.call, "echo").message
    driver.close()


def test_lost_connection_fails_calls_and_streams(driver: Any, server: PeerServer) -> None:
    stream = driver.stream("drop", {"first": b"x"})
    assert driver.next(stream) == b"x"
    error = failed(Code.LOST, driver.next, stream)
    assert str(server.path) in error.message and "ccd up" in error.message
    assert driver.call("echo") == {}
    assert server.connections == 2


def test_garbage_from_the_daemon_closes_the_connection(driver: Any, server: PeerServer) -> None:
    assert "msgpack" in failed(Code.LOST, driver.call, "garbage").message
    assert driver.call("echo") == {}


def test_reconnects_after_an_idle_connection_was_dropped(driver: Any, server: PeerServer) -> None:
    driver.call("echo")
    server.drop()
    for _ in range(100):
        try:
            assert driver.call("echo") == {}
            break
        except RpcError as error:  # an event loop may not have seen the end of the connection yet
            assert error.code is Code.LOST
    assert server.connections == 2


def test_waits_for_a_daemon_that_restarts(driver_cls: Any, server: PeerServer) -> None:
    driver = driver_cls(server.path, reconnect_wait_s=8)
    driver.call("echo")
    server.stop()
    restart = threading.Timer(0.2, server.start)
    restart.start()
    for _ in range(100):
        try:
            assert driver.call("echo") == {}
            break
        except RpcError as error:
            assert error.code is Code.LOST
    restart.join()
    driver.close()
    assert server.connections == 2


def test_gives_up_on_a_daemon_that_stays_away(driver_cls: Any, server: PeerServer) -> None:
    driver = driver_cls(server.path, reconnect_wait_s=0.1)
    driver.call("echo")
    server.stop()
    started_s = time.monotonic()
    for _ in range(20):
        failed(Code.LOST, driver.call, "echo")
    assert time.monotonic() - started_s < 5
    driver.close()


def test_end_of_file_before_hello_is_tried_again(driver_cls: Any, tmp_path: Path) -> None:
    with PeerServer(tmp_path / "s", refuse_first=3) as server:
        driver = driver_cls(server.path)
        assert driver.call("echo", {"n": 1}) == {"n": 1}
        assert server.connections == 4
        driver.close()


def test_full_backlog_is_tried_again(driver_cls: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen(0)
        fillers = []
        while True:
            filler = socket.socket(socket.AF_UNIX)
            filler.setblocking(False)
            fillers.append(filler)
            try:
                filler.connect(os.fspath(path))
            except BlockingIOError:
                break
        accepted: list[socket.socket] = []

        def accept() -> None:
            from ccd_protocol.peer import Called, Peer

            for _ in range(len(fillers) - 1):
                listener.accept()[0].close()
            connection = listener.accept()[0]
            accepted.append(connection)
            peer = Peer("accepting", "by hand")
            connection.sendall(b"".join(peer.outgoing()))
            while not any(isinstance(event, Called) for event in peer.receive(connection.recv(65536))):
                pass
            peer.end(1, "late")
            connection.sendall(b"".join(peer.outgoing()))

        driver = driver_cls(path)
        timer = threading.Timer(0.2, accept)
        timer.start()
        try:
            assert driver.call("echo") == "late"
        finally:
            timer.join()
            driver.close()
            for sock in (*fillers, *accepted):
                sock.close()


def test_a_daemon_that_says_nothing(driver_cls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccd_client._core.HELLO_TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "s"))
        listener.listen(5)
        driver = driver_cls(tmp_path / "s")
        assert "does not answer" in failed(Code.LOST, driver.call, "echo").message
        driver.close()


def test_goaway_finishes_streams_and_sends_new_calls_elsewhere(driver: Any, server: PeerServer) -> None:
    stream = driver.stream("stream", {"count": 10, "size": 1000}, window_bytes=1000)
    assert len(driver.next(stream)) == 1000
    server.goaway("restarting")
    for _ in range(100):
        try:
            assert driver.call("echo") == {}
            break
        except RpcError as error:
            assert error.code is Code.DRAINING and error.message == "restarting"
    assert server.connections == 2
    assert len(driver.drain(stream)) == 9
    assert stream.result == {"count": 10}


def test_too_large_parameters_are_refused_and_nothing_is_sent(driver_cls: Any, tmp_path: Path) -> None:
    with PeerServer(tmp_path / "s", limits=Limits(max_frame_bytes=100_000)) as server:
        driver = driver_cls(server.path)
        failed(Code.TOO_LARGE, driver.call, "echo", {"text": "x" * 100_000})
        failed(Code.BAD_PARAMS, driver.call, "echo", {"text": object()})
        assert driver.call("echo") == {}
        assert len(server.calls) == 1
        driver.close()


def test_chat(driver: Any, server: PeerServer) -> None:
    answer = driver.chat(
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}],
        model="sonnet",
        max_tokens=5,
        stop="x",
    )
    assert (answer.text, answer.stop_reason, answer.model) == ("hello there", "end_turn", "claude-x")
    assert answer.usage == {"input_tokens": 3, "output_tokens": 2}
    assert server.calls[0].params == {
        "messages": [{"role": "user", "content": "hello there"}],
        "system": "be brief",
        "model": "sonnet",
        "max_tokens": 5,
        "stop_sequences": ["x"],
    }


def test_chat_streamed(driver: Any) -> None:
    chat = driver.chat("hello there you", stream=True)
    texts = [TextDelta("hello "), TextDelta("there "), TextDelta("you")]
    assert driver.drain(chat) == [Started("claude-x", "msg_1"), *texts]
    assert chat.result == CHAT_RESULT
    assert chat.answer.text == "hello there you"
    assert chat.answer.content == [{"type": "text", "text": "hello there you"}]


def test_chat_left_early_is_cancelled(driver: Any, server: PeerServer) -> None:
    driver.leave_early(driver.chat("word " * 100_000, stream=True))
    server.wait_for(lambda: server.cancelled == [1])


def test_chat_refuses_wrong_parameters_before_it_connects(driver: Any, server: PeerServer) -> None:
    error = failed(Code.BAD_PARAMS, driver.chat, [{"role": "user", "content": ""}])
    assert error.data["param"] == "messages[0].content"
    with pytest.raises(TypeError, match="no_such_option"):
        driver.chat("hi", no_such_option=1)
    assert server.connections == 0


def test_a_closed_client_stays_closed(driver: Any, server: PeerServer) -> None:
    driver.call("echo")
    stream = driver.stream("stall", {"first": b"x"})
    assert driver.next(stream) == b"x"
    for _ in range(2):
        driver.close_client()
    failed(Code.LOST, driver.next, stream)
    for ask in (lambda: driver.call("echo"), lambda: driver.chat("hi"), lambda: driver.stream("stall")):
        with pytest.raises(RuntimeError, match="this client is closed; make another one"):
            ask()
    assert repr(driver.client).endswith(f" of {server.path}, closed>")
    assert server.connections == 1


def test_threads_share_a_blocking_client(server: PeerServer) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for index in range(30):
                params = {"from": [number, index], "text": "x" * (index * 5000)}
                assert client.call("echo", params) == params
            stream = client.call_stream("stream", {"count": 40, "size": 3000 + number}, window_bytes=20_000)
            assert sum(map(len, stream)) == 40 * (3000 + number)
        except BaseException as error:
            errors.append(error)

    with Client(server.path) as client:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not errors
    assert server.connections == 1


def test_closing_a_blocking_client_frees_a_waiting_thread(server: PeerServer) -> None:
    client = Client(server.path)
    caught: list[RpcError] = []

    def work() -> None:
        try:
            client.call("stall")
        except RpcError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    server.wait_for(lambda: len(server.calls) == 1)
    client.close()
    thread.join(10)
    assert [error.code for error in caught] == [Code.LOST]


def test_many_concurrent_streams_over_one_connection(async_driver: Any, server: PeerServer) -> None:
    sizes: list[int] = []

    async def one(number: int) -> None:
        stream = async_driver.client.call_stream(
            "stream", {"count": 20, "size": 500 + number}, window_bytes=4000
        )
        sizes.append(sum([len(payload) async for payload in stream]))

    async def work() -> None:
        if async_driver.kind == "trio":
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(one, number)
        else:
            await asyncio.gather(*(one(number) for number in range(100)))

    async_driver.run(work)
    assert sorted(sizes) == [20 * (500 + number) for number in range(100)]
    assert server.connections == 1


def test_one_call_too_many_is_busy(driver_cls: Any, tmp_path: Path) -> None:
    with PeerServer(tmp_path / "s", limits=Limits(max_open_calls=2)) as server:
        driver = driver_cls(server.path)
        streams = [driver.stream("stall"), driver.stream("stall")]
        failed(Code.BUSY, driver.call, "echo")
        driver.close_stream(streams[0])
        server.wait_for(lambda: server.cancelled == [1])
        driver.close_stream(streams[1])
        driver.close()


def test_files_are_closed(driver_cls: Any, server: PeerServer) -> None:
    before = set(os.listdir("/proc/self/fd"))
    driver = driver_cls(server.path)
    driver.call("echo")
    driver.close_stream(driver.stream("stall"))
    driver.close()
    server.wait_for(lambda: not server._live)
    gc.collect()
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0


# --- tools and options ---


CALLS = [
    {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
    {"id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}},
]
LOOP = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "t2", "content": "two"},
    {"role": "tool", "tool_call_id": "t1", "content": "one"},
]
OPTIONS: dict[str, Any] = {
    "model": "m",
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
    "fallback_model": "other",
    "strict": True,
    "service_tier": "auto",
    "extra": {"conversation_id": "c"},
}


@pytest.mark.parametrize("stream", [False, True])
def test_chat_sends_tools_and_options(driver: Any, server: PeerServer, stream: bool) -> None:
    chat = driver.chat(LOOP, stream=stream, **OPTIONS)
    if stream:
        driver.drain(chat)
    assert server.calls[-1].params == {
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                    {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t2", "content": "two"},
                    {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                ],
            },
        ],
        "model": "m",
        "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "format": {"type": "json_object"},
        "effort": "low",
        "fallback_model": "other",
        "strict": True,
        "service_tier": "auto",
        "conversation_id": "c",
    }


def test_chat_tells_what_it_left_out(driver: Any) -> None:
    assert driver.chat([{"role": "user", "content": "x", "name": "bob"}]).ignored == ["messages[0].name"]
    failed(Code.BAD_PARAMS, driver.chat, [{"role": "user", "content": "x", "name": "bob"}], strict=True)
    with pytest.raises(TypeError, match="wishes"):
        driver.chat("x", wishes=1)


# --- batches ---


def test_a_batch_is_answered_in_order(driver: Any, server: PeerServer) -> None:
    told: list[tuple[int, int, int]] = []
    prompts: list[Any] = [f"prompt {number}" for number in range(20)]
    prompts[3] = {"messages": "own", "model": "special"}
    items = driver.batch(
        prompts,
        concurrency=5,
        model="m",
        progress=lambda done, total, item: told.append((done, total, item.number)),
    )
    assert [item.number for item in items] == list(range(20))
    assert [item.answer.text for item in items] == ["own" if n == 3 else f"prompt {n}" for n in range(20)]
    assert all(item.error is None for item in items)
    assert [(done, total) for done, total, _ in told] == [(n, 20) for n in range(1, 21)]
    assert sorted(number for *_, number in told) == list(range(20))
    models = [called.params["model"] for called in server.calls]
    assert sorted(models) == ["m"] * 19 + ["special"]
    assert server.connections == 1


def test_a_batch_goes_on_after_failures(driver: Any) -> None:
    prompts = ["a", "", [{"role": "tool"}], {"messages": "b", "system": 5}, "c"]
    items = driver.batch(prompts, concurrency=2)
    assert [item.answer and item.answer.text for item in items] == ["a", None, None, None, "c"]
    assert [item.error and item.error.code for item in items] == [None, *[Code.BAD_PARAMS] * 3, None]


def test_no_more_of_a_batch_is_in_progress_than_allowed(driver: Any, server: PeerServer) -> None:
    items = driver.batch([f"hold {n}" for n in range(12)], concurrency=3)
    assert all(item.answer for item in items)
    assert server.most_held == 3


def test_a_batch_of_nothing_and_wrong_concurrency(driver: Any) -> None:
    assert driver.batch([]) == []
    with pytest.raises(ValueError, match="concurrency"):
        driver.batch(["a"], concurrency=0)


def test_a_fault_of_the_callers_own_cancels_the_batch(driver: Any, server: PeerServer) -> None:
    def progress(done: int, total: int, item: Any) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        driver.batch(["hold", "hold stuck", "hold stuck", "never"], concurrency=3, progress=progress)
    server.wait_for(lambda: len(server.cancelled) == 2)
    assert [called.params["messages"][0]["content"] for called in server.calls].count("never") == 0


# --- waiting for a while ---


def test_a_wait_in_vain_leaves_the_stream_as_it_is(async_driver: Any, server: PeerServer) -> None:
    stream = async_driver.stream("stall", {"first": b"one"})
    assert async_driver.next_within(stream, 10) == [b"one"]
    assert async_driver.next_within(stream, 0.01) == []
    assert async_driver.next_within(stream, 0) == []
    assert server.cancelled == []
    async_driver.close_stream(stream)
    server.wait_for(lambda: len(server.cancelled) == 1)


def test_payloads_that_have_come_are_taken_together_with_their_credit(async_driver: Any) -> None:
    params = {"count": 50, "size": 1000}
    stream = async_driver.stream("stream", params, window_bytes=4000)
    found: list[bytes] = []
    while (payloads := async_driver.next_within(stream, 10)) is not None:
        assert payloads
        found += payloads
    assert found == [bytes([index]) * 1000 for index in range(50)]
    assert stream.result == {"count": 50}
    assert async_driver.next_within(stream, 10) is None


def test_next_within_raises_what_the_call_failed_with(async_driver: Any) -> None:
    params = {"code": int(Code.UPSTREAM_ERROR), "message": "died", "payloads": [b"half"]}
    stream = async_driver.stream("fail", params)
    assert async_driver.next_within(stream, 10) == [b"half"]
    failed(Code.UPSTREAM_ERROR, async_driver.next_within, stream, 10)
    late = async_driver.stream("stubborn", timeout_s=0.05)
    failed(Code.DEADLINE, async_driver.next_within, late, 10)


class Sink:
    """Takes payloads until it has `limit` of them, or until it is told to fail."""

    def __init__(self, limit: int = 1000, error: Exception | None = None) -> None:
        self.taken: list[bytes] = []
        self._limit = limit
        self._error = error

    @property
    def ready(self) -> bool:
        return len(self.taken) < self._limit

    def take(self, payloads: list[bytes]) -> None:
        if self._error is not None:
            raise self._error
        self.taken += payloads


def test_a_sink_takes_what_comes_in_order_and_its_credit_is_returned(async_driver: Any) -> None:
    sink, passed = Sink(), []
    stream = async_driver.stream("stream", {"count": 50, "size": 1000}, window_bytes=4000)
    while (payloads := async_driver.next_within(stream, 10, sink)) is not None:
        assert payloads
        passed.append((len(sink.taken), payloads))
    whole: list[bytes] = list(sink.taken)
    for place, payloads in reversed(passed):
        whole[place:place] = payloads
    assert whole == [bytes([index]) * 1000 for index in range(50)]
    assert stream.result == {"count": 50}


def test_what_a_sink_is_not_ready_for_comes_to_who_waits(async_driver: Any) -> None:
    sink = Sink(limit=0)
    stream = async_driver.stream("stream", {"count": 3, "size": 10}, window_bytes=4000)
    found: list[bytes] = []
    while (payloads := async_driver.next_within(stream, 10, sink)) is not None:
        found += payloads
    assert found == [bytes([index]) * 10 for index in range(3)]
    assert sink.taken == []


def test_what_a_sink_raises_comes_to_who_waits_and_the_connection_lives(
    async_driver: Any, server: PeerServer
) -> None:
    stream = async_driver.stream("stall", {"first": b"one"})
    # Whether the payload is already there when the wait begins, is a matter of time.
    sink = Sink(error=LookupError("mine"))
    try:
        assert async_driver.next_within(stream, 10, sink) == [b"one"]
    except LookupError as error:
        assert str(error) == "mine"
    async_driver.close_stream(stream)
    assert async_driver.call("echo", {"value": 1}) == {"value": 1}


def test_a_wait_with_a_sink_ends_when_nothing_comes(async_driver: Any) -> None:
    sink = Sink()
    stream = async_driver.stream("stall", {"first": b"one"})
    found = async_driver.next_within(stream, 0.2, sink)
    if not sink.taken:
        assert found == [b"one"]
        found = async_driver.next_within(stream, 0.01, sink)
    assert found == []
    async_driver.close_stream(stream)


TYPED: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "daemon.ping": (lambda client: client.ping(), {}),
    "daemon.health": (lambda client: client.health(), {}),
    "model.list": (lambda client: client.models(), {}),
    "cache.stats": (lambda client: client.cache_stats(), {}),
    "admin.status": (lambda client: client.status(), {}),
    "admin.workers": (lambda client: client.workers(), {}),
    "admin.note": (lambda client: client.note("a line"), {"text": "a line"}),
    "admin.reload": (lambda client: client.reload(), {}),
    "admin.recycle": (lambda client: client.recycle("chat"), {"profile": "chat"}),
    "admin.kill": (lambda client: client.kill("w1"), {"id": "w1"}),
    "conversation.list": (lambda client: client.conversations(), {}),
    "conversation.create": (
        lambda client: client.conversation("n").create({"a": 1}),
        {"conversation_id": "n", "metadata": {"a": 1}},
    ),
    "conversation.get": (lambda client: client.conversation("n").get(), {"conversation_id": "n"}),
    "conversation.messages": (lambda client: client.conversation("n").messages(), {"conversation_id": "n"}),
    "conversation.delete": (lambda client: client.conversation("n").delete(), {"conversation_id": "n"}),
    "session.list": (lambda client: client.sessions(), {}),
    "session.open": (
        lambda client: client.open_session(cwd="/x", allowed_tools=["Read"]),
        {"cwd": "/x", "allowed_tools": ["Read"]},
    ),
    "session.get": (lambda client: client.session("s").get(), {"session_id": "s"}),
    "session.send": (lambda client: client.session("s").send("hi"), {"session_id": "s", "content": "hi"}),
    "session.interrupt": (lambda client: client.session("s").interrupt(), {"session_id": "s"}),
    "session.set_model": (
        lambda client: client.session("s").set_model("opus"),
        {"session_id": "s", "model": "opus"},
    ),
    "session.set_permission_mode": (
        lambda client: client.session("s").set_permission_mode("plan"),
        {"session_id": "s", "mode": "plan"},
    ),
    "session.answer": (
        lambda client: client.session("s").allow("r", {"x": 1}),
        {"session_id": "s", "request_id": "r", "behavior": "allow", "updated_input": {"x": 1}},
    ),
    "session.close": (lambda client: client.session("s").close(), {"session_id": "s"}),
}


@pytest.mark.parametrize("method", TYPED)
def test_a_typed_call_sends_what_it_should(driver: Any, server: PeerServer, method: str) -> None:
    ask, params = TYPED[method]
    result = driver.do(ask)
    [called] = server.calls
    assert (called.method, called.params) == (method, params)
    match method.rpartition(".")[2]:
        case "list" | "messages" if method != "model.list":
            assert result == [{"id": "n", "asked": method}]
        case "ping":
            assert result["version"] == "0"
        case "open":
            assert result.id == "s1" and "'s1'" in repr(result)
        case "interrupt":
            assert result is True
        case "delete" | "note" | "kill" | "send" | "answer" | "close":
            assert result is None
        case _:
            assert result["asked"] == method


def test_every_method_has_a_typed_call() -> None:
    assert {*TYPED, "chat.complete", "chat.stream", "session.attach"} == set(METHODS)


def test_a_denial_says_why(driver: Any, server: PeerServer) -> None:
    driver.do(lambda client: client.session("s").deny("r", "not here"))
    told = {"session_id": "s", "request_id": "r", "behavior": "deny", "message": "not here"}
    assert server.calls[0].params == told


def test_a_session_is_followed_line_by_line(driver: Any) -> None:
    lines = driver.client.session("s").attach()
    assert driver.drain(lines) == [{"type": "state"}, {"type": "past"}]


def test_text_while_it_comes(driver: Any) -> None:
    text = driver.text("hello there you", model="m")
    assert driver.drain(text) == ["hello ", "there ", "you"]
    assert (text.answer.text, text.answer.cost_usd) == ("hello there you", 0.0)


def test_a_method_with_parameters_is_streamed_as_it_is(driver: Any) -> None:
    stream = driver.text("payloads", {"payloads": [b"a"], "result": 1}, window_bytes=10)
    assert driver.drain(stream) == [b"a"]


def test_a_conversation_is_asked_by_its_name(driver: Any, server: PeerServer) -> None:
    answer = driver.do(lambda client: client.conversation("notes").ask("hello", model="m"))
    assert answer.text == "hello"
    assert driver.drain(driver.client.conversation("notes").stream("and more")) == ["and ", "more"]
    assert [called.params["conversation_id"] for called in server.calls] == ["notes", "notes"]


def test_retries_heed_what_the_daemon_says(driver_cls: Any, server: PeerServer) -> None:
    driver = driver_cls(server.path, retries=1)
    try:
        assert driver.chat("busy at first").text == "busy at first"
        assert driver.drain(driver.text("busy streams, too")) == ["busy ", "streams, ", "too"]
        assert len(server.calls) == 4
        assert driver.do(lambda client: client.conversation("n").ask("busy here")).text == "busy here"
        assert [item.answer.text for item in driver.batch(["busy in a batch"])] == ["busy in a batch"]
        failed(Code.BUSY, driver.call, "fail", {"code": int(Code.BUSY), "message": "untyped calls are not"})
    finally:
        driver.close()


def test_without_retries_a_failure_is_told(driver: Any, server: PeerServer) -> None:
    failed(Code.BUSY, driver.chat, "busy now")
    stream = driver.text("busy stream")
    failed(Code.BUSY, driver.drain, stream)
    assert len(server.calls) == 2


@dataclasses.dataclass
class Person:
    name: str
    age: int
    langs: list[str] = dataclasses.field(default_factory=list)


class Place(TypedDict):
    city: str
    people: NotRequired[list[Person]]


def test_an_answer_is_parsed_as_what_was_asked_for(driver: Any, server: PeerServer) -> None:
    ada = '{"name": "Ada", "age": 36}'
    assert driver.do(lambda client: client.parse(ada, Person)) == Person("Ada", 36)
    schema = server.calls[0].params["format"]["schema"]
    assert schema["required"] == ["name", "age"] and schema["additionalProperties"] is False
    place = f'{{"city": "London", "people": [{ada}]}}'
    assert driver.do(lambda client: client.parse(place, Place)) == {
        "city": "London",
        "people": [Person("Ada", 36)],
    }
    assert driver.do(lambda client: client.parse('{"value": [1, 2]}', list[int])) == [1, 2]


@pytest.mark.parametrize("said", ["no JSON", '{"name": "Ada"}', '{"name": "Ada", "age": "old"}', "[]"])
def test_an_answer_that_does_not_fit_is_told_with_its_text(driver: Any, said: str) -> None:
    error = failed(Code.UPSTREAM_ERROR, driver.do, lambda client: client.parse(said, Person))
    assert error.data["text"] == said and not error.retryable
    with pytest.raises(TypeError, match="has no form in JSON"):
        driver.do(lambda client: client.parse(said, set))
