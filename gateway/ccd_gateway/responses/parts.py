"""The parts of an item's content, as the API lists them, from whichever API's words they came in. Pure."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from ccd_client.content import name_unknown
from ccd_gateway.errors import bad_request, unsupported

Item = dict[str, Any]

_TEXTS = ("input_text", "text", "output_text")
_KNOWN = {
    **dict.fromkeys(_TEXTS, ("text", "annotations", "logprobs")),
    "refusal": ("refusal",),
    "input_image": ("image_url", "detail", "file_id"),
    "image_url": ("image_url",),
    "input_file": ("filename", "file_data", "file_url", "file_id"),
    "file": ("file",),
    "image": ("source",),
    "document": ("source", "title", "context", "citations"),
}


class Read(NamedTuple):
    """A content: its parts, and what in it is an item of its own in this API (calls, and results of calls)."""

    parts: list[Item]
    others: list[tuple[Item, str]]  # with their paths


def content(given: Any, path: str, *, assistant: bool, ignored: list[str]) -> Read:
    """Returns the parts of a message's content.

    Args:
        given: a text, a list of parts, or None.
        path: where it is.
        assistant: whose message it is.
        ignored: gets the paths of what is left out.

    Raises:
        ApiError: 400, naming the part.
    """
    if given is None:
        given = []
    if isinstance(given, str):
        given = [{"type": "text", "text": given}]
    if not isinstance(given, list):
        raise bad_request(f"'{path}': expected a text or a list of parts.", path)
    found = Read([], [])
    for index, one in enumerate(given):
        place = f"{path}[{index}]"
        part = {"type": "text", "text": one} if isinstance(one, str) else one  # as some clients put texts
        kind = mapping(part, place).get("type")
        if kind == ("tool_use" if assistant else "tool_result"):
            found.others.append((part, place))
        elif assistant and kind in ("thinking", "redacted_thinking"):
            ignored.append(place)
        else:
            found.parts.append(
                _answer_part(part, place, ignored) if assistant else input_part(part, place, ignored)
            )
    return found


def input_part(part: Any, path: str, ignored: list[str]) -> Item:
    """Returns one part that is not the assistant's.

    Raises:
        ApiError: 400, naming it.
    """
    part = {"type": "text", "text": part} if isinstance(part, str) else part
    kind = mapping(part, path).get("type")
    if kind not in _KNOWN or kind == "refusal":
        known = "input_text, input_image, input_file"
        raise bad_request(
            f"'{path}.type': {kind!r:.60} is not supported. Supported: {known}.", f"{path}.type"
        )
    name_unknown(part, ("type", "cache_control", *_KNOWN[kind]), path, ignored)
    if kind in _TEXTS:
        made: Item = {"type": "input_text", "text": text(part, "text", path, empty=True)}
    elif kind in ("input_image", "image_url"):
        made = _image(part, path, ignored)
    elif kind in ("input_file", "file"):
        made = _file(part, path, ignored)
    else:
        made = _block(part, path)
    return _marked(made, part)


def _answer_part(part: Mapping[str, Any], path: str, ignored: list[str]) -> Item:
    kind = part.get("type")
    if kind in _TEXTS:
        said = text(part, "text", path, empty=True)
        made: Item = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    elif kind == "refusal":
        made = {"type": "refusal", "refusal": text(part, "refusal", path, empty=True)}
    else:
        raise bad_request(f"'{path}.type': expected output_text or refusal.", f"{path}.type")
    name_unknown(part, ("type", "cache_control", *_KNOWN[str(kind)]), path, ignored)
    return _marked(made, part)


def _image(part: Mapping[str, Any], path: str, ignored: list[str]) -> Item:
    _refuse_file_id(part, path)
    given, detail = part.get("image_url"), part.get("detail")
    if isinstance(given, dict):  # as chat completions have it
        name_unknown(given, ("url", "detail"), f"{path}.image_url", ignored)
        url, detail = text(given, "url", f"{path}.image_url"), given.get("detail")
    else:
        url = text(part, "image_url", path)
    known = detail if detail in ("low", "high", "auto", "original") else "auto"
    return {"type": "input_image", "image_url": url, "detail": known}


def _file(part: Mapping[str, Any], path: str, ignored: list[str]) -> Item:
    given = part.get("file", part)
    if given is not part:
        path = f"{path}.file"
        name_unknown(mapping(given, path), ("filename", "file_data", "file_id"), path, ignored)
    _refuse_file_id(given, path)
    made = {"type": "input_file"}
    for name in ("filename", "file_data", "file_url"):
        if given.get(name) is not None:
            made[name] = text(given, name, path)
    if ("file_data" in made) == ("file_url" in made):
        raise bad_request(f"'{path}': expected either file_data or file_url.", path)
    return made


def _block(part: Mapping[str, Any], path: str) -> Item:
    """An image or a document of the Messages API's, in base64 or by its URL."""
    source, where = part.get("source"), f"{path}.source"
    kind = mapping(source, where).get("type")
    assert isinstance(source, dict)
    if kind == "url":
        url = text(source, "url", where)
    elif kind == "base64":
        url = f"data:{text(source, 'media_type', where)};base64,{text(source, 'data', where)}"
    elif kind == "text" and part["type"] == "document":
        url = f"data:text/plain;base64,{_base64(text(source, 'data', where))}"
    else:
        raise bad_request(f"'{where}.type': {kind!r:.60} is not supported here.", f"{where}.type")
    if part["type"] == "image":
        return {"type": "input_image", "image_url": url, "detail": "auto"}
    named = {"filename": part["title"]} if isinstance(part.get("title"), str) else {}
    return {"type": "input_file", **named, ("file_url" if kind == "url" else "file_data"): url}


def _base64(plain: str) -> str:
    return b2a_base64(plain.encode(errors="replace"), newline=False).decode()


def _marked(made: Item, part: Mapping[str, Any]) -> Item:
    mark = part.get("cache_control")
    return {**made, "cache_control": mark} if isinstance(mark, dict) else made


def _refuse_file_id(part: Mapping[str, Any], path: str) -> None:
    if part.get("file_id") is not None:
        raise unsupported(f"{path}.file_id", "A file by its id (there are no stored files)")


def mapping(value: Any, path: str) -> Mapping[str, Any]:
    """Returns an object.

    Raises:
        ApiError: 400 for anything else.
    """
    if not isinstance(value, dict):
        raise bad_request(f"'{path}': expected an object with a type.", path)
    return value


def text(item: Mapping[str, Any], name: str, path: str, *, empty: bool = False) -> str:
    """Returns a text of an object.

    Raises:
        ApiError: 400 for anything else, and for an empty one unless that will do.
    """
    value = item.get(name)
    if not isinstance(value, str) or not (value or empty):
        what = "a text" if empty else "a text that is not empty"
        raise bad_request(f"'{path}.{name}': expected {what}.", f"{path}.{name}")
    return value


# --- to what the client's library reads ---


def chat_part(part: Item) -> Item:
    """Returns a listed part in chat completions' words."""
    kind = part["type"]
    if kind == "refusal":
        made: Item = {"type": "refusal", "refusal": part["refusal"]}
    elif kind == "input_image":
        made = {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part["detail"]}}
    elif kind == "input_file":
        data = part.get("file_data") or part["file_url"]
        made = {"type": "file", "file": {"file_data": data, "filename": part.get("filename")}}
    else:
        made = {"type": "text", "text": part["text"]}
    return _marked(made, part)
