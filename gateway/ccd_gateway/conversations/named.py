"""The conversation that a chat completion belongs to."""

from __future__ import annotations

import uuid
from urllib.parse import quote

import falcon.asgi

from ccd_gateway.access.caller import tenant_of
from ccd_gateway.errors import bad_request
from ccd_gateway.settings import GatewaySettings

_MAX_ID_CHARS = 200  # as the daemon has it


def conversation_params(
    req: falcon.asgi.Request, wanted: str | None, count: int, settings: GatewaySettings
) -> dict[str, str]:
    """What makes the daemon answer within a conversation; nothing when there is none.

    A chat that names none begins one only with `gateway.always_conversations`: most OpenAI clients send the
    whole history each time, and nobody would ever ask for what was kept of them.

    Args:
        req: the request.
        wanted: the conversation's name, if the client gives one.
        count: how many answers are asked for.
        settings: whether each chat begins one.

    Raises:
        ApiError: 400 for a name that cannot be one, and for several answers, of which only one could be kept.
    """
    several, name = count > 1, wanted or None
    if name is not None and not (len(name) <= _MAX_ID_CHARS and name.isprintable()):
        text = f"'conversation_id': expected at most {_MAX_ID_CHARS} printable characters."
        raise bad_request(text, "conversation_id")
    if name is None and settings.always_conversations and not several:
        name = str(uuid.uuid4())
    if name is None:
        return {}
    if several:
        raise bad_request("'n' must be 1 in a conversation: only one answer can be part of it.", "n")
    return {"conversation_id": name, "tenant": tenant_of(req)}


def header_text(name: str) -> str:
    """A conversation's id as it may stand in a header; percent-encoded where it is not visible ASCII."""
    return quote(name, safe="!#$&'()*+,/:;=?@[]<>^`{|}\"\\ ")
