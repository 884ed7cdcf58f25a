"""Which profile and model a chat names: the one rule, for the daemon that obeys it and the gateway that permits it.

`model` may be `PROFILE/MODEL`, a profile's bare name, or a model of the profile `chat`. A choice that was made is made
again to the same (`chosen(*chosen(…))`): what was permitted under a name is what is asked for.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ccd_protocol.errors import Code, RpcError

DEFAULT_PROFILE = "chat"
#: The CLI's own name for its default model.
DEFAULT_MODEL = "default"


class Choice(NamedTuple):
    """A profile, and a model in it; None is the profile's own."""

    profile: str
    model: str | None


def chosen(profile: str | None, model: str | None, profiles: Collection[str]) -> Choice:
    """Returns what a call names; a profile that is named by `profile` alone need not exist.

    Args:
        profile: the call's `profile`.
        model: the call's `model`. What stands before a slash is a profile only if there is one of that name, so that
            a provider's resource name with slashes stays whole.
        profiles: those that there are.

    Raises:
        RpcError: BAD_PARAMS, it names two profiles.
    """
    while model is not None and (parts := model.partition("/"))[1] and parts[0] in profiles:
        if profile not in (None, parts[0]):
            text = f"model names the profile {parts[0]!r}, but {profile!r} was asked for"
            raise RpcError(Code.BAD_PARAMS, text, {"param": "model"})
        profile, model = parts[0], parts[2]
    if profile is None and model in profiles:
        profile, model = model, None
    return Choice(profile or DEFAULT_PROFILE, None if model in (None, "", DEFAULT_MODEL) else model)
