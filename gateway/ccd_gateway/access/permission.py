"""Which profile and model a call is for, and whether its key may use them.

The daemon reads `profile/model` and a bare profile's name out of `model`. A call with a key is resolved
here by the same rules first and sent with both named, so that nothing is left to be read differently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ccd_gateway.access.keyfile import Key
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatParams

_DEFAULT_PROFILE = "chat"
_DEFAULT_MODEL = "default"
_ANY_MODEL = "*"  # the API chooses; only a key for all models may let it


def permitted(key: Key, params: ChatParams, profiles: Collection[str]) -> ChatParams:
    """The same call with its profile and tenant spelt out.

    Args:
        key: who calls.
        params: as the surface made them.
        profiles: the names of the daemon's profiles.

    Raises:
        RpcError: MODEL_NOT_FOUND, whether the key may not use it or it does not exist.
    """
    profile, model = _resolved(params.get("profile"), params.get("model"), profiles)
    if not key.may_use_profile(profile):
        raise _not_found("profile" if params.get("profile") else "model", f"profile {profile[:200]!r}")
    further = {params.get("fallback_model") or model or _DEFAULT_MODEL, *_named_inside(params)}
    for name in {model or _DEFAULT_MODEL} | further:
        if not key.may_use_model(name):
            raise _not_found("model", f"model {name[:200]!r}")
    asked: ChatParams = {**params, "profile": profile, "tenant": key.tenant}
    if model is None:
        asked.pop("model", None)
    else:
        asked["model"] = model
    return asked


def _resolved(profile: str | None, model: str | None, profiles: Collection[str]) -> tuple[str, str | None]:
    if profile is None and model is not None:
        prefix, slash, rest = model.partition("/")
        if slash and prefix in profiles:
            return prefix, rest or None
        if model in profiles:
            return model, None
    return profile or _DEFAULT_PROFILE, model


def _named_inside(params: ChatParams) -> Iterator[str]:
    """Models that an exact call names for the API itself to use: as fallbacks, or by tools such as an advisor."""
    fallbacks = (params.get("extra_body") or {}).get("fallbacks")
    if fallbacks is not None and not isinstance(fallbacks, list):
        yield _ANY_MODEL
    listed: list[Any] = fallbacks if isinstance(fallbacks, list) else []
    for item in (*listed, *params.get("tools", ())):
        if isinstance(item, dict) and isinstance(item.get("model"), str):
            yield item["model"]


def _not_found(param: str, what: str) -> RpcError:
    message = f"The {what} does not exist, or this API key may not use it."
    return RpcError(Code.MODEL_NOT_FOUND, message, {"param": param})
