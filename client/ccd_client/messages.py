"""From OpenAI's messages to the wire's: pure, and shared by the clients and the gateway.

The wire takes the shape of the Messages API, where the system prompt stands apart and only `user` and
`assistant` turns follow. Turns stay turns; nothing is flattened into text. What cannot be carried is refused
with the path of the parameter, and what is left out without changing the answer is listed in
`Conversation.ignored`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatParams, Message

_SYSTEM_ROLES = frozenset({"system", "developer"})
_TURN_ROLES = frozenset({"user", "assistant"})
_REFUSED_KEYS = ("tool_calls", "function_call", "audio", "tool_call_id")
_KNOWN_KEYS = frozenset({"role", "content", *_REFUSED_KEYS})


class Conversation(NamedTuple):
    """What a message list means on the wire."""

    system: str | None  # the texts of all system and developer messages, a blank line between them
    messages: list[Message]
    ignored: list[str]  # paths of keys with a value that the wire has no place for


def conversation(messages: str | Sequence[Mapping[str, Any]]) -> Conversation:
    """A prompt, or an OpenAI-style list of messages, as system prompt and turns.

    Raises:
        RpcError: BAD_PARAMS with `data["param"]` naming what is wrong.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, Sequence) or isinstance(messages, bytes | bytearray):
        _refuse("messages", "must be a string or a list of messages")
    system: list[str] = []
    turns: list[Message] = []
    ignored: list[str] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if not isinstance(message, Mapping):
            _refuse(path, "must be an object with role and content")
        role = _role(message, path)
        _refuse_unsupported(message, path)
        ignored += [f"{path}.{key}" for key in message if key not in _KNOWN_KEYS and message[key]]
        content = _content(message.get("content"), f"{path}.content")
        if role in _SYSTEM_ROLES:
            system.append(_text(content))
        else:
            turns.append({"role": role, "content": content})
    _check_turns(turns, len(messages))
    return Conversation("\n\n".join(system) or None, turns, ignored)


def chat_params(
    messages: str | Sequence[Mapping[str, Any]],
    *,
    system: str | None = None,
    stop: str | Sequence[str] | None = None,
    **settings: Any,
) -> ChatParams:
    """Parameters of `chat.stream` and `chat.complete`; settings that are None are left out.

    A `system` given here stands before the system messages of the list.

    Raises:
        RpcError: BAD_PARAMS with `data["param"]` naming what is wrong.
    """
    said = conversation(messages)
    params: dict[str, Any] = {"messages": said.messages}
    if system is not None and not isinstance(system, str):
        _refuse("system", "must be a string")
    whole_system = "\n\n".join(text for text in (system, said.system) if text)
    if whole_system:
        params["system"] = whole_system
    if stop is not None:
        params["stop_sequences"] = _stop(stop)
    params.update({name: value for name, value in settings.items() if value is not None})
    return params  # type: ignore[return-value]  # a TypedDict built by key; the daemon validates it


def _role(message: Mapping[str, Any], path: str) -> str:
    role = message.get("role")
    if role in ("tool", "function"):
        _refuse(f"{path}.role", f"{role!r} is not supported yet")
    if not isinstance(role, str) or role not in _SYSTEM_ROLES | _TURN_ROLES:
        _refuse(f"{path}.role", "must be system, developer, user or assistant")
    return role


def _refuse_unsupported(message: Mapping[str, Any], path: str) -> None:
    for key in _REFUSED_KEYS:
        if message.get(key):
            _refuse(f"{path}.{key}", "is not supported yet")


def _content(content: object, path: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        if not content:
            _refuse(path, "must not be empty")
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray) or not content:
        _refuse(path, "must be a string or a list of parts that is not empty")
    return [_part(part, f"{path}[{index}]") for index, part in enumerate(content)]


def _part(part: object, path: str) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        _refuse(path, "must be an object with a type")
    kind = part.get("type")
    if kind != "text":
        _refuse(f"{path}.type", "must be 'text'; other types are not supported yet")
    text = part.get("text")
    if not isinstance(text, str) or not text:
        _refuse(f"{path}.text", "must be a string that is not empty")
    return {"type": "text", "text": text}


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "\n\n".join(part["text"] for part in content)


def _check_turns(turns: list[Message], count: int) -> None:
    if not turns:
        _refuse("messages", "must hold at least one user message")
    if turns[-1]["role"] != "user":
        _refuse(
            f"messages[{count - 1}].role", "the last turn must be the user's; answers cannot be prefilled"
        )


def _stop(stop: object) -> list[str]:
    if isinstance(stop, str):
        stop = [stop]
    if not isinstance(stop, Sequence) or not all(isinstance(text, str) and text for text in stop):
        _refuse("stop", "must be a string or a list of strings that are not empty")
    return list(stop)


def _refuse(param: str, problem: str) -> NoReturn:
    raise RpcError(Code.BAD_PARAMS, f"{param} {problem}", {"param": param})
