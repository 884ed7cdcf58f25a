"""What the backend of a subscription may refuse: requests that are not the CLI's own. Pure.

A bearer token that begins like a subscription's makes the API play such a backend. There are two of them, because it is
not known how closely one looks: the strict one wants the whole body to be the CLI's, the other, for a token with
`lenient` in it, only the CLI's own words at the head of the system prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ccd_offline.errors import RefusedError

TOKEN = "sk-ant-oat"
_LENIENT = "lenient"
_IDENTITIES = ("You are Claude Code,", "You are a Claude agent, built on Anthropic's Claude Agent SDK")
REFUSAL = (
    "This credential is only authorized for use with Claude Code and cannot be used for other API requests."
)


class _Owner(msgspec.Struct):
    session_id: str = ""


def check(headers: Mapping[str, str], body: Mapping[str, Any]) -> None:
    """Refuse a request that a subscription does not pay for.

    Args:
        headers: under lower-case names.

    Raises:
        RefusedError: 400, in the words that a backend was seen to use.
    """
    token = headers.get("authorization", "").removeprefix("Bearer").strip()
    if not token.startswith(TOKEN):
        return
    own = _opens_as_the_cli(body.get("system"))
    if _LENIENT not in token:
        own = own and _names_the_session(body.get("metadata"), headers.get("x-claude-code-session-id", ""))
    if not own:
        raise RefusedError(400, REFUSAL)


def _opens_as_the_cli(system: object) -> bool:
    first = system[0] if isinstance(system, list) and system else None
    text = first.get("text") if isinstance(first, dict) else None
    return isinstance(text, str) and text.startswith(_IDENTITIES)


def _names_the_session(metadata: object, session_id: str) -> bool:
    """The CLI says in the body whose session it is, and again in a header; a replaced body does not know it."""
    owner = metadata.get("user_id") if isinstance(metadata, dict) else None
    if not isinstance(owner, str) or not session_id:
        return False
    try:
        return msgspec.json.decode(owner, type=_Owner).session_id == session_id
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False
