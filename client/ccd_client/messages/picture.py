"""The size of an image in pixels, read from its first bytes, and what the model API takes of them. Pure."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ccd_client.content import Block, refuse
from ccd_protocol.chat.history import HistoryMessage

MAX_IMAGES = 600  # in a request; of models with a short context fewer, as the API says then
MAX_PIXELS = 8000  # of an edge
MANY = 20
MAX_PIXELS_OF_MANY = 2000  # where a request has more than `MANY` images
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HEAD_CHARS = 4 * 65536  # of an image in base64: what its size is looked for in


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int


def size_of(data: bytes) -> Size | None:
    """Returns the size of a PNG, JPEG, GIF or WebP; None for one whose head does not say."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        return _size(data[16:20], data[20:24], "big")
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _size(data[6:8], data[8:10], "little")
    if data.startswith(b"\xff\xd8"):
        return _of_jpeg(data)
    return _of_webp(data) if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None


def check_size(data: bytes, path: str) -> None:
    """Refuse an image that is too wide or too high.

    Raises:
        RpcError: BAD_PARAMS naming `path`.
    """
    _check(size_of(data), MAX_PIXELS, path, "")


def check_number(turns: Sequence[HistoryMessage]) -> None:
    """Refuse more images than the model API takes, and large ones among many.

    Raises:
        RpcError: BAD_PARAMS naming the first that is too much.
    """
    found = [pair for turn in turns for piece in turn.pieces for pair in _images(piece.block, piece.path)]
    if len(found) > MAX_IMAGES:
        refuse(found[MAX_IMAGES][1], f"is one image too many: the model API takes {MAX_IMAGES} in a request")
    for block, path in found if len(found) > MANY else ():
        source = block["source"]
        if source.get("type") == "base64":
            data = _decoded_head(source["data"])
            _check(size_of(data), MAX_PIXELS_OF_MANY, path, f" in a request with more than {MANY} images")


def _images(block: Block, path: str) -> Iterator[tuple[Block, str]]:
    if block.get("type") == "image":
        yield block, path
    elif block.get("type") == "tool_result" and isinstance(block.get("content"), list):
        for index, inner in enumerate(block["content"]):
            yield from _images(inner, f"{path}.content[{index}]")


def _decoded_head(encoded: str) -> bytes:
    return binascii.a2b_base64(encoded[:_HEAD_CHARS])


def _check(size: Size | None, most: int, path: str, when: str) -> None:
    if size is not None and max(size) > most:
        refuse(path, f"is {size.width} x {size.height} pixels; the model API takes {most} on an edge{when}")


def _size(width: bytes, height: bytes, order: str) -> Size | None:
    if not width or not height:
        return None
    return Size(int.from_bytes(width, order), int.from_bytes(height, order))  # type: ignore[arg-type]


def _of_jpeg(data: bytes) -> Size | None:
    """The first frame's; the segments before it are skipped by their lengths."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in _START_OF_FRAME:
            return _size(data[at + 7 : at + 9], data[at + 5 : at + 7], "big")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _of_webp(data: bytes) -> Size | None:
    form = data[12:16]
    if form == b"VP8X" and len(data) >= 30:
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return Size(width, height)
    if form == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if form == b"VP8 " and len(data) >= 30:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return Size(width, height)
    return None
