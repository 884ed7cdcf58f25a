"""Input items: checked, given ids, and made into the messages that `ccd_client.messages` takes. Pure.

An item is what the API stores and lists; a message is what the model is sent. Calls, their results and the
assistant's words are separate items, but one message holds all that the assistant said at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ccd_gateway.errors import ApiError, bad_request, unsupported
from ccd_gateway.responses.resource import new_id
from ccd_protocol.errors import RpcError

Item = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_TURNS = ("user", "assistant", "tool")
_OPENING = "(The assistant begins.)"
_MAX_ID_CHARS = 256
_MESSAGE_PATH = re.compile(r"messages\[(\d+)\]")


def own_items(given: str | Sequence[Mapping[str, Any]]) -> list[Item]:
    """The request's input as items with ids; an `item_reference` stays one.

    Raises:
        ApiError: 400, naming what is wrong.
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_item(item, f"input[{index}]") for index, item in enumerate(given)]


def _item(item: Mapping[str, Any], path: str) -> Item:
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind is None and isinstance(item.get("id"), str):
        kind = "item_reference"
    make = _MAKERS.get(kind) if isinstance(kind, str) else None
    if make is None:
        known = ", ".join(_MAKERS)
        raise bad_request(
            f"'{path}.type': {kind!r:.60} is not supported. Supported: {known}.", f"{path}.type"
        )
    return make(item, path)


# --- one maker for each type of item ---


def _message(item: Mapping[str, Any], path: str) -> Item:
    role = item.get("role")
    if role not in _ROLES:
        raise bad_request(f"'{path}.role': expected one of {', '.join(_ROLES)}.", f"{path}.role")
    content = item.get("content")
    if isinstance(content, str):
        content = [{"type": "output_text" if role == "assistant" else "input_text", "text": content}]
    if not isinstance(content, list):
        raise bad_request(f"'{path}.content': expected a text or a list of parts.", f"{path}.content")
    make = _answer_part if role == "assistant" else _part
    parts = [make(part, f"{path}.content[{index}]") for index, part in enumerate(content)]
    made = {"id": _id(item, "msg"), "type": "message", "role": role, "status": "completed", "content": parts}
    if item.get("phase") in ("commentary", "final_answer") and role == "assistant":
        made["phase"] = item["phase"]
    return made


def _function_call(item: Mapping[str, Any], path: str) -> Item:
    return {
        "id": _id(item, "fc"),
        "type": "function_call",
        "status": "completed",
        "call_id": _text(item, "call_id", path),
        "name": _text(item, "name", path),
        "arguments": _text(item, "arguments", path, empty=True),
    }


def _function_call_output(item: Mapping[str, Any], path: str) -> Item:
    output = item.get("output")
    if isinstance(output, list):
        output = [_part(part, f"{path}.output[{index}]") for index, part in enumerate(output)]
    elif not isinstance(output, str):
        raise bad_request(f"'{path}.output': expected a text or a list of parts.", f"{path}.output")
    return {
        "id": _id(item, "fco"),
        "type": "function_call_output",
        "status": "completed",
        "call_id": _text(item, "call_id", path),
        "output": output,
    }


def _reasoning(item: Mapping[str, Any], path: str) -> Item:
    """Kept for listing only: the daemon itself remembers the signed thinking that belongs to a tool call."""
    summary = item.get("summary") or []
    if not isinstance(summary, list):
        raise bad_request(f"'{path}.summary': expected a list.", f"{path}.summary")
    parts = [
        {"type": "summary_text", "text": _text(_mapping(part, at), "text", at, empty=True)}
        for index, part in enumerate(summary)
        for at in [f"{path}.summary[{index}]"]
    ]
    return {
        "id": _id(item, "rs"),
        "type": "reasoning",
        "summary": parts,
        "content": [],
        "status": "completed",
    }


def _reference(item: Mapping[str, Any], path: str) -> Item:
    return {"type": "item_reference", "id": _text(item, "id", path)}


_MAKERS = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
    "item_reference": _reference,
}


# --- parts ---


def _part(part: Any, path: str) -> Item:
    part = _mapping(part, path)
    kind = part.get("type")
    if kind in ("input_text", "text", "output_text"):
        return {"type": "input_text", "text": _text(part, "text", path, empty=True)}
    if kind == "input_image":
        _refuse_file_id(part, path)
        detail = part.get("detail")
        known = detail if detail in ("low", "high", "auto", "original") else "auto"
        return {"type": "input_image", "image_url": _text(part, "image_url", path), "detail": known}
    if kind == "input_file":
        return _file(part, path)
    raise bad_request(
        f"'{path}.type': {kind!r:.60} is not supported. Supported: input_text, input_image, input_file.",
        f"{path}.type",
    )


def _file(part: Mapping[str, Any], path: str) -> Item:
    _refuse_file_id(part, path)
    made = {"type": "input_file"}
    for name in ("filename", "file_data", "file_url"):
        if part.get(name) is not None:
            made[name] = _text(part, name, path)
    if ("file_data" in made) == ("file_url" in made):
        raise bad_request(f"'{path}': expected either file_data or file_url.", path)
    return made


def _refuse_file_id(part: Mapping[str, Any], path: str) -> None:
    if part.get("file_id") is not None:
        raise unsupported(f"{path}.file_id", "A file by its id (there are no stored files)")


def _answer_part(part: Any, path: str) -> Item:
    part = _mapping(part, path)
    kind = part.get("type")
    if kind in ("output_text", "input_text", "text"):
        return {
            "type": "output_text",
            "text": _text(part, "text", path, empty=True),
            "annotations": [],
            "logprobs": [],
        }
    if kind == "refusal":
        return {"type": "refusal", "refusal": _text(part, "refusal", path, empty=True)}
    raise bad_request(f"'{path}.type': expected output_text or refusal.", f"{path}.type")


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f"'{path}': expected an object with a type.", path)
    return value


def _text(item: Mapping[str, Any], name: str, path: str, *, empty: bool = False) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not (value or empty):
        what = "a text" if empty else "a text that is not empty"
        raise bad_request(f"'{path}.{name}': expected {what}.", f"{path}.{name}")
    return value


def _id(item: Mapping[str, Any], prefix: str) -> str:
    given = item.get("id")
    return given if isinstance(given, str) and 0 < len(given) <= _MAX_ID_CHARS else new_id(prefix)


# --- items to messages ---


class ItemMessages(NamedTuple):
    """Messages as chat completions have them, and for each the path of the item that it comes from."""

    messages: list[dict[str, Any]]
    origins: list[str]


def to_messages(history: Iterable[Item], own: Iterable[Item]) -> ItemMessages:
    """All items in order as messages; neighbouring items of the assistant become one message.

    This API lets the assistant speak first and the model API does not, so such a conversation gets a first
    turn of the user's.
    """
    made = ItemMessages([], [])
    for item in history:
        _add(made, item, "previous_response_id")
    for index, item in enumerate(own):
        _add(made, item, f"input[{index}]")
    first = next((at for at, said in enumerate(made.messages) if said["role"] in _TURNS), None)
    if first is not None and made.messages[first]["role"] == "assistant":
        made.messages.insert(first, {"role": "user", "content": _OPENING})
        made.origins.insert(first, made.origins[first])
    return made


def _add(made: ItemMessages, item: Item, origin: str) -> None:
    kind = item["type"]
    if kind == "function_call_output":
        made.messages.append(
            {"role": "tool", "tool_call_id": item["call_id"], "content": _said(item["output"])}
        )
    elif kind == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        message = _assistant_message(made, origin)
        message.setdefault("tool_calls", []).append(call)
        return
    elif kind != "message":
        return  # reasoning says nothing to the model, and a reference was replaced by what it names
    elif item["role"] == "assistant":
        parts = [_chat_part(part) for part in item["content"] if part.get("text") or part.get("refusal")]
        if parts:
            message = _assistant_message(made, origin)
            message["content"] = [*(message["content"] or ()), *parts]
        return
    else:
        made.messages.append({"role": item["role"], "content": _said(item["content"])})
    made.origins.append(origin)


def _assistant_message(made: ItemMessages, origin: str) -> dict[str, Any]:
    if not made.messages or made.messages[-1]["role"] != "assistant":
        made.messages.append({"role": "assistant", "content": None})
        made.origins.append(origin)
    return made.messages[-1]


def _said(content: str | list[Item]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_chat_part(part) for part in content]


def _chat_part(part: Item) -> dict[str, Any]:
    kind = part["type"]
    if kind == "refusal":
        return {"type": "refusal", "refusal": part["refusal"]}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part["detail"]}}
    if kind == "input_file":
        data = part.get("file_data") or part["file_url"]
        return {"type": "file", "file": {"file_data": data, "filename": part.get("filename")}}
    return {"type": "text", "text": part["text"]}


def in_words_of_items(error: RpcError, origins: Sequence[str]) -> RpcError:
    """The same refusal with the paths of the input's items in place of the messages'."""

    def origin(match: re.Match[str]) -> str:
        index = int(match[1])
        return origins[index] if index < len(origins) else "input"

    data = dict(error.data)
    if isinstance(data.get("param"), str):
        data["param"] = _MESSAGE_PATH.sub(origin, data["param"])
    message = _MESSAGE_PATH.sub(origin, error.message)
    if data.get("param") == "messages":
        data["param"], message = "input", message.replace("messages", "input", 1)
    return RpcError(error.code, message, data)


def missing_reference(path: str, item_id: str) -> ApiError:
    """The 400 for an `item_reference` to what is not stored."""
    return bad_request(
        f"'{path}': no stored item has the id {item_id!r:.80}.", f"{path}.id", "item_not_found"
    )
