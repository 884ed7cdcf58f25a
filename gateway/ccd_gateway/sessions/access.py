"""Who may have sessions: an agent's tools run as ccd's user, so it takes a key that allows it, or a setting."""

from __future__ import annotations

from ccd_gateway.access.caller import Caller
from ccd_gateway.errors import ApiError

SCOPE = "agent"


def may_use_agents(caller: Caller, *, without_key: bool) -> bool:
    """Whether a caller may have sessions; `without_key`: so may one that has no key and needs none."""
    return without_key if caller.key is None else SCOPE in caller.key.scopes


def check(caller: Caller, *, without_key: bool) -> None:
    """See that a caller may have sessions.

    Raises:
        ApiError: 403, with what to do about it.
    """
    if may_use_agents(caller, without_key=without_key):
        return
    text = (
        "Sessions let a model use tools on this machine, so they need an API key with the scope 'agent' "
        "(ccd ctl keys create NAME --scope agent)"
    )
    if caller.key is None:
        text += ", or the setting gateway.allow_agent_without_key"
    raise ApiError(403, f"{text}.", code="insufficient_scope", headers=[("x-should-retry", "false")])


def check_model(caller: Caller, model: str | None) -> None:
    """See that a caller's key may use a model; None is the default.

    Raises:
        ApiError: 404, as for one that does not exist.
    """
    if caller.key is not None and not caller.key.may_use_model(model or "default"):
        text = f"The model {(model or 'default')[:200]!r} does not exist, or this API key may not use it."
        raise ApiError(404, text, param="model", code="model_not_found")
