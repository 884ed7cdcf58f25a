"""To whom a request goes and how: profile, model, strictness and cache, as its headers and the settings say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import falcon.asgi

from ccd_gateway.answer.caching import cache_use
from ccd_gateway.errors import bad_request
from ccd_gateway.settings import GatewaySettings
from ccd_gateway.surface.ignored import is_strict, refuse_ignored
from ccd_protocol.methods import ChatParams

_PROFILE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Target(NamedTuple):
    """Which profile and model a request is for; None is the daemon's default."""

    profile: str | None
    model: str | None


def target(model: str, profile_header: str | None) -> Target:
    """Read `profile/model`, or a plain model with the profile from `X-CCD-Profile`.

    What stands before the first slash is a profile only if it looks like one, so that a provider's resource
    name with slashes stays whole. With the header the model is taken as it is.

    Raises:
        ApiError: 400 for a profile name that cannot be one.
    """
    if profile_header is not None:
        if not _PROFILE.fullmatch(profile_header):
            raise bad_request("X-CCD-Profile: expected letters, digits, '-' and '_'.", "X-CCD-Profile")
        return Target(profile_header, model)
    prefix, slash, rest = model.partition("/")
    if slash and _PROFILE.fullmatch(prefix):
        return Target(prefix, rest or None)
    return Target(None, model)


def addressed(
    req: falcon.asgi.Request,
    settings: GatewaySettings,
    params: Mapping[str, Any],
    model: str,
    ignored: Sequence[str],
    cached: Mapping[str, Any] | None = None,
) -> ChatParams:
    """The parameters of a call with all that the request's head says about it.

    Args:
        req: the request.
        settings: what models are called.
        params: made of the body.
        model: what the client asked for.
        ignored: the parameters without effect, which a strict client would have refused.
        cached: all fields of the body, where the answer may come from the cache.

    Raises:
        ApiError: 400 for a profile that cannot be one, or for a parameter without effect.
    """
    made: dict[str, Any] = {**params}
    if is_strict(req):
        refuse_ignored(ignored)
        made["strict"] = True
    chosen = target(settings.model_for(model), req.get_header("x-ccd-profile"))
    made |= {name: value for name, value in chosen._asdict().items() if value is not None}
    if cached is not None:
        made["cache"] = cache_use(req, cached)
    return cast(ChatParams, made)  # built by key; the daemon checks it
