"""The parameters of a call under the names that an API has for them, as `ccd_protocol.chat.parameters` says. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

from msgspec import Struct

from ccd_protocol.chat.parameters import Api, names_in

#: What `ccd_client.messages.chat_request` reads in OpenAI's own form, and the model, which goes with the profile.
SHAPED = frozenset({"messages", "model", "tools", "tool_choice", "format", "stop_sequences"})


def given(surface: Api, request: Struct, names: Iterable[str] | None = None) -> dict[str, Any]:
    """What a request gives, by the names of `ChatParams`.

    Args:
        surface: the API.
        request: its fields have the API's names.
        names: of the parameters to look for; None: all that the API has but for those that are `SHAPED`.
    """
    theirs = names_in(surface)
    wanted = theirs.keys() - SHAPED if names is None else names
    found = {name: reduce(_inside, theirs[name].split("."), request) for name in theirs if name in wanted}
    return {name: value for name, value in found.items() if value is not None}


def _inside(value: Any, name: str) -> Any:
    return None if value is None else getattr(value, name)


def end_user(user: str | None, identifier: str | None, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """The parameter that says who the end user is, by the first of OpenAI's three ways that is used."""
    found = user or identifier or (metadata or {}).get("user_id")
    return {"metadata": {"user_id": found} if found else None}


def in_words_of(surface: Api, names: Iterable[str]) -> list[str]:
    """The daemon's names for parameters, as an API's client knows them; each once."""
    theirs = names_in(surface)
    return list(dict.fromkeys(theirs.get(name, name) for name in names))
