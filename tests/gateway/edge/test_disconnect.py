"""A client that goes away, on the ASGI interface, which shows what no server would do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ccd_gateway.edge.disconnect import UntilDisconnect

App = Callable[[Any, Any, Any], Awaitable[None]]


class Client:
    """Gives `receive` what a test puts in."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []
        for message in messages:
            self.queue.put_nowait(message)

    async def run(self, app: App) -> None:
        with UntilDisconnect(self.queue.get) as until:
            await app({"type": "http"}, until.after(self.queue.get), self._send)  # type: ignore[arg-type]

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


BODY = {"type": "http.request", "body": b"x", "more_body": False}
GONE = {"type": "http.disconnect"}


def test_handler_ends_by_itself() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == BODY
        await send("answer")

    async def main() -> None:
        client = Client(BODY)
        await client.run(app)
        assert client.sent == ["answer"]
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_disconnect_cancels_the_handler() -> None:
    ended = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    asyncio.run(Client(BODY, GONE).run(app))
    assert ended == ["cancelled"]


def test_a_handler_that_asks_again_learns_of_the_disconnect() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert await receive() == GONE

    asyncio.run(Client(BODY, GONE).run(app))


def test_body_in_parts_is_passed_on() -> None:
    got = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            got.append(message["body"])
            if not message["more_body"]:
                return

    asyncio.run(Client({**BODY, "more_body": True}, BODY).run(app))
    assert got == [b"x", b"x"]


def test_a_fault_of_the_handler_is_raised() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(Client().run(app))


def test_being_cancelled_from_outside_cancels_the_handler() -> None:
    ended = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def main() -> None:
        task = asyncio.ensure_future(Client().run(app))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert ended == ["cancelled"]

    asyncio.run(main())


def test_what_still_comes_of_a_body_is_no_disconnect() -> None:
    """A stream may begin before its request was read to the end."""

    async def main() -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        queue.put_nowait(BODY)
        reached = []
        with UntilDisconnect(queue.get) as until:
            until.watch()
            for _ in range(5):
                await asyncio.sleep(0)
            reached.append("after the body")
            queue.put_nowait(GONE)
            await asyncio.Event().wait()
        assert reached == ["after the body"]

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_server_that_fails_to_receive_is_like_a_client_that_is_gone() -> None:
    async def broken() -> Any:
        raise ConnectionResetError

    async def main() -> None:
        with UntilDisconnect(broken) as until:
            until.watch()
            await asyncio.Event().wait()

    asyncio.run(asyncio.wait_for(main(), 10))
