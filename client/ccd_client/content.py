"""From OpenAI's content parts to content blocks of the Messages API: pure, and bounded before decoding.

Images and files travel inside the request (data URLs) or are fetched by the model API itself (https). Nothing
is read from disk or fetched here, so a part cannot reach into the machine or its network.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

from ccd_protocol.errors import Code, RpcError

Block = dict[str, Any]

MAX_IMAGE_BYTES = 5 << 20  # the model API's own limit
MAX_FILE_BYTES = 32 << 20
_IMAGE_TYPES = frozenset({"image/jpeg", "image/jpg", "image/png", "image/gif", "image/webp"})
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})
_PDF = "application/pdf"
_MAX_SHOWN_CHARS = 60
_PARTS_OF_ROLE = {
    "system": ("text",),
    "user": ("text", "image_url", "file"),
    "assistant": ("text", "refusal"),
    "tool": ("text", "image_url", "file"),
}


def refusal(param: str, problem: str) -> RpcError:
    """BAD_PARAMS, naming a parameter by its path."""
    return RpcError(Code.BAD_PARAMS, f"{param} {problem}", {"param": param})


def refuse(param: str, problem: str) -> NoReturn:
    """Raise `refusal`."""
    raise refusal(param, problem)


def content(value: object, path: str, role: str, ignored: list[str]) -> str | list[Block]:
    """The content of a message: a text stays a text, parts become blocks.

    Text parts without a visible character are left out, because the model API refuses them and they say
    nothing; a content of which nothing is left is empty, for the caller to judge.

    Args:
        value: None, a string or a list of parts.
        path: what to name in a refusal.
        role: system, user, assistant or tool; decides which parts may come.
        ignored: gets the paths of what has no counterpart.

    Raises:
        RpcError: BAD_PARAMS with the path of the part.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value if value.strip() else ""
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        refuse(path, "must be a string or a list of parts")
    blocks = [_part(part, f"{path}[{index}]", role, ignored) for index, part in enumerate(value)]
    return [block for block in blocks if block is not None]


def as_blocks(value: str | list[Block]) -> list[Block]:
    """A content as blocks; an empty text is none."""
    if isinstance(value, str):
        return [{"type": "text", "text": value}] if value else []
    return value


def _part(part: Any, path: str, role: str, ignored: list[str]) -> Block | None:
    if not isinstance(part, Mapping):
        refuse(path, "must be an object with a type")
    kind = part.get("type")
    if kind not in _PARTS_OF_ROLE[role]:
        known = ", ".join(_PARTS_OF_ROLE[role])
        refuse(f"{path}.type", f"{_shown(kind)} is not supported in a {role} message; there are: {known}")
    if kind == "image_url":
        block: Block | None = _image_part(part.get("image_url"), f"{path}.image_url", ignored)
    elif kind == "file":
        block = file_block(part.get("file"), f"{path}.file")
    else:
        block = _text_part(part.get(str(kind)), f"{path}.{kind}")
    mark: object = part.get("cache_control")
    if block is not None and isinstance(mark, Mapping):
        block["cache_control"] = dict(mark)
    return block


def _text_part(text: object, path: str) -> Block | None:
    if not isinstance(text, str):
        refuse(path, "must be a string")
    return {"type": "text", "text": text} if text.strip() else None


def _image_part(value: object, path: str, ignored: list[str]) -> Block:
    if not isinstance(value, Mapping):
        return image_block(value, path)
    if value.get("detail") not in (None, "", "auto"):
        ignored.append(f"{path}.detail")
    return image_block(value.get("url"), f"{path}.url")


def image_block(url: object, path: str) -> Block:
    """An image block from a data URL (at most `MAX_IMAGE_BYTES`) or an https URL (for the API to fetch).

    The media type is the one that the bytes show, because many clients name a wrong one.

    Raises:
        RpcError: BAD_PARAMS naming `path`.
    """
    if not isinstance(url, str):
        refuse(path, "must be a string: a data URL or an https URL")
    if not url.startswith("data:"):
        return {"type": "image", "source": _url_source(url, path)}
    found = _data_url(url, path, MAX_IMAGE_BYTES)
    if found.media_type not in _IMAGE_TYPES:
        refuse(path, f"has the media type {_shown(found.media_type)}; images are JPEG, PNG, GIF or WebP")
    return _image(found, path)


def _image(found: _Data, path: str) -> Block:
    media_type = _sniffed(found.data)
    if media_type is None:
        refuse(path, "does not hold a JPEG, PNG, GIF or WebP image")
    return {"type": "image", "source": _base64_source(media_type, found.data)}


def file_block(file: object, path: str) -> Block:
    """A block from OpenAI's `file` object: a PDF, text or image, as a data URL in `file_data`.

    Raises:
        RpcError: BAD_PARAMS naming what is wrong below `path`.
    """
    if not isinstance(file, Mapping):
        refuse(path, "must be an object with file_data")
    if file.get("file_id"):
        refuse(f"{path}.file_id", "is not supported: there is no file store; send the file in file_data")
    url, path = file.get("file_data"), f"{path}.file_data"
    if not isinstance(url, str):
        refuse(path, "must be a string: a data URL")
    return document_block(url, file.get("filename"), path)


def document_block(url: str, filename: object, path: str) -> Block:
    """A block from the data URL of a PDF, a text or an image, or from the https URL of a PDF.

    Raises:
        RpcError: BAD_PARAMS naming `path`.
    """
    if not url.startswith("data:"):
        return _titled({"type": "document", "source": _url_source(url, path)}, filename)
    found = _data_url(url, path, MAX_FILE_BYTES)
    if found.media_type in _IMAGE_TYPES:
        if len(found.data) > MAX_IMAGE_BYTES:
            refuse(path, _too_large(MAX_IMAGE_BYTES))
        return _image(found, path)
    if found.media_type == _PDF:
        if not found.data.startswith(b"%PDF"):
            refuse(path, "does not hold a PDF")
        source: Block = _base64_source(_PDF, found.data)
    elif found.media_type.startswith("text/") or found.media_type in _TEXT_TYPES:
        source = {"type": "text", "media_type": "text/plain", "data": _utf8(found.data, path)}
    else:
        refuse(path, f"has the media type {_shown(found.media_type)}; files are PDF, text or images")
    return _titled({"type": "document", "source": source}, filename)


def _titled(block: Block, filename: object) -> Block:
    if isinstance(filename, str) and filename:
        block["title"] = filename
    return block


def _url_source(url: str, path: str) -> Block:
    if not url.startswith("https://"):
        what = f"is {_shown(url)}"
        refuse(
            path, f"{what}; give an https URL or a data URL: nothing is read from disk or fetched from here"
        )
    return {"type": "url", "url": url}


def _base64_source(media_type: str, data: bytes) -> Block:
    encoded = binascii.b2a_base64(data, newline=False).decode("ascii")
    return {"type": "base64", "media_type": media_type, "data": encoded}


class _Data(NamedTuple):
    media_type: str  # lower case, without parameters
    data: bytes


def _data_url(url: str, path: str, max_bytes: int) -> _Data:
    head, comma, body = url.partition(",")
    if not comma:
        refuse(path, "cannot be read: Invalid data URL format, expected data:TYPE;base64,…")
    if len(body) > max_bytes * 3 // 2:  # encoded it is larger by a third, line ends included
        refuse(path, _too_large(max_bytes))
    media_type, *parameters = head.removeprefix("data:").lower().split(";")
    if "base64" in (parameter.strip() for parameter in parameters):
        try:
            data = binascii.a2b_base64("".join(body.split()), strict_mode=True)
        except ValueError:
            refuse(path, "cannot be read: Invalid base64 data")
    else:
        data = unquote_to_bytes(body)
    if len(data) > max_bytes:
        refuse(path, _too_large(max_bytes))
    if not data:
        refuse(path, "is empty")
    return _Data(media_type.strip(), data)


def _too_large(max_bytes: int) -> str:
    return f"is larger than {max_bytes >> 20} MiB"


def _utf8(data: bytes, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        refuse(path, "is not a text in UTF-8")


def _sniffed(data: bytes) -> str | None:
    """The media type that an image's first bytes show."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _shown(value: object) -> str:
    """A client's value in an error message, short."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"
