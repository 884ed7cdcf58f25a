"""Reading a request body without ever holding more of it than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import falcon.asgi

from ccd_gateway.edge.work import share_of
from ccd_gateway.errors import ApiError

# Most clients read an answer only when they have sent their whole body, and a connection that is closed
# before is an error of theirs without any text. So a refused body is read on for a while, and thrown away.
_DISCARD_BYTES = 512 << 20
_DISCARD_S = 10.0
_DISCARD_IDLE_S = 0.3


async def read_body(request: falcon.asgi.Request, max_bytes: int) -> bytes:
    """The whole body, which may be decoded.

    Raises:
        ApiError: 413 when it is larger than `max_bytes`, or holds too many values; 400 when the client stops in the
            middle; 503 when the process holds too much already.
    """
    pieces: list[bytes] = []
    held = 0
    share = share_of(request.scope)
    stream = aiter(request.stream)
    async for piece in stream:
        held += len(piece)
        try:
            if held > max_bytes:
                raise too_large(max_bytes)
            share.take(len(piece))
        except ApiError:
            pieces.clear()
            await discard(stream)
            raise
        pieces.append(piece)
    if request.content_length is not None and held < request.content_length:
        raise ApiError(400, "The request body is shorter than its Content-Length.", code="incomplete_body")
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    pieces.clear()  # the check may take its time
    await share.check(body)
    return body


async def discard(pieces: AsyncIterator[bytes]) -> None:
    """Take what still comes of a refused body, within limits of time and size."""
    left = _DISCARD_BYTES
    with suppress(TimeoutError, StopAsyncIteration):
        async with asyncio.timeout(_DISCARD_S):
            while left > 0:
                async with asyncio.timeout(_DISCARD_IDLE_S):
                    left -= len(await anext(pieces))


def too_large(max_bytes: int) -> ApiError:
    """The 413; the connection is not used again, for its body may not have been read to the end."""
    return ApiError(
        413,
        f"The request body is larger than {max_bytes} bytes (gateway.max_body_bytes).",
        code="request_too_large",
        headers=[("connection", "close")],
    )
