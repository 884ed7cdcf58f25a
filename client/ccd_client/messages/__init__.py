"""From OpenAI's messages to the wire's: pure, and shared by the clients and the gateway.

The wire takes the shape of the Messages API, where the system prompt stands apart and only `user` and
`assistant` turns follow. Turns stay turns; nothing is flattened into text. `reader` reads one message after the
other, in whichever API's words, and `ccd_protocol.chat.history` makes of them a history that the model API takes. What
cannot be carried is refused with the path of the parameter, before it costs a call; what is left out or changed is
listed in `Conversation.ignored`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ccd_client.content import check_text, refuse
from ccd_client.messages.picture import check_number
from ccd_client.messages.reader import Reader
from ccd_client.tools import tool_use, wire_format
from ccd_protocol.chat.history import HistoryMessage, mended, place
from ccd_protocol.methods import ChatParams, Message

SystemPrompt = str | list[dict[str, Any]]


class Conversation(NamedTuple):
    """What a message list means on the wire."""

    #: The texts of all system and developer messages, a blank line between them; blocks where one has a cache mark.
    system: SystemPrompt | None
    messages: list[Message]
    ignored: list[str]  # paths of what the wire has no place for, and of what was mended
    turns: Sequence[HistoryMessage] = ()  # the messages with the paths of the list that they come from


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
    reader = Reader()
    for index, message in enumerate(messages):
        reader.take(message, f"messages[{index}]")
    turns, system = reader.turns, reader.system
    if not turns and system:  # the model needs a user's turn to answer to
        turns, system = [reader.system_as_question()], []
    check_number(turns)
    said = mended(turns, continued=continued)
    return Conversation(_joined(system), said.messages, reader.ignored + said.named, said.turns)


def _joined(*prompts: SystemPrompt | None) -> SystemPrompt | None:
    """System prompts as one: a text, or blocks where one of them has more to say than its text."""
    given = [prompt for prompt in prompts if prompt]
    if all(
        isinstance(prompt, str) or not any(block.keys() - {"type", "text"} for block in prompt)
        for prompt in given
    ):
        texts = (text for prompt in given for text in _texts(prompt))
        return "\n\n".join(texts) or None
    return [block for prompt in given for block in _as_blocks(prompt)]


def _texts(prompt: SystemPrompt) -> list[str]:
    return [prompt] if isinstance(prompt, str) else [str(block["text"]) for block in prompt]


def _as_blocks(prompt: SystemPrompt) -> list[dict[str, Any]]:
    return [{"type": "text", "text": prompt}] if isinstance(prompt, str) else prompt


class ChatRequest(NamedTuple):
    """Parameters of a chat, and the paths of what they leave out."""

    params: ChatParams
    ignored: list[str]
    turns: Sequence[HistoryMessage] = ()

    def place(self, param: str) -> str:
        """Returns where the caller finds what the wire calls `messages[1].content[0]`; other names stay."""
        return place(self.turns, param)


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
    if system is not None and not isinstance(system, str):
        refuse("system", "must be a string")
    chosen = tool_use(tools, tool_choice, parallel_tool_calls, ignored=said.ignored)
    form = wire_format(response_format, ignored=said.ignored)
    if said.ignored and settings.get("strict"):
        refuse(said.ignored[0], "cannot be honoured, and the call is strict")
    params: dict[str, Any] = {
        "messages": said.messages,
        "system": _joined(system, said.system),
        "stop_sequences": stops,
        "tools": chosen.tools or None,
        "tool_choice": chosen.tool_choice,
        "format": form,
        **settings,
    }
    wire = {name: value for name, value in params.items() if value is not None}
    return ChatRequest(wire, said.ignored, said.turns)  # type: ignore[arg-type]  # a TypedDict built by key; the daemon checks it


def chat_params(messages: str | Sequence[Mapping[str, Any]], **options: Any) -> ChatParams:
    """The parameters alone of `chat_request`, which says what the options are."""
    return chat_request(messages, **options).params


def _stop(stop: object, ignored: list[str]) -> list[str] | None:
    """Stop sequences; an empty one asks for nothing, and the model API takes none that is only white space."""
    if stop is None:
        return None
    if isinstance(stop, str):
        stop = [stop]
    if not isinstance(stop, Sequence) or not all(isinstance(text, str) for text in stop):
        refuse("stop", "must be a string or a list of strings")
    given = [check_text(text, f"stop[{index}]") for index, text in enumerate(stop) if text]
    visible = [text for text in given if text.strip()]
    if len(visible) < len(given):
        ignored.append("stop")
    return visible or None
