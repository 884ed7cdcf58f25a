"""What a client of a session's WebSocket says, as calls of the daemon. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from ccd_gateway.errors import bad_request
from ccd_protocol.acting import HARMLESS, acting


class SessionCall(NamedTuple):
    """One call of the daemon; `params` lack the session and the tenant."""

    method: str
    params: dict[str, Any]


class _UserMessage(msgspec.Struct):
    content: str | list[dict[str, Any]]


class _PermissionResponse(msgspec.Struct):
    request_id: str
    behavior: str = "deny"
    updated_input: dict[str, Any] | None = None
    message: str | None = None


class _Interrupt(msgspec.Struct):
    pass


class _SetModel(msgspec.Struct):
    model: str | None = None


class _SetPermissionMode(msgspec.Struct):
    mode: str


_KEEP_ALIVE = "keep_alive"
_KINDS: Mapping[str, tuple[str, type[msgspec.Struct]]] = {
    "user_message": ("session.send", _UserMessage),
    "permission_response": ("session.answer", _PermissionResponse),
    "interrupt": ("session.interrupt", _Interrupt),
    "set_model": ("session.set_model", _SetModel),
    "set_permission_mode": ("session.set_permission_mode", _SetPermissionMode),
}
_OURS = ("session_id", "tenant")  # the connection says which


def read(line: str) -> SessionCall | None:
    """What one line asks for; None for a `keep_alive`.

    Raises:
        ApiError: 400, it is not a message that there is.
        RpcError: BAD_PARAMS, it has a key that such a message does not have.
    """
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise bad_request("A message must be a line of JSON.", code="invalid_json") from None
    kind = fields.pop("type", None) if isinstance(fields, dict) else None
    if kind == _KEEP_ALIVE and fields.keys() <= HARMLESS:
        return None
    if not isinstance(kind, str) or kind not in _KINDS:
        text = f"{kind!r:.60} is no type of a message; there are: {', '.join(_KINDS)}."
        raise bad_request(f"This message cannot be understood: {text}")
    method, shape = _KINDS[kind]
    params = acting(method, fields, set_here=_OURS)
    try:
        return SessionCall(method, msgspec.structs.asdict(msgspec.convert(params, shape)))
    except (msgspec.ValidationError, RecursionError) as error:
        raise bad_request(f"This message cannot be understood: {error}.") from None
