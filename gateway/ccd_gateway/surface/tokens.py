"""An estimate of how many tokens a prompt has. Pure.

The CLI has no way to count a prompt that is not its own conversation's, and asking the model would cost
money, so this is an estimate from sizes, said to be one by a header. It is meant to err upwards: clients
ask in order to stay below a limit.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping
from typing import Any

import msgspec

from ccd_gateway.surface.prompt import Prompt

_ASCII_CHARS_PER_TOKEN = 3.2  # English text has about 4 with older models, and 3 with newer ones
_OTHER_CHARS_PER_TOKEN = 0.9
_PER_MESSAGE = 4
_PER_BLOCK = 3
_TOOL_PROMPT = 346  # what the API adds to a prompt with tools
_MAX_IMAGE = 1600  # larger images are scaled down to about this
_PIXELS_PER_TOKEN = 750
_PDF_BYTES_PER_TOKEN = 24
_MIN_PDF = 1500  # a page
_HEADER_BASE64_CHARS = 65536
#: Keys whose texts are not for the model.
_SILENT_KEYS = frozenset(
    {"type", "cache_control", "signature", "id", "tool_use_id", "media_type", "data", "url"}
)


def estimate(prompt: Prompt) -> int:
    """Tokens of the whole prompt, at least 1."""
    total = 3.0 + sum(_PER_MESSAGE + _tokens(message.get("content")) for message in prompt.messages)
    total += _tokens(prompt.system)
    if prompt.tools:
        total += _TOOL_PROMPT + sum(_text(_json(tool)) for tool in prompt.tools)
    for schema in (prompt.output_format, (prompt.output_config or {}).get("format")):
        total += _text(_json(schema)) if schema else 0
    return max(1, math.ceil(total))


def _tokens(content: Any) -> float:
    """A text, a content block, or a list of them."""
    if isinstance(content, str):
        return _text(content)
    if isinstance(content, list):
        return sum(_PER_BLOCK + _tokens(block) for block in content)
    if isinstance(content, dict):
        return _block(content)
    return 0.0


def _block(block: Mapping[str, Any]) -> float:
    kind = block.get("type")
    source = block.get("source")
    if kind == "image":
        return _image(source if isinstance(source, dict) else {})
    if kind == "tool_use":
        return _text(str(block.get("name"))) + _text(_json(block.get("input")))
    if kind == "document" and isinstance(source, dict):
        titles = (block.get("title"), block.get("context"))
        return _document(source) + sum(_tokens(text) for text in titles)
    return sum(_tokens(value) for key, value in block.items() if key not in _SILENT_KEYS)


def _document(source: Mapping[str, Any]) -> float:
    data = source.get("data")
    if source.get("type") == "text":
        return _tokens(data)
    if source.get("type") == "content":
        return _tokens(source.get("content"))
    size = len(data) * 3 // 4 if isinstance(data, str) else 0
    return max(_MIN_PDF, size / _PDF_BYTES_PER_TOKEN)


def _image(source: Mapping[str, Any]) -> float:
    data = source.get("data")
    size = image_size(data[:_HEADER_BASE64_CHARS]) if isinstance(data, str) else None
    if size is None:
        return _MAX_IMAGE
    return min(_MAX_IMAGE, size[0] * size[1] / _PIXELS_PER_TOKEN)


def image_size(data: str) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF, JPEG or WebP from the beginning of its base64 text, where they can be told."""
    try:
        head = base64.b64decode(data[: len(data) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        if head.startswith(b"\x89PNG"):
            return struct.unpack_from(">II", head, 16)
        if head.startswith(b"GIF8"):
            return struct.unpack_from("<HH", head, 6)
        if head.startswith(b"\xff\xd8"):
            return _jpeg_size(head)
        if head[8:16] == b"WEBPVP8X":
            return _u24(head, 24) + 1, _u24(head, 27) + 1
    except struct.error:
        return None
    return None


def _u24(data: bytes, at: int) -> int:
    low, high = struct.unpack_from("<HB", data, at)
    return int(low) + (int(high) << 16)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """The size is in the first frame header, which comes after any number of other segments."""
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", data, at)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker < 0xFF00 or length < 2:
            return None
        at += 2 + length


def _text(text: str) -> float:
    plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return plain / _ASCII_CHARS_PER_TOKEN + (len(text) - plain) / _OTHER_CHARS_PER_TOKEN


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
