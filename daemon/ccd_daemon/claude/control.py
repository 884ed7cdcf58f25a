"""What is written to a CLI's stdin and what its stdout lines mean, as pure functions and types.

Field names and behaviour are those observed of the CLI's stream-json mode. Only lines that are not token lines are
decoded here, each with the narrowest type that answers the question asked of it.
"""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode

#: Swapped in as soon as a message has started: should the CLI decide to make another call in this turn (it does so
#: by itself on max_tokens, refusals and empty answers), the API refuses that call before it costs anything.
GUARD_BODY = '{"messages":[],"max_tokens":0}'


class Kind(msgspec.Struct):
    """What kind of line it is."""

    type: str = ""
    subtype: str | None = None
    status: Any = None


class MessageDelta(msgspec.Struct):
    """The part of a `message_delta` that ends a message."""

    stop_reason: str | None = None
    stop_sequence: str | None = None


class StreamEvent(msgspec.Struct):
    """One event of the Messages API's stream."""

    type: str = ""
    message: dict[str, Any] | None = None
    delta: MessageDelta | None = None
    usage: dict[str, Any] | None = None


class StreamLine(msgspec.Struct):
    """A `stream_event` line."""

    event: StreamEvent
    parent_tool_use_id: str | None = None


class AssistantMessage(msgspec.Struct):
    """The finished content of (part of) an answer."""

    id: str | None = None
    model: str | None = None
    content: list[dict[str, Any]] = []


class AssistantLine(msgspec.Struct):
    """An `assistant` line: one per finished content block; `<synthetic>` ones are the CLI's own words."""

    message: AssistantMessage
    error: Any = None


class ControlReply(msgspec.Struct):
    """The answer to a control request."""

    subtype: str = ""
    request_id: str = ""
    response: msgspec.Raw = msgspec.Raw(b"{}")
    error: Any = None


class ControlReplyLine(msgspec.Struct):
    """A `control_response` line."""

    response: ControlReply


class ControlRequestLine(msgspec.Struct):
    """A `control_request` line: the CLI asks its host something."""

    request_id: str
    request: dict[str, Any] = {}


class CancelLine(msgspec.Struct):
    """A `control_cancel_request` line: the CLI no longer wants an answer."""

    request_id: str


class RetryLine(msgspec.Struct):
    """A `system/api_retry` line: the API call failed and the CLI will try again."""

    attempt: int = 0
    max_retries: int = 0
    retry_delay_ms: float = 0
    error_status: int | None = None
    error: Any = None


class ResultLine(msgspec.Struct):
    """A `result` line: the end of a turn. `subtype` may say success although `is_error` is true."""

    subtype: str = ""
    is_error: bool = False
    result: str | None = None
    errors: list[Any] | None = None
    api_error_status: int | None = None
    api_error_type: str | None = None
    stop_reason: str | None = None
    terminal_reason: str | None = None
    num_turns: int = 0
    local_command: str | None = None
    duration_ms: float = 0
    total_cost_usd: float | None = None
    usage: dict[str, Any] | None = None


class WarmReply(msgspec.Struct):
    """What the pool wants of the reply to `initialize` or `get_binary_version`, whichever was asked."""

    models: list[dict[str, Any]] = []
    claude_code_version: str | None = None
    capabilities: list[str] = []
    version: str | None = None


class Spent(msgspec.Struct):
    """What a process has spent since it began, or since it last forgot."""

    total_cost_usd: float | None = None


class CostReply(msgspec.Struct):
    """What is wanted of the reply to `get_usage`."""

    session: Spent = msgspec.field(default_factory=Spent)


kind_of = msgspec.json.Decoder(Kind).decode
stream_line = msgspec.json.Decoder(StreamLine).decode
assistant_line = msgspec.json.Decoder(AssistantLine).decode
control_reply = msgspec.json.Decoder(ControlReplyLine).decode
control_request = msgspec.json.Decoder(ControlRequestLine).decode
cancel_line = msgspec.json.Decoder(CancelLine).decode
retry_line = msgspec.json.Decoder(RetryLine).decode
result_line = msgspec.json.Decoder(ResultLine).decode
cost_reply = msgspec.json.Decoder(CostReply).decode
warm_reply = msgspec.json.Decoder(WarmReply).decode


def request(request_id: str, subtype: str, **fields: Any) -> bytes:
    """Returns a control request line."""
    return (
        _encode(
            {"type": "control_request", "request_id": request_id, "request": {"subtype": subtype, **fields}}
        )
        + b"\n"
    )


def reply_error(request_id: str, message: str) -> bytes:
    """Returns the answer to a control request of the CLI's that ccd does not serve."""
    response = {"subtype": "error", "request_id": request_id, "error": message}
    return _encode({"type": "control_response", "response": response}) + b"\n"


def reply(request_id: str, answer: dict[str, Any]) -> bytes:
    """Returns the answer to a control request of the CLI's."""
    response = {"subtype": "success", "request_id": request_id, "response": answer}
    return _encode({"type": "control_response", "response": response}) + b"\n"


def flags(
    request_id: str,
    *,
    env: dict[str, str],
    model: str | msgspec.UnsetType | None = msgspec.UNSET,
    effort: str | msgspec.UnsetType | None = msgspec.UNSET,
) -> bytes:
    """`apply_flag_settings`: live environment variables and, unless UNSET, model and effort (None: the default).

    The model travels this way because `set_model` with a pinned id makes a hidden, billed API call.
    """
    settings: dict[str, Any] = {"env": env}
    if model is not msgspec.UNSET:
        settings["model"] = model
    if effort is not msgspec.UNSET:
        settings["effortLevel"] = effort
    return request(request_id, "apply_flag_settings", settings=settings)


def user_line(content: str | list[dict[str, Any]], *, query: bool = True) -> bytes:
    """Returns a user message, taken literally: `client_composed` keeps `/command` and `@path` in it from being obeyed.

    With `query` false it only becomes part of the history; the CLI acknowledges it with a `result` line.
    """
    line: dict[str, Any] = {
        "type": "user",
        "message": {"role": "user", "content": content},
        "parent_tool_use_id": None,
        "session_id": "",
        "client_composed": True,
    }
    if not query:
        line["shouldQuery"] = False
    return _encode(line) + b"\n"


def session_line(content: str | list[dict[str, Any]]) -> bytes:
    """A user message of a session, whose owner may use the CLI's commands: `/compact` and `@path` are obeyed."""
    message = {"role": "user", "content": content}
    return _encode({"type": "user", "message": message, "parent_tool_use_id": None, "session_id": ""}) + b"\n"


def assistant_history_line(content: list[dict[str, Any]]) -> bytes:
    """Returns a past answer; it is appended to the history at once and never acknowledged."""
    message = {"role": "assistant", "content": content}
    return (
        _encode({"type": "assistant", "message": message, "parent_tool_use_id": None, "session_id": ""})
        + b"\n"
    )


def clear_line() -> bytes:
    """Returns the one line that is meant as a command: forget the conversation."""
    return session_line("/clear")
