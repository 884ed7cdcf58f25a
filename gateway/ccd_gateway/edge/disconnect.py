"""A client that goes away cancels the task that answers it, at once, also when nothing is being sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class UntilDisconnect:
    """A block that ends, quietly, when its client is gone; works as `asyncio.timeout` does.

    Args:
        receive: the server's.
    """

    __slots__ = ("_gone", "_left", "_receive", "_task")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[Any] | None = None
        self._gone: asyncio.Future[Message] | None = None
        self._left = False

    def __enter__(self) -> UntilDisconnect:
        self._task = asyncio.current_task()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if self._gone is not None:
            self._gone.cancel()
        if not self._left or task is None:
            return False
        return task.uncancel() == 0 and kind is asyncio.CancelledError

    def after(self, body: Receive) -> Receive:
        """An ASGI `receive` in place of `body`, which may differ from the server's.

        After the end of the body there can only be a disconnect, so from there on it is watched for, and an application
        that asks again waits for the same report.
        """

        async def receive() -> Message:
            if self._gone is not None:
                return await asyncio.shield(self._gone)
            message = await body()
            if message["type"] == "http.request" and not message.get("more_body"):
                self.watch()
            return message

        return receive

    def watch(self) -> None:
        """From now on nobody else asks the server what the client sends."""
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._receive())
            self._gone.add_done_callback(self._received)

    def _received(self, gone: asyncio.Future[Message]) -> None:
        if self._task is None or gone.cancelled():
            return
        if gone.exception() is None and gone.result()["type"] != "http.disconnect":  # the rest of a body
            self._gone = None
            self.watch()
            return
        self._left = True
        self._task.cancel()
