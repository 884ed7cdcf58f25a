"""Input items: checked, given ids, and made into the messages that `ccd_client.messages` takes. Pure.

An item is what the API stores and lists; a message is what the model is sent. Calls, their results and the
assistant's words are separate items, and each becomes a message of its own: what belongs together is found by
`ccd_protocol.chat.history`, as for every other surface. Messages in chat completions' words are taken apart into items.

A further type of item gets a maker here (`_MAKERS`), and a line in `_message_of`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from ccd_client.content import name_unknown
from ccd_gateway.errors import ApiError, bad_request
from ccd_gateway.responses import parts
from ccd_gateway.responses.parts import Item, mapping, text
from ccd_gateway.responses.resource import new_id
from ccd_protocol.errors import RpcError

_ROLES = ("user", "assistant", "system", "developer")
_MAX_ID_CHARS = 256
_MESSAGE_PATH = re.compile(r"messages\[(\d+)\]")
#: What stands within a message for something that an item has at its top.
_INSIDE = (
    (re.compile(r"\.tool_calls\[0\]\.function\b"), ""),
    (re.compile(r"\.tool_calls\[0\]\.id\b|\.tool_call_id\b"), ".call_id"),
    (re.compile(r"\.tool_calls\[0\](?![\w\[])"), ""),
)
_COMMON = ("type", "id", "status")


class OwnItems(NamedTuple):
    """The items of a request, and for each the number of what it was made of in the request's `input`."""

    items: list[Item]
    numbers: list[int]


def own_items(given: str | Sequence[Mapping[str, Any]], ignored: list[str]) -> OwnItems:
    """Returns the request's input as items with ids; an `item_reference` stays one.

    Args:
        given: the request's `input`.
        ignored: gets the paths of what has no place in an item.

    Raises:
        ApiError: 400, naming what is wrong.
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    found = OwnItems([], [])
    for index, one in enumerate(given):
        made = _items(one, f"input[{index}]", ignored)
        found.items.extend(made)
        found.numbers.extend([index] * len(made))
    return found


def _items(item: Mapping[str, Any], path: str, ignored: list[str]) -> list[Item]:
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind is None and isinstance(item.get("id"), str):
        kind = "item_reference"
    make = _MAKERS.get(kind) if isinstance(kind, str) else None
    if make is None:
        known = ", ".join(_MAKERS)
        raise bad_request(
            f"'{path}.type': {kind!r:.60} is not supported. Supported: {known}.", f"{path}.type"
        )
    return make(item, path, ignored)


# --- one maker for each type of item ---


def _message(item: Mapping[str, Any], path: str, ignored: list[str]) -> list[Item]:
    role = item.get("role")
    if role in ("tool", "function"):  # as chat completions have it
        call_id = text(item, "tool_call_id", path)
        return [_result({"call_id": call_id, "output": item.get("content")}, path, ignored, "content")]
    if role not in _ROLES:
        raise bad_request(f"'{path}.role': expected one of {', '.join(_ROLES)}.", f"{path}.role")
    name_unknown(
        item, (*_COMMON, "role", "content", "phase", "tool_calls", "refusal", "annotations"), path, ignored
    )
    assistant = role == "assistant"
    read = parts.content(item.get("content"), f"{path}.content", assistant=assistant, ignored=ignored)
    calls = [_block_item(block, place, ignored) for block, place in read.others]
    calls += [
        _chat_call(call, f"{path}.tool_calls[{at}]", ignored) for at, call in enumerate(_calls(item, path))
    ]
    if calls and not read.parts:
        return calls
    made = {
        "id": _id(item, "msg"),
        "type": "message",
        "role": role,
        "status": "completed",
        "content": read.parts,
    }
    if item.get("phase") in ("commentary", "final_answer") and assistant:
        made["phase"] = item["phase"]
    return [made, *calls] if assistant else [*calls, made]


def _calls(item: Mapping[str, Any], path: str) -> Sequence[Any]:
    calls = item.get("tool_calls") or ()
    if not isinstance(calls, list | tuple):
        raise bad_request(f"'{path}.tool_calls': expected a list.", f"{path}.tool_calls")
    return calls


def _chat_call(call: Any, path: str, ignored: list[str]) -> Item:
    function = mapping(mapping(call, path).get("function"), f"{path}.function")
    name_unknown(call, ("id", "type", "function", "index"), path, ignored)
    given = {"call_id": call.get("id"), "name": function.get("name"), "arguments": function.get("arguments")}
    return _call(given, path, ignored)


def _block_item(block: Item, path: str, ignored: list[str]) -> Item:
    """A call, or the result of one, in the Messages API's words."""
    if block["type"] == "tool_use":
        given = {"call_id": block.get("id"), "name": block.get("name"), "arguments": block.get("input") or {}}
        return _call(given, path, [])
    return _result(
        {"call_id": block.get("tool_use_id"), "output": block.get("content")}, path, ignored, "content"
    )


def _function_call(item: Mapping[str, Any], path: str, ignored: list[str]) -> list[Item]:
    name_unknown(item, (*_COMMON, "call_id", "name", "arguments"), path, ignored)
    return [_call(item, path, ignored)]


def _call(item: Mapping[str, Any], path: str, ignored: list[str]) -> Item:
    arguments = item.get("arguments")
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):
        ignored.append(f"{path}.arguments")
        arguments = msgspec.json.encode(arguments).decode()
    return {
        "id": _id(item, "fc"),
        "type": "function_call",
        "status": "completed",
        "call_id": text(item, "call_id", path),
        "name": text(item, "name", path),
        "arguments": arguments,
    }


def _function_call_output(item: Mapping[str, Any], path: str, ignored: list[str]) -> list[Item]:
    name_unknown(item, (*_COMMON, "call_id", "output"), path, ignored)
    return [_result(item, path, ignored)]


def _result(item: Mapping[str, Any], path: str, ignored: list[str], named: str = "output") -> Item:
    output, path_of_output = item.get("output"), f"{path}.{named}"
    if isinstance(output, list):
        output = [
            parts.input_part(part, f"{path_of_output}[{at}]", ignored) for at, part in enumerate(output)
        ]
    elif output is None:
        output = ""
    elif not isinstance(output, str):
        raise bad_request(f"'{path_of_output}': expected a text or a list of parts.", path_of_output)
    return {
        "id": _id(item, "fco"),
        "type": "function_call_output",
        "status": "completed",
        "call_id": text(item, "call_id", path),
        "output": output,
    }


def _reasoning(item: Mapping[str, Any], path: str, ignored: list[str]) -> list[Item]:
    """Kept for listing only: the daemon itself remembers the signed thinking that belongs to a tool call."""
    name_unknown(item, (*_COMMON, "summary", "content"), path, ignored)
    summary = item.get("summary") or []
    if not isinstance(summary, list):
        raise bad_request(f"'{path}.summary': expected a list.", f"{path}.summary")
    found = [
        {"type": "summary_text", "text": text(mapping(part, at), "text", at, empty=True)}
        for index, part in enumerate(summary)
        for at in [f"{path}.summary[{index}]"]
    ]
    made = {
        "id": _id(item, "rs"),
        "type": "reasoning",
        "summary": found,
        "content": [],
        "status": "completed",
    }
    return [made]


def _reference(item: Mapping[str, Any], path: str, ignored: list[str]) -> list[Item]:
    return [{"type": "item_reference", "id": text(item, "id", path)}]


_Maker = Callable[[Mapping[str, Any], str, list[str]], list[Item]]
_MAKERS: Mapping[str, _Maker] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
    "item_reference": _reference,
}


def _id(item: Mapping[str, Any], prefix: str) -> str:
    given = item.get("id")
    return given if isinstance(given, str) and 0 < len(given) <= _MAX_ID_CHARS else new_id(prefix)


# --- items to messages ---


class ReadMessages(NamedTuple):
    """Messages as chat completions have them, and for each the path of the item that it comes from."""

    messages: list[dict[str, Any]]
    origins: list[str]


def to_messages(history: Iterable[Item], own: OwnItems) -> ReadMessages:
    """Returns all items in order as messages, each of its own: what was stored, and what the request brings."""
    made = ReadMessages([], [])
    placed = [(item, "previous_response_id") for item in history]
    placed += [(item, f"input[{number}]") for item, number in zip(*own, strict=True)]
    for item, origin in placed:
        message = _message_of(item)
        if message is not None:
            made.messages.append(message)
            made.origins.append(origin)
    return made


def _message_of(item: Item) -> dict[str, Any] | None:
    """What an item says; nothing where it is only kept for listing, as reasoning is."""
    kind = item["type"]
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item["call_id"], "content": _said(item["output"])}
    if kind == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind != "message":
        return None
    return {"role": item["role"], "content": _said(item["content"])}


def _said(content: str | list[Item]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [parts.chat_part(part) for part in content]


def in_words_of_items(error: RpcError, origins: Sequence[str]) -> RpcError:
    """The same refusal with the paths of the input's items in place of the messages'."""

    def origin(match: re.Match[str]) -> str:
        index = int(match[1])
        return origins[index] if index < len(origins) else "input"

    def words(path: str) -> str:
        for pattern, name in _INSIDE:
            path = pattern.sub(name, path)
        return _MESSAGE_PATH.sub(origin, path)

    data = dict(error.data)
    message = words(error.message)
    if isinstance(data.get("param"), str):
        data["param"] = words(data["param"])
    if data.get("param") == "messages":
        data["param"], message = "input", message.replace("messages", "input", 1)
    return RpcError(error.code, message, data)


def missing_reference(path: str, item_id: str) -> ApiError:
    """The 400 for an `item_reference` to what is not stored."""
    return bad_request(
        f"'{path}': no stored item has the id {item_id!r:.80}.", f"{path}.id", "item_not_found"
    )
