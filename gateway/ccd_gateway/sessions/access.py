"""Who may have sessions: an agent's tools run as ccd's user, so it takes a key that allows it, or a setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ccd_gateway.access.caller import Caller
from ccd_gateway.access.keyfile import Key
from ccd_gateway.access.permission import Known, may_run
from ccd_gateway.errors import ApiError

SCOPE = "agent"
_HARMLESS_COMMANDS = frozenset({"/clear", "/compact", "/context", "/cost", "/usage"})


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


def check_said(caller: Caller, known: Known, model: str, content: str | list[dict[str, Any]]) -> None:
    """See that what a caller says goes to a model that its key may use, and changes that for no other one.

    Args:
        caller: who speaks.
        known: what names of models mean.
        model: what the session uses now; `""` is the default one.
        content: what is said.

    Raises:
        ApiError: 404 for the model; 403 for a command of the CLI's that may choose one, which a text can be.
    """
    if caller.key is None or not caller.key.bound_to_models:
        return
    if not may_run(caller.key, known, model):
        raise _no_model(model)
    command = next(filter(None, map(_command, _texts(content))), None)
    if command is not None and command not in _HARMLESS_COMMANDS:
        raise ApiError(
            403,
            f"This API key is for certain models, and {command[:60]!r} could choose another: it may use "
            f"{', '.join(sorted(_HARMLESS_COMMANDS))} and no other command. A message of the type set_model "
            "chooses a model.",
            code="insufficient_scope",
        )


def _texts(content: str | list[dict[str, Any]]) -> Iterator[str]:
    """Every text: which of them the CLI takes for a command differs from version to version."""
    if isinstance(content, str):
        yield content
    else:
        yield from (text for block in content if isinstance(text := block.get("text"), str))


def _command(text: str) -> str | None:
    """The word with which a text begins, if the CLI could take it for a command; a path is none."""
    words = text.replace("\ufeff", " ").split(None, 1)
    if not words or not words[0].startswith("/") or "/" in words[0][1:]:
        return None
    return words[0]


def check_model(caller: Caller, known: Known, model: str | None) -> None:
    """See that a caller's key may use a model; None is the default.

    Raises:
        ApiError: 404, as for one that does not exist.
    """
    names = {model or "default", known.means(model or "default")}
    if caller.key is not None and not any(map(caller.key.may_use_model, names)):
        raise _no_model(model)


def models_of(key: Key, known: Known, model: str | None) -> list[str] | None:
    """The names of the models that a session may use, its subagents included; None where the key allows all.

    Args:
        key: of whoever opens it.
        known: what names of models mean.
        model: what it begins with.
    """
    if not key.bound_to_models:
        return None
    return sorted({model or "default", *(name for name in known.models if may_run(key, known, name))})


def _no_model(model: str | None) -> ApiError:
    text = f"The model {(model or 'default')[:200]!r} does not exist, or this API key may not use it."
    return ApiError(404, text, param="model", code="model_not_found")
