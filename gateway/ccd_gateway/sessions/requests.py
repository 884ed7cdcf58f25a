"""What a client of a session's WebSocket says, as calls of the daemon. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from ccd_gateway.errors import ApiError, bad_request


class Call(NamedTuple):
    """One call of the daemon; `params` lack the session and the tenant."""

    method: str
    params: dict[str, Any]


class _UserMessage(msgspec.Struct, tag="user_message"):
    content: str | list[dict[str, Any]]


class _PermissionResponse(msgspec.Struct, tag="permission_response"):
    request_id: str
    behavior: str = "deny"
    updated_input: dict[str, Any] | None = None
    message: str | None = None


class _Interrupt(msgspec.Struct, tag="interrupt"):
    pass


class _SetModel(msgspec.Struct, tag="set_model"):
    model: str | None = None


class _SetPermissionMode(msgspec.Struct, tag="set_permission_mode"):
    mode: str


class _KeepAlive(msgspec.Struct, tag="keep_alive"):
    pass


_Message = _UserMessage | _PermissionResponse | _Interrupt | _SetModel | _SetPermissionMode | _KeepAlive
_decode = msgspec.json.Decoder(_Message).decode
_METHODS: dict[Any, str] = {
    _UserMessage: "session.send",
    _PermissionResponse: "session.answer",
    _Interrupt: "session.interrupt",
    _SetModel: "session.set_model",
    _SetPermissionMode: "session.set_permission_mode",
}


def read(line: str) -> Call | None:
    """What one line asks for; None for a `keep_alive`.

    Raises:
        ApiError: 400, it is not a message that there is.
    """
    try:
        message = _decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _unreadable(error) from None
    method = _METHODS.get(type(message))
    return Call(method, msgspec.structs.asdict(message)) if method is not None else None


def _unreadable(error: Exception) -> ApiError:
    if isinstance(error, msgspec.ValidationError):
        return bad_request(f"This message cannot be understood: {error}.")
    return bad_request("A message must be a line of JSON.", code="invalid_json")
