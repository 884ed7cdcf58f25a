"""From a Messages request to the parameters of a call. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from ccd_gateway.anthropic.schema import MessagesRequest
from ccd_gateway.errors import bad_request
from ccd_gateway.surface.given import given
from ccd_protocol.chat.parameters import Api, names_in

#: Parameters that go into the model API's request without ccd having a word for them.
_FURTHER = (
    *("output_config", "output_format", "context_management", "container", "mcp_servers"),
    *("cache_control", "inference_geo", "speed", "diagnostics", "fallbacks"),
    *("billing_policy", "compaction", "fallback_credit_token", "thread"),
)
#: Headers of the API's that say on whose account a request is; the CLI has an account of its own.
IGNORED_HEADERS = ("anthropic-workspace-id", "anthropic-user-profile-id")
_BETA = re.compile(r"[A-Za-z0-9._-]{1,100}")
_MAX_BETAS = 64
#: Says how the client is logged in; the CLI has a login of its own.
_LOGIN_BETAS = frozenset({"oauth-2025-04-20"})


class Betas(NamedTuple):
    """What the `anthropic-beta` header asks for."""

    asked: list[str]
    ignored: list[str]  # named for `X-CCD-Ignored`


def read_betas(header: str | None) -> Betas:
    """The values of the header, in order, each once.

    Raises:
        ApiError: 400 for what cannot be the name of a beta.
    """
    words = dict.fromkeys(word.strip() for word in (header or "").split(",") if word.strip())
    for word in words:
        if not _BETA.fullmatch(word):
            raise bad_request("anthropic-beta: the names of betas have letters, digits, '.', '_' and '-'.")
    if len(words) > _MAX_BETAS:
        raise bad_request(f"anthropic-beta: there are more than {_MAX_BETAS}.")
    asked = [word for word in words if word not in _LOGIN_BETAS]
    return Betas(asked, [f"anthropic-beta.{word}" for word in words if word in _LOGIN_BETAS])


def to_params(request: MessagesRequest, betas: Betas) -> dict[str, Any]:
    """The parameters of the call, but for profile and model.

    Args:
        request: what was asked.
        betas: what its header asks for.
    """
    params = given(Api.MESSAGES, request, names_in(Api.MESSAGES).keys() - {"model"})
    params["extra_body"] = _given({name: getattr(request, name) for name in _FURTHER}) or None
    params["betas"] = betas.asked or None
    return {"exact": True, **_given(params)}


def _given(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def ignored_by_daemon(names: Iterable[str]) -> list[str]:
    """The daemon's names for what it could not honour, as a client of the Messages API knows them."""
    return ["anthropic-beta" if name == "betas" else name for name in names]
