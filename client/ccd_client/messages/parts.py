"""From content parts to content blocks, in whichever API's words they are: OpenAI's two, the Messages API's. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ccd_client.content import Block, check_text, name_unknown, refuse, shown
from ccd_client.messages.arguments import object_of
from ccd_client.messages.media import document_block, file_block, image_block, source_block
from ccd_protocol.chat.history import Piece

_TEXTS = ("text", "input_text", "output_text")
_MEDIA = ("image_url", "input_image", "image", "file", "input_file", "document")
_KINDS_OF_ROLE: Mapping[str, tuple[str, ...]] = {
    "system": _TEXTS,
    "user": (*_TEXTS, *_MEDIA, "tool_result"),
    "assistant": (*_TEXTS, "refusal", "tool_use", "thinking", "redacted_thinking"),
    "tool": (*_TEXTS, *_MEDIA),
}
#: What clients are told that they may send; the others are another API's words for the same.
_TOLD_OF_ROLE = {
    "system": "text",
    "user": "text, image_url, file",
    "assistant": "text, refusal",
    "tool": "text, image_url, file",
}
_MESSAGES_ONLY = frozenset(
    [
        *(
            "server_tool_use",
            "web_search_tool_result",
            "web_fetch_tool_result",
            "mcp_tool_use",
            "mcp_tool_result",
        ),
        *("code_execution_tool_result", "search_result", "tool_reference", "container_upload", "compaction"),
    ]
)
_COMMON = frozenset({"type", "cache_control"})


def content(value: object, path: str, role: str, ignored: list[str]) -> str | list[Block]:
    """Returns the content of a message: a text stays a text, parts become blocks; see `pieces`."""
    found = pieces(value, path, role, ignored)
    if isinstance(value, str):
        return value if found else ""
    return [piece.block for piece in found]


def pieces(value: object, path: str, role: str, ignored: list[str]) -> list[Piece]:
    """Returns the blocks of a message's content, each with its path.

    Text parts without a visible character are left out, because the model API refuses them and they say
    nothing; a content of which nothing is left is empty, for the caller to judge.

    Args:
        value: None, a string or a list of parts.
        path: what to name in a refusal.
        role: system, user, assistant or tool: decides which parts may come.
        ignored: gets the paths of what has no counterpart.

    Raises:
        RpcError: BAD_PARAMS with the path of the part.
    """
    if value is None:
        return []
    if isinstance(value, str):
        check_text(value, path)
        return [Piece({"type": "text", "text": value}, path)] if value.strip() else []
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        refuse(path, "must be a string or a list of parts")
    found = []
    for index, part in enumerate(value):
        block = _part(part, f"{path}[{index}]", role, ignored)
        if block is not None:
            found.append(Piece(block, f"{path}[{index}]"))
    return found


def _part(part: Any, path: str, role: str, ignored: list[str]) -> Block | None:
    if isinstance(part, str):  # some clients put bare texts among the parts
        part = {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        refuse(path, "must be an object with a type")
    kind = part.get("type")
    if kind not in _KINDS_OF_ROLE[role]:
        where = "; the Messages API's route, /v1/messages, takes it" if kind in _MESSAGES_ONLY else ""
        told = _TOLD_OF_ROLE[role]
        refuse(
            f"{path}.type", f"{shown(kind)} is not supported in a {role} message; there are: {told}{where}"
        )
    make, known = _KINDS[str(kind)]
    name_unknown(part, _COMMON | known, path, ignored)
    block = make(part, path, ignored)
    mark: object = part.get("cache_control")
    if (
        block is not None
        and isinstance(mark, Mapping)
        and block["type"] not in ("thinking", "redacted_thinking")
    ):
        block["cache_control"] = dict(mark)
    elif mark:
        ignored.append(f"{path}.cache_control")
    return block


def _text(part: Mapping[str, Any], path: str, ignored: list[str]) -> Block | None:
    text = part.get("text")
    if not isinstance(text, str):
        refuse(f"{path}.text", "must be a string")
    return {"type": "text", "text": check_text(text, f"{path}.text")} if text.strip() else None


def _refused(part: Mapping[str, Any], path: str, ignored: list[str]) -> Block | None:
    text = part.get("refusal")
    if not isinstance(text, str):
        refuse(f"{path}.refusal", "must be a string")
    return {"type": "text", "text": check_text(text, f"{path}.refusal")} if text.strip() else None


def _image_url(part: Mapping[str, Any], path: str, ignored: list[str]) -> Block:
    """An image as OpenAI's APIs have it: the URL alone, or with a detail, or both beside each other."""
    given, path = part.get("image_url"), f"{path}.image_url"
    nested = isinstance(given, Mapping)
    if isinstance(given, Mapping):
        name_unknown(given, ("url", "detail"), path, ignored)
        detail, url = given.get("detail"), given.get("url")
    else:
        detail, url = part.get("detail"), given
    if detail not in (None, "", "auto"):
        ignored.append(f"{path}.detail" if nested else f"{path.removesuffix('.image_url')}.detail")
    if part.get("file_id"):
        refuse(f"{path.removesuffix('.image_url')}.file_id", "is not supported: there is no file store")
    return image_block(url, f"{path}.url" if nested else path)


def _file(part: Mapping[str, Any], path: str, ignored: list[str]) -> Block:
    given = part.get("file")
    if isinstance(given, Mapping):
        name_unknown(given, ("file_data", "filename", "file_id"), f"{path}.file", ignored)
    return file_block(given, f"{path}.file")


def _input_file(part: Mapping[str, Any], path: str, ignored: list[str]) -> Block:
    if part.get("file_id"):
        refuse(f"{path}.file_id", "is not supported: there is no file store; send the file in file_data")
    name = "file_data" if part.get("file_data") is not None else "file_url"
    url = part.get(name)
    if not isinstance(url, str):
        refuse(f"{path}.file_data", "must be a string: a data URL")
    return document_block(url, part.get("filename"), f"{path}.{name}")


def _media(part: Mapping[str, Any], path: str, ignored: list[str]) -> Block:
    """An image or document in the Messages API's own words."""
    return source_block(part, path)


def _tool_use(part: Mapping[str, Any], path: str, ignored: list[str]) -> Block:
    name = part.get("name")
    if not isinstance(name, str) or not name:
        refuse(f"{path}.name", "must be a string that is not empty")
    given = object_of(
        part.get("input"), f"{path}.input", [] if isinstance(part.get("input"), Mapping) else ignored
    )
    return {"type": "tool_use", "id": part.get("id"), "name": name, "input": given}


def _tool_result(part: Mapping[str, Any], path: str, ignored: list[str]) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": part.get("tool_use_id")}
    said = content(part.get("content"), f"{path}.content", "tool", ignored)
    if said:
        block["content"] = said
    if part.get("is_error"):
        block["is_error"] = True
    return block


def _thinking(part: Mapping[str, Any], path: str, ignored: list[str]) -> Block | None:
    """Signed thinking; without its signature it is nothing that the model API takes back."""
    text, signature = part.get("thinking"), part.get("signature")
    if not isinstance(text, str) or not isinstance(signature, str) or not signature:
        ignored.append(path)
        return None
    return {"type": "thinking", "thinking": text, "signature": signature}


def _redacted(part: Mapping[str, Any], path: str, ignored: list[str]) -> Block | None:
    data = part.get("data")
    if not isinstance(data, str) or not data:
        ignored.append(path)
        return None
    return {"type": "redacted_thinking", "data": data}


_Maker = Callable[[Mapping[str, Any], str, list[str]], Block | None]
# What a text's annotations and probabilities say is about the answer that it was, and nothing to a model.
_TEXT: tuple[_Maker, frozenset[str]] = (_text, frozenset({"text", "annotations", "logprobs"}))
_KINDS: Mapping[str, tuple[_Maker, frozenset[str]]] = {
    **dict.fromkeys(_TEXTS, _TEXT),
    "refusal": (_refused, frozenset({"refusal"})),
    "image_url": (_image_url, frozenset({"image_url", "detail"})),
    "input_image": (_image_url, frozenset({"image_url", "detail", "file_id"})),
    "image": (_media, frozenset({"source"})),
    "file": (_file, frozenset({"file"})),
    "input_file": (_input_file, frozenset({"filename", "file_data", "file_url", "file_id"})),
    "document": (_media, frozenset({"source", "title", "context", "citations"})),
    "tool_use": (_tool_use, frozenset({"id", "name", "input", "caller"})),
    "tool_result": (_tool_result, frozenset({"tool_use_id", "content", "is_error"})),
    "thinking": (_thinking, frozenset({"thinking", "signature"})),
    "redacted_thinking": (_redacted, frozenset({"data"})),
}
