"""Reading a request body without ever holding more of it than allowed."""

from __future__ import annotations

import falcon
import falcon.asgi

from ccd_gateway.errors import ApiError

_READ_BYTES = 1 << 16


async def read_body(request: falcon.asgi.Request, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        ApiError: 413 when it is larger than `max_bytes`, before reading when Content-Length says so; 400 when
            the client stops in the middle.
    """
    length = request.content_length
    if length is not None and length > max_bytes:
        raise _too_large(max_bytes)
    pieces: list[bytes] = []
    held = 0
    async for piece in request.stream:
        held += len(piece)
        if held > max_bytes:
            raise _too_large(max_bytes)
        pieces.append(piece)
    if length is not None and held < length:
        raise ApiError(400, "The request body is shorter than its Content-Length.", code="incomplete_body")
    return b"".join(pieces)


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"The request body is larger than {max_bytes} bytes (gateway.max_body_bytes).",
        code="request_too_large",
        headers=[("connection", "close")],
    )
