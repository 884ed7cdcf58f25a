"""The control requests that ccd makes of a session's CLI, and who waits for their replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ccd_daemon.claude import control
from ccd_protocol.errors import Code, RpcError


class ControlRequests:
    """The open requests of one process. `write` takes lines to it."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._open: dict[str, asyncio.Future[control.ControlReply]] = {}
        self._made = 0

    def make(self, subtype: str, **fields: Any) -> asyncio.Future[control.ControlReply]:
        """Make a request. Returns what becomes its reply, or the error with which the process ends."""
        self._made += 1
        request_id = f"ccd-{self._made}"
        reply = self._open[request_id] = self._loop.create_future()
        self._write(control.request(request_id, subtype, **fields))
        return reply

    def replied(self, reply: control.ControlReply) -> None:
        """A request was answered; one that nobody made is left alone."""
        waiting = self._open.pop(reply.request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def fail(self, error: RpcError) -> None:
        """The process has ended: nothing will be answered any more."""
        for reply in self._open.values():
            if not reply.done():
                reply.set_exception(error)
                reply.exception()  # nobody need be waiting
        self._open.clear()


def agreed(reply: control.ControlReply) -> control.ControlReply:
    """Returns the reply, if the CLI has agreed.

    Raises:
        RpcError: BAD_PARAMS, with its words.
    """
    if reply.subtype == "error":
        raise RpcError(Code.BAD_PARAMS, str(reply.error))
    return reply
