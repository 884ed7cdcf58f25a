"""Request bodies as they arrive: in time, and unpacked if they are packed.

Both happen below the framework, so that every surface has them, whoever reads the body there.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ccd_gateway.edge.body import too_large
from ccd_gateway.errors import ApiError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_GZIP = 31  # window bits of zlib for gzip alone
_STEP_BYTES = 256 << 10
_MAX_MEMBERS = 100  # gzip files may be joined; each costs time even if it is empty


def upload(
    scope: MutableMapping[str, Any],
    headers: Mapping[bytes, bytes],
    receive: Receive,
    max_bytes: int,
    timeout_s: float,
) -> Receive:
    """An ASGI `receive` in place of another; its messages may raise ApiError 400, 408 and 413.

    Args:
        scope: its headers no longer say that the body is packed, nor how long it was.
        headers: the request's.
        receive: where the body comes from.
        max_bytes: the largest body, unpacked.
        timeout_s: for the whole body, from now.

    Raises:
        ApiError: 415 for a packing that is not known.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if not headers.get(b"content-length", b"").strip(b"0") and b"transfer-encoding" not in headers:
        return receive  # there is no body to wait for
    timed = _Timed(receive, timeout_s)
    if encoding in (b"identity", b""):
        return timed.receive
    if encoding not in (b"gzip", b"x-gzip"):
        raise ApiError(
            415,
            "Content-Encoding: only gzip is understood.",
            code="unsupported_media_type",
            headers=[("accept-encoding", "gzip"), ("connection", "close")],
        )
    gone = (b"content-encoding", b"content-length")
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in gone]
    return _Unpacked(timed.receive, max_bytes).receive


class _Timed:
    """Gives up when the body is not there in time."""

    def __init__(self, receive: Receive, timeout_s: float) -> None:
        self._receive = receive
        self._until_s = asyncio.get_running_loop().time() + timeout_s
        self._timeout_s = timeout_s
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until_s):
                message = await self._receive()
        except TimeoutError:
            text = f"The request body was not complete within {self._timeout_s:g} s (gateway.body_timeout_s)."
            raise ApiError(408, text, code="request_timeout", headers=[("connection", "close")]) from None
        self._whole = not message.get("more_body", False)
        return message


class _Unpacked:
    """Unpacks piece by piece, never more than a step at a time, and stops at the limit."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._unpacker = zlib.decompressobj(_GZIP)
        self._packed = b""
        self._members_left = _MAX_MEMBERS
        self._more = True
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        while not self._packed and self._more:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._packed = message.get("body", b"")
            self._more = message.get("more_body", False)
        await asyncio.sleep(
            0
        )  # others have their turn between two steps, also when nothing need be waited for
        piece = self._step()
        self._left -= len(piece)
        if self._left < 0:
            raise too_large(self._max_bytes)
        # A full step may have left something inside of the unpacker.
        more = bool(self._packed) or self._more or (len(piece) == _STEP_BYTES and not self._unpacker.eof)
        if not more:
            self._check_end()
            self._whole = True
        return {"type": "http.request", "body": piece, "more_body": more}

    def _step(self) -> bytes:
        if self._unpacker.eof and self._packed:
            self._members_left -= 1
            if not self._members_left:
                raise self._damaged()
            self._unpacker = zlib.decompressobj(_GZIP)
        try:
            piece = self._unpacker.decompress(self._packed, _STEP_BYTES)
        except zlib.error as error:
            raise self._damaged() from error
        self._packed = self._unpacker.unconsumed_tail or self._unpacker.unused_data
        return piece

    def _check_end(self) -> None:
        if not self._unpacker.eof:
            raise self._damaged()

    def _damaged(self) -> ApiError:
        return ApiError(
            400,
            "The request body is not the gzip that Content-Encoding says it is.",
            code="invalid_encoding",
            headers=[("connection", "close")],
        )
