"""Which keys a message that acts may have: one table for the socket, WebSockets and REST.

A key that is not known is an error, and nothing has happened: a misspelt `model` would go on with the dearest one, and
a misspelt `updated_input` would run a command that its reviewer has just changed.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, get_type_hints

from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import METHODS

#: Keys that older clients send with every message. They change nothing, and are let pass.
HARMLESS = frozenset({"id", "timestamp"})
#: Other spellings, by method: the CLI's own.
SPELLINGS: Mapping[str, Mapping[str, str]] = {"session.answer": {"updatedInput": "updated_input"}}
#: Whose keys are checked: every method that does something to a session or a conversation.
ACTING = frozenset(
    {
        *("session.open", "session.send", "session.interrupt", "session.set_model"),
        *("session.set_permission_mode", "session.answer", "session.close"),
        *("conversation.create", "conversation.delete"),
    }
)
_ACCEPTED = {method: frozenset(get_type_hints(METHODS[method].params)) for method in ACTING}


def acting(method: str, given: Mapping[str, Any], *, set_here: Collection[str] = ()) -> dict[str, Any]:
    """Returns the parameters of a method that acts, under their own names and without what changes nothing.

    Args:
        method: one of `ACTING`.
        given: by name, as they came.
        set_here: parameters that the caller of this function adds itself, so that nobody else may give them.

    Raises:
        RpcError: BAD_PARAMS for a key that the method does not have, or has twice.
    """
    accepted, spellings = _ACCEPTED[method].difference(set_here), SPELLINGS.get(method, {})
    params: dict[str, Any] = {}
    for key, value in given.items():
        name = spellings.get(key, key)
        if name in accepted:
            if name in params and params[name] != value:
                raise _bad(key, f"{name} is there twice, under two spellings")
            params[name] = value
        elif key not in HARMLESS:
            raise _bad(key, f"{key[:60]!r} is not known here, so nothing was done{_meant(key, accepted)}")
    return params


def _meant(key: str, accepted: frozenset[str]) -> str:
    near = difflib.get_close_matches(key[:60], accepted, 1)
    return f"; is {near[0]!r} meant?" if near else ""


def _bad(key: str, text: str) -> RpcError:
    return RpcError(Code.BAD_PARAMS, text, {"param": key[:60]})
