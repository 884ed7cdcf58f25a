"""Reads messages one by one, in OpenAI's words or the Messages API's, as turns of content blocks. Pure.

Each message is judged alone here; what they are to each other (which result belongs to which call, what may follow
what) is the matter of `ccd_protocol.chat.history`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ccd_client.content import Block, name_unknown, refusal, refuse
from ccd_client.messages.arguments import object_of
from ccd_client.messages.parts import content, pieces
from ccd_protocol.chat.history import HistoryMessage, Piece

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_COMMON = frozenset({"role", "content"})
_KNOWN_KEYS = {
    "assistant": _COMMON | {"tool_calls", "function_call", "refusal"},
    "tool": _COMMON | {"tool_call_id", "is_error", "name"},
    "function": _COMMON | {"name"},
}
# `index` is what is left in a call that was put together from a stream's pieces.
_CALL_KEYS = frozenset({"id", "type", "function", "index", "cache_control"})
_FUNCTION_KEYS = frozenset({"name", "arguments", "parsed_arguments"})
_UNSAFE_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")
_MAX_NAME_CHARS = 128


class Reader:
    """Messages so far.

    Attributes:
        system: the texts of system and developer messages, as blocks.
        turns: what user and assistant said, results of tool calls included, as it came.
        ignored: paths of what the wire has no place for.
    """

    def __init__(self) -> None:
        self.system: list[Block] = []
        self.turns: list[HistoryMessage] = []
        self.ignored: list[str] = []
        self._legacy = 0
        self._calls: list[tuple[str, str]] = []  # name and id of calls, for results that know the name alone

    def take(self, message: object, path: str) -> None:
        """Read the next message.

        Raises:
            RpcError: BAD_PARAMS naming what is wrong below `path`.
        """
        if not isinstance(message, Mapping):
            refuse(path, "must be an object with role and content")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            refuse(f"{path}.role", "must be system, developer, user, assistant or tool")
        name_unknown(message, _KNOWN_KEYS.get(role, _COMMON), path, self.ignored)
        if role in ("system", "developer"):
            self._system(message, path)
        elif role == "user":
            found = pieces(message.get("content"), f"{path}.content", "user", self.ignored)
            self._add("user", found, path, message.get("content"))
        elif role == "assistant":
            self._assistant(message, path)
        else:
            self._result(message, path, role)

    def system_as_question(self) -> HistoryMessage:
        """Returns the system prompt as the user's turn, for a list that holds nothing else."""
        text = "\n\n".join(str(block["text"]) for block in self.system)
        return HistoryMessage("user", [Piece({"type": "text", "text": text}, "messages")], "messages", text)

    def _add(self, role: str, found: list[Piece], path: str, given: object) -> None:
        """A turn; its content stays a plain text if it was nothing else."""
        plain = (
            isinstance(given, str) and len(found) == 1 and found[0].block == {"type": "text", "text": given}
        )
        self.turns.append(
            HistoryMessage(role, found, path, given if plain and isinstance(given, str) else None)
        )

    def _system(self, message: Mapping[str, Any], path: str) -> None:
        said = content(message.get("content"), f"{path}.content", "system", self.ignored)
        if isinstance(said, str):
            self.system += [{"type": "text", "text": said}] if said else []
        else:
            self.system += said

    def _assistant(self, message: Mapping[str, Any], path: str) -> None:
        if message.get("audio"):
            refuse(f"{path}.audio", "is not supported")
        said = pieces(message.get("content"), f"{path}.content", "assistant", self.ignored)
        refused = pieces(message.get("refusal"), f"{path}.refusal", "assistant", self.ignored)
        calls = self._called(message, path, {piece.block.get("id") for piece in said})
        self._add("assistant", [*said, *refused, *calls], path, message.get("content"))
        self._calls += [
            (piece.block["name"], piece.block["id"])
            for piece in self.turns[-1].pieces
            if piece.block["type"] == "tool_use"
        ]

    def _called(self, message: Mapping[str, Any], path: str, said: set[Any]) -> list[Piece]:
        """The calls of a message, but for those that its content has already, as some clients keep both."""
        calls = message.get("tool_calls") or []
        if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
            refuse(f"{path}.tool_calls", "must be a list")
        found = [
            self._call(call, f"{path}.tool_calls[{index}]")
            for index, call in enumerate(calls)
            if not (isinstance(call, Mapping) and isinstance(call.get("id"), str) and call["id"] in said)
        ]
        legacy = message.get("function_call")
        if legacy and not calls:  # it has no id, and its result is found by name
            made = {"id": f"call_legacy_{self._legacy}", "type": "function", "function": legacy}
            self._legacy += 1
            found.append(self._call(made, f"{path}.function_call", f"{path}.function_call"))
        return found

    def _call(self, call: object, path: str, function_path: str = "") -> Piece:
        if not isinstance(call, Mapping):
            refuse(path, "must be an object with id, type and function")
        if call.get("type", "function") not in ("function", None):
            refuse(f"{path}.type", "must be 'function'; there are no other kinds of calls here")
        function, function_path = call.get("function"), function_path or f"{path}.function"
        if not isinstance(function, Mapping):
            refuse(function_path, "must be an object with name and arguments")
        name_unknown(call, _CALL_KEYS, path, self.ignored)
        name_unknown(function, _FUNCTION_KEYS, function_path, self.ignored)
        block: Block = {
            "type": "tool_use",
            "id": call.get("id"),
            "name": _name(function.get("name"), f"{function_path}.name", self.ignored),
            "input": object_of(function.get("arguments"), f"{function_path}.arguments", self.ignored),
        }
        if isinstance(call.get("cache_control"), Mapping):
            block["cache_control"] = dict(call["cache_control"])
        return Piece(block, path)

    def _result(self, message: Mapping[str, Any], path: str, role: str) -> None:
        call_id = message.get("tool_call_id") if role == "tool" else self._called_by_name(message, path)
        if isinstance(call_id, str):
            self._calls = [known for known in self._calls if known[1] != call_id]
        said = content(message.get("content"), f"{path}.content", "tool", self.ignored)
        block: Block = {"type": "tool_result", "tool_use_id": call_id}
        if said:
            block["content"] = said
        if message.get("is_error"):
            block["is_error"] = True
        self.turns.append(HistoryMessage("user", [Piece(block, path)], path))

    def _called_by_name(self, message: Mapping[str, Any], path: str) -> str:
        name = message.get("name")
        for function, call_id in self._calls:
            if function == name:
                return call_id
        raise refusal(f"{path}.name", f"{str(name)[:80]!r} is not called by an assistant message before")


def _name(value: object, path: str, ignored: list[str]) -> str:
    """A called function's name as the API takes it in a history."""
    if not isinstance(value, str) or not value:
        refuse(path, "must be a string that is not empty")
    fitted = _UNSAFE_IN_NAME.sub("_", value)[:_MAX_NAME_CHARS]
    if fitted != value:
        ignored.append(path)
    return fitted
