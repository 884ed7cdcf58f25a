"""From OpenAI's content parts to content blocks of the Messages API: pure, and bounded before decoding.

Images and files travel inside the request (data URLs) or are fetched by the model API itself (https). Nothing
is read from disk or fetched here, so a part cannot reach into the machine or its network.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from ccd_client.content import MAX_FILE_BYTES, MAX_IMAGE_BYTES, Block, refuse, shown
from ccd_client.messages.picture import check_size

_IMAGE_TYPES = frozenset({"image/jpeg", "image/jpg", "image/png", "image/gif", "image/webp"})
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})
_PDF = "application/pdf"


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
        refuse(path, f"has the media type {shown(found.media_type)}; images are JPEG, PNG, GIF or WebP")
    return _image(found, path)


def _image(found: _Data, path: str) -> Block:
    media_type = _sniffed(found.data)
    if media_type is None:
        refuse(path, "does not hold a JPEG, PNG, GIF or WebP image")
    check_size(found.data, path)
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
        refuse(path, f"has the media type {shown(found.media_type)}; files are PDF, text or images")
    return _titled({"type": "document", "source": source}, filename)


def source_block(part: Mapping[str, Any], path: str) -> Block:
    """Returns an image or a document that is in the Messages API's own words already, checked as the others are.

    Raises:
        RpcError: BAD_PARAMS naming what is wrong below `path`.
    """
    source, where = part.get("source"), f"{path}.source"
    if not isinstance(source, Mapping):
        refuse(where, "must be an object with a type")
    kind = source.get("type")
    if kind == "url":
        url = source.get("url")
        made = {
            "type": part["type"],
            "source": _url_source(url if isinstance(url, str) else "", f"{where}.url"),
        }
    elif kind == "base64":
        made = _inline(part["type"], source, where)
    elif part["type"] == "document" and kind in ("text", "content"):
        made = {"type": "document", "source": dict(source)}
    else:
        refuse(f"{where}.type", f"{shown(kind)} is not supported here; there are: base64, url")
    further = {name: part[name] for name in ("title", "context", "citations") if part.get(name)}
    return {**made, **further} if made["type"] == "document" else made


def _inline(kind: str, source: Mapping[str, Any], path: str) -> Block:
    data, media_type = source.get("data"), source.get("media_type")
    if not isinstance(data, str) or not isinstance(media_type, str):
        refuse(f"{path}.data", "must be a string in base64, beside its media_type")
    url = f"data:{media_type};base64,{data}"
    return image_block(url, f"{path}.data") if kind == "image" else document_block(url, None, f"{path}.data")


def _titled(block: Block, filename: object) -> Block:
    if isinstance(filename, str) and filename:
        block["title"] = filename
    return block


def _url_source(url: str, path: str) -> Block:
    if not url.startswith("https://"):
        what = f"is {shown(url)}"
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
    if max_bytes == MAX_IMAGE_BYTES:
        return "is larger than 5 MB in base64, which is the most that the model API takes of an image"
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
