"""The rules of one content block, by role and type. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from ccd_offline.errors import invalid
from ccd_offline.rules import shape, signature

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_MAX_IMAGE_CHARS = 5 * 1024 * 1024
MAX_PIXELS = 8000
_TOOL_ID = "[a-zA-Z0-9_-]+"
_TOOL_NAME = "[a-zA-Z0-9_-]{1,200}"

# What an assistant turn may bring back that the API's own tools made; their insides are not checked.
_SERVER_KINDS = frozenset(
    [
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "mcp_tool_use",
        "mcp_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "container_upload",
        "compaction",
        "fallback",
    ]
)


def check(value: Any, role: str, path: str, model: str = "") -> None:
    """Refuse a block that the real API would refuse in a message of this role (user, assistant or system).

    `model` is the one that is asked: thinking is only taken back by the one that signed it.
    """
    block = shape.mapping(value, path)
    kind = block.get("type")
    if not isinstance(kind, str):
        raise invalid(f"{path}.type: Field required")
    if role == "assistant" and kind in _SERVER_KINDS:
        return
    if role == "system" and kind in ("tool_addition", "tool_removal"):
        return
    rule = _RULES[role].get(kind)
    if rule is None:
        tags = ", ".join(f"'{tag}'" for tag in sorted(_RULES[role]))
        raise invalid(
            f"{path}: Input tag '{kind[:40]}' found using 'type' does not match any of the expected"
            f" tags: {tags}"
        )
    if kind == "thinking":
        _signed(block, path, model)
    else:
        rule(block, path)
    _cache_control(block, f"{path}.{kind}")


def _cache_control(block: dict[str, Any], path: str) -> None:
    if block.get("cache_control") is None:
        return
    mark = shape.mapping(block["cache_control"], f"{path}.cache_control")
    shape.keys(mark, f"{path}.cache_control", required=("type",), optional=("ttl", "scope"))
    shape.one_of(mark["type"], f"{path}.cache_control.type", ("ephemeral",))
    if "ttl" in mark:
        shape.one_of(mark["ttl"], f"{path}.cache_control.ttl", ("5m", "1h"))


def _text(block: dict[str, Any], path: str) -> None:
    shape.keys(block, f"{path}.text", required=("type", "text"), optional=("cache_control", "citations"))
    text = shape.string(block["text"], f"{path}.text.text")
    if not text:
        raise invalid("messages: text content blocks must be non-empty")
    if not text.strip():
        raise invalid("messages: text content blocks must contain non-whitespace text")


def _image(block: dict[str, Any], path: str) -> None:
    shape.keys(block, f"{path}.image", required=("type", "source"), optional=("cache_control",))
    source = shape.mapping(block["source"], f"{path}.image.source")
    where = f"{path}.image.source"
    kind = shape.one_of(source.get("type"), f"{where}.type", ("base64", "url", "file"))
    if kind == "url":
        _url(source, where)
    elif kind == "base64":
        where = f"{where}.base64"
        shape.keys(source, where, required=("type", "media_type", "data"))
        media_type = shape.one_of(source["media_type"], f"{where}.media_type", _IMAGE_TYPES)
        _image_data(shape.string(source["data"], f"{where}.data"), media_type, where)


def _url(source: dict[str, Any], path: str) -> None:
    shape.keys(source, f"{path}.url", required=("type", "url"))
    if not shape.string(source["url"], f"{path}.url.url").startswith("https://"):
        raise invalid(f"{path}.url.url: Only HTTPS URLs are supported.")


def _base64(value: Any, path: str) -> bytes:
    try:
        return base64.b64decode(shape.string(value, path), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{path}: invalid base64 data") from error


def _image_data(encoded: str, media_type: str, path: str) -> None:
    """The size that counts is that of the base64 text."""
    if not encoded:
        raise invalid(f"{path}: image cannot be empty")
    if len(encoded) > _MAX_IMAGE_CHARS:
        raise invalid(f"{path}: image exceeds 5 MB maximum: {len(encoded)} bytes > {_MAX_IMAGE_CHARS} bytes")
    data = _base64(encoded, f"{path}.data")
    found = _sniff(data)
    if found is None:
        raise invalid("Could not process image")
    if max(pixels(data)) > MAX_PIXELS:
        raise invalid(
            f"{path}.data: At least one of the image dimensions exceed max allowed size: {MAX_PIXELS} pixels"
        )
    if found != media_type:
        raise invalid(
            f"{path}.data: The image was specified using the {media_type} media type, but the image"
            " appears to be a"
            f" {found} image"
        )


def pixels(data: bytes) -> tuple[int, int]:
    """Returns width and height of a PNG or GIF; 0 for what these bytes do not say."""
    if data.startswith(b"\x89PNG") and data[12:16] == b"IHDR":
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(b"GIF8"):
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    return 0, 0


def _sniff(data: bytes) -> str | None:
    """The media type that an image's first bytes show."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _document(block: dict[str, Any], path: str) -> None:
    optional = ("cache_control", "citations", "title", "context")
    shape.keys(block, f"{path}.document", required=("type", "source"), optional=optional)
    source = shape.mapping(block["source"], f"{path}.document.source")
    where = f"{path}.document.source"
    kind = shape.one_of(source.get("type"), f"{where}.type", ("base64", "text", "url", "content", "file"))
    if kind == "url":
        _url(source, where)
    elif kind == "text":
        shape.one_of(source.get("media_type"), f"{where}.text.media_type", ("text/plain",))
        shape.string(source.get("data"), f"{where}.text.data")
    elif kind == "base64":
        shape.one_of(source.get("media_type"), f"{where}.base64.media_type", ("application/pdf",))
        if not _base64(source.get("data"), f"{where}.base64.data").startswith(b"%PDF"):
            raise invalid(f"{where}.base64.data: The PDF specified was not valid.")


def _search_result(block: dict[str, Any], path: str) -> None:
    optional = ("cache_control", "citations")
    required = ("type", "source", "title", "content")
    shape.keys(block, f"{path}.search_result", required=required, optional=optional)
    for number, inner in enumerate(shape.sequence(block["content"], f"{path}.search_result.content")):
        _text(shape.mapping(inner, path), f"{path}.search_result.content.{number}")


def _tool_result(block: dict[str, Any], path: str) -> None:
    optional = ("content", "is_error", "cache_control")
    shape.keys(block, f"{path}.tool_result", required=("type", "tool_use_id"), optional=optional)
    shape.string(block["tool_use_id"], f"{path}.tool_result.tool_use_id", pattern=_TOOL_ID)
    if "is_error" in block:
        shape.boolean(block["is_error"], f"{path}.tool_result.is_error")
    content = block.get("content", "")
    if isinstance(content, str):
        return
    for number, inner in enumerate(shape.sequence(content, f"{path}.tool_result.content")):
        check(inner, "result", f"{path}.tool_result.content.{number}")


def _tool_reference(block: dict[str, Any], path: str) -> None:
    shape.keys(block, f"{path}.tool_reference", required=("type", "tool_name"), optional=("cache_control",))


def _tool_use(block: dict[str, Any], path: str) -> None:
    path = f"{path}.tool_use"
    shape.keys(block, path, required=("type", "id", "name", "input"), optional=("cache_control", "caller"))
    shape.string(block["id"], f"{path}.id", pattern=_TOOL_ID)
    shape.string(block["name"], f"{path}.name", pattern=_TOOL_NAME)
    shape.mapping(block["input"], f"{path}.input")


def _thinking(block: dict[str, Any], path: str) -> None:
    """See `_signed`, which knows the model."""


def _signed(block: dict[str, Any], path: str, model: str) -> None:
    shape.keys(block, f"{path}.thinking", required=("type", "thinking", "signature"))
    text = shape.string(block["thinking"], f"{path}.thinking.thinking")
    if not signature.fits(shape.string(block["signature"], f"{path}.thinking.signature"), text, model):
        raise invalid(f"{path}: Invalid `signature` in `thinking` block")


def _redacted(block: dict[str, Any], path: str) -> None:
    shape.keys(block, f"{path}.redacted_thinking", required=("type", "data"))
    shape.string(block["data"], f"{path}.redacted_thinking.data")


_Rule = Callable[[dict[str, Any], str], None]
_READABLE: dict[str, _Rule] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
}
_RULES: Mapping[str, Mapping[str, _Rule]] = {
    "user": {**_READABLE, "tool_result": _tool_result},
    "assistant": {
        "text": _text,
        "tool_use": _tool_use,
        "thinking": _thinking,
        "redacted_thinking": _redacted,
    },
    "result": {**_READABLE, "tool_reference": _tool_reference},
    "system": {"text": _text},
}
