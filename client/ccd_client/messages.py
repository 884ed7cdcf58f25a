"""From OpenAI's messages to the wire's: pure, and shared by the clients and the gateway.

The wire takes the shape of the Messages API, where the system prompt stands apart and only `user` and
`assistant` turns follow. Turns stay turns; nothing is flattened into text. Results of tool calls become the
head of the user turn that follows the calls. What cannot be carried is refused with the path of the
parameter, before it costs a call; what is left out without changing the answer is listed in
`Conversation.ignored`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from ccd_client.content import Block, as_blocks, content, refusal, refuse
from ccd_client.tools import tool_use, wire_format
from ccd_protocol.methods import ChatParams, Message

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_COMMON = frozenset({"role", "content"})
_KNOWN_KEYS = {
    "assistant": _COMMON | {"tool_calls", "function_call", "refusal"},
    "tool": _COMMON | {"tool_call_id", "is_error", "name"},
    "function": _COMMON | {"name"},
}
_UNSAFE_IN_ID = re.compile(r"[^A-Za-z0-9_-]")
_MAX_SHOWN_IDS = 10


class Conversation(NamedTuple):
    """What a message list means on the wire."""

    system: str | None  # the texts of all system and developer messages, a blank line between them
    messages: list[Message]
    ignored: list[str]  # paths of keys with a value that the wire has no place for


def conversation(messages: str | Sequence[Mapping[str, Any]], *, continued: bool = False) -> Conversation:
    """A prompt, or an OpenAI-style list of messages, as system prompt and turns.

    A list of only system messages is the user's prompt. Beyond OpenAI's own keys a `tool` message may say
    `"is_error": true`.

    Args:
        messages: the prompt or the list.
        continued: a stored conversation stands before the list, so that it may begin with results.

    Raises:
        RpcError: BAD_PARAMS with `data["param"]` naming what is wrong.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, Sequence) or isinstance(messages, bytes | bytearray):
        refuse("messages", "must be a string or a list of messages")
    reader = _Reader(continued)
    for index, message in enumerate(messages):
        reader.take(message, f"messages[{index}]")
    reader.end(len(messages))
    return Conversation("\n\n".join(reader.system) or None, reader.turns, reader.ignored)


class ChatRequest(NamedTuple):
    """Parameters of a chat, and the paths of what they leave out."""

    params: ChatParams
    ignored: list[str]


def chat_request(
    messages: str | Sequence[Mapping[str, Any]],
    *,
    system: str | None = None,
    stop: str | Sequence[str] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    parallel_tool_calls: bool | None = None,
    response_format: Mapping[str, Any] | None = None,
    **settings: Any,
) -> ChatRequest:
    """Parameters of `chat.stream` and `chat.complete` from OpenAI's; settings that are None are left out.

    Args:
        messages: a prompt, or an OpenAI-style list.
        system: stands before the system messages of the list.
        stop: a stop sequence or several.
        tools: OpenAI's, as are `tool_choice`, `parallel_tool_calls` and `response_format`.
        tool_choice: see `tools`.
        parallel_tool_calls: see `tools`.
        response_format: see `tools`.
        **settings: further parameters of `ChatParams`, under their own names. With `strict`, what the
            messages hold and the wire has no place for is refused.

    Raises:
        RpcError: BAD_PARAMS with `data["param"]` naming what is wrong.
    """
    said = conversation(messages, continued=settings.get("conversation_id") is not None)
    stops = _stop(stop, said.ignored)
    if said.ignored and settings.get("strict"):
        refuse(said.ignored[0], "cannot be honoured, and the call is strict")
    if system is not None and not isinstance(system, str):
        refuse("system", "must be a string")
    chosen = tool_use(tools, tool_choice, parallel_tool_calls)
    params: dict[str, Any] = {
        "messages": said.messages,
        "system": "\n\n".join(text for text in (system, said.system) if text) or None,
        "stop_sequences": stops,
        "tools": chosen.tools or None,
        "tool_choice": chosen.tool_choice,
        "format": wire_format(response_format),
        **settings,
    }
    wire = {name: value for name, value in params.items() if value is not None}
    return ChatRequest(wire, said.ignored)  # type: ignore[arg-type]  # a TypedDict built by key; the daemon checks it


def chat_params(messages: str | Sequence[Mapping[str, Any]], **options: Any) -> ChatParams:
    """The parameters alone of `chat_request`, which says what the options are."""
    return chat_request(messages, **options).params


class _Reader:
    """Reads messages in order, and knows which tool calls still wait for a result."""

    def __init__(self, continued: bool) -> None:
        self._continued = continued
        self.system: list[str] = []
        self.turns: list[Message] = []
        self.ignored: list[str] = []
        self._results: list[Block] = []  # wait for the user turn that they begin
        self._open: dict[str, str] = {}  # call ids without a result: name of the function
        self._asked: dict[str, str] = {}  # every call id so far: path of the call

    def take(self, message: object, path: str) -> None:
        if not isinstance(message, Mapping):
            refuse(path, "must be an object with role and content")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            refuse(f"{path}.role", "must be system, developer, user, assistant or tool")
        known = _KNOWN_KEYS.get(role, _COMMON)
        self.ignored += [f"{path}.{key}" for key in message if key not in known and message[key]]
        if role in ("system", "developer"):
            said = content(message.get("content"), f"{path}.content", "system", self.ignored)
            self.system += ["\n\n".join(block["text"] for block in as_blocks(said))] if said else []
        elif role == "user":
            self._user(message, path)
        elif role == "assistant":
            self._assistant(message, path)
        else:
            self._result(message, path, role)

    def end(self, count: int) -> None:
        self._refuse_open()
        self._begin_turn()
        if not self.turns and self.system:  # the model needs a user's turn to answer to
            self.turns.append({"role": "user", "content": "\n\n".join(self.system)})
            self.system.clear()
        if not self.turns:
            refuse("messages", "must hold at least one user message")
        if self.turns[-1]["role"] != "user":
            problem = "the last turn must be the user's; answers cannot be prefilled"
            refuse(f"messages[{count - 1}].role", problem)

    def _user(self, message: Mapping[str, Any], path: str) -> None:
        self._refuse_open()
        said = content(message.get("content"), f"{path}.content", "user", self.ignored)
        if not said:
            refuse(f"{path}.content", "must not be empty")
        if self._results:
            said = [*self._results, *as_blocks(said)]
            self._results = []
        self.turns.append({"role": "user", "content": said})

    def _assistant(self, message: Mapping[str, Any], path: str) -> None:
        self._begin_turn()
        self._refuse_open()
        if not self.turns:
            refuse(f"{path}.role", "the first turn must be the user's")
        if message.get("audio"):
            refuse(f"{path}.audio", "is not supported")
        said = content(message.get("content"), f"{path}.content", "assistant", self.ignored)
        refused = content(message.get("refusal"), f"{path}.refusal", "assistant", self.ignored)
        calls = self._calls(message, path)
        if refused or calls:
            said = [*as_blocks(said), *as_blocks(refused), *calls]
        if not said:
            refuse(f"{path}.content", "must not be empty, unless there are tool_calls")
        self.turns.append({"role": "assistant", "content": said})

    def _calls(self, message: Mapping[str, Any], path: str) -> list[Block]:
        calls = message.get("tool_calls") or []
        if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
            refuse(f"{path}.tool_calls", "must be a list")
        blocks = [self._call(call, f"{path}.tool_calls[{index}]") for index, call in enumerate(calls)]
        legacy = message.get("function_call")
        if legacy:  # it has no id, and its result is found by name
            made = {"id": f"call_legacy_{len(self._asked)}", "type": "function", "function": legacy}
            blocks.append(self._call(made, f"{path}.function_call", f"{path}.function_call"))
        return blocks

    def _call(self, call: object, path: str, function_path: str = "") -> Block:
        if not isinstance(call, Mapping):
            refuse(path, "must be an object with id, type and function")
        if call.get("type", "function") != "function":
            refuse(f"{path}.type", "must be 'function'; there are no other kinds of calls here")
        function, function_path = call.get("function"), function_path or f"{path}.function"
        if not isinstance(function, Mapping):
            refuse(function_path, "must be an object with name and arguments")
        name = function.get("name")
        if not isinstance(name, str) or not name:
            refuse(f"{function_path}.name", "must be a string that is not empty")
        given = _arguments(function.get("arguments"), f"{function_path}.arguments")
        call_id = _wire_id(call.get("id"), f"{path}.id")
        if call_id in self._asked:
            refuse(
                f"{path}.id",
                f"is also the id of {self._asked[call_id]}; the ids of tool calls must be unique",
            )
        self._asked[call_id] = path
        self._open[call_id] = name
        return {"type": "tool_use", "id": call_id, "name": name, "input": given}

    def _result(self, message: Mapping[str, Any], path: str, role: str) -> None:
        call_id = self._call_of(message, path) if role == "tool" else self._call_named(message, path)
        self._open.pop(call_id, None)
        said = content(message.get("content"), f"{path}.content", "tool", self.ignored)
        block: Block = {"type": "tool_result", "tool_use_id": call_id}
        if said:
            block["content"] = said
        if message.get("is_error"):
            block["is_error"] = True
        self._results.append(block)

    def _call_of(self, message: Mapping[str, Any], path: str) -> str:
        call_id = _wire_id(message.get("tool_call_id"), f"{path}.tool_call_id")
        if call_id in self._open:
            return call_id
        if call_id in self._asked:
            refuse(f"{path}.tool_call_id", f"{call_id[:80]!r} has its result already")
        if self._continued and not self.turns:
            self._asked[call_id] = path
            return call_id
        problem = f"{call_id[:80]!r} is not the id of a tool call in the assistant message before"
        raise refusal(f"{path}.tool_call_id", problem)

    def _call_named(self, message: Mapping[str, Any], path: str) -> str:
        name = message.get("name")
        for call_id, function in self._open.items():
            if function == name:
                return call_id
        raise refusal(f"{path}.name", f"{str(name)[:80]!r} is not called by the assistant message before")

    def _refuse_open(self) -> None:
        """Every call needs its result before the conversation goes on."""
        if self._open:
            ids = ", ".join(list(self._open)[:_MAX_SHOWN_IDS])
            call = self._asked[next(iter(self._open))]
            refuse(call, f"has no result: the assistant message must be followed by tool messages for {ids}")

    def _begin_turn(self) -> None:
        """Results that no user message follows are a turn of their own."""
        if self._results and not self._open:
            self.turns.append({"role": "user", "content": self._results})
            self._results = []


def _wire_id(value: object, path: str) -> str:
    """A call's id as the model API takes it; other providers' ids may hold more kinds of characters."""
    if not isinstance(value, str) or not value:
        refuse(path, "must be the id of a tool call")
    return _UNSAFE_IN_ID.sub("_", value)


def _arguments(text: object, path: str) -> dict[str, Any]:
    if text in (None, ""):
        return {}
    if not isinstance(text, str):
        refuse(path, "must be a string that holds a JSON object")
    try:
        value = json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        refuse(path, f"must be a string that holds a JSON object: {error}")
    if not isinstance(value, dict):
        refuse(path, "must be a string that holds a JSON object")
    return value


def _not_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _stop(stop: object, ignored: list[str]) -> list[str] | None:
    """Stop sequences; the model API takes none that is only white space."""
    if stop is None:
        return None
    if isinstance(stop, str):
        stop = [stop]
    if not isinstance(stop, Sequence) or not all(isinstance(text, str) and text for text in stop):
        refuse("stop", "must be a string or a list of strings that are not empty")
    visible = [text for text in stop if text.strip()]
    if len(visible) < len(stop):
        ignored.append("stop")
    return visible or None
