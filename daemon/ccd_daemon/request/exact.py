"""Chats in the model API's own form (`exact`): nothing is added to them and nothing is fitted. Pure.

What a login cannot carry is named in `ignored` when the answer means the same without it, and refused when not.
"""

from __future__ import annotations

import re
from typing import Any

from ccd_daemon.claude.login import Mode
from ccd_daemon.request import replay, structured
from ccd_daemon.request.body import Wish, bad
from ccd_protocol.chat.parameters import PARAMETERS
from ccd_protocol.methods import ChatParams

_BETA = re.compile(r"[A-Za-z0-9._-]{1,100}")
_MAX_BETAS = 64
_LONG_CONTEXT = "context-1m-2025-08-07"
_MAX_KEYS = 64
#: What `extra_body` must not be used for: it has a parameter, or it is the CLI's.
_RESERVED = PARAMETERS.keys() | {"stream", "anthropic_beta"}
#: Keys of `extra_body` without which the answer would be another.
_REPLAY_REFUSES = ("output_format", "mcp_servers", "container")


def check(chat: ChatParams) -> None:
    """Refuse what only exact calls may have, and what `extra_body` may not have.

    Raises:
        RpcError: BAD_PARAMS.
    """
    for key in (name for name, parameter in PARAMETERS.items() if parameter.needs == "exact"):
        if key in chat and not chat.get("exact"):
            raise bad(key, f"{key} needs exact")
    if len(chat.get("extra_body", ())) > _MAX_KEYS:
        raise bad("extra_body", f"extra_body has more than {_MAX_KEYS} keys")
    for key in chat.get("extra_body", ()):
        if key in _RESERVED:
            raise bad(f"extra_body.{key}", f"{key!r} does not belong into extra_body")
    betas = chat.get("betas", [])
    if len(betas) > _MAX_BETAS or not all(_BETA.fullmatch(beta) for beta in betas):
        raise bad("betas", f"betas are up to {_MAX_BETAS} names of letters, digits, '.', '_' and '-'")


def fit(
    chat: ChatParams,
    model: str | None,
    *,
    mode: Mode,
    refused: list[str],
    betas: bool,
    adaptive: bool = False,
    thoughtless: bool = False,
) -> Wish:
    """Returns what to ask.

    Args:
        adaptive: whether the model decides itself how much to think; such models take no sampling parameters.
        refused: sampling parameters that the model is known to refuse.
        betas: whether this login's calls may carry a header of the client's.
        thoughtless: another model is asked than the one whose thinking was in the history, and is not any more.

    Raises:
        RpcError: BAD_PARAMS, for what this mode cannot do, or would ignore in a strict call.
    """
    fitted: ChatParams = chat.copy()
    extra = dict(fitted.pop("extra_body", {}))
    ignored = [key for key in refused if key in fitted]
    if mode == Mode.REPLAY:
        ignored += [key for key in replay.IGNORES if key in fitted and key not in ignored]
        extra, dropped = _replayable(fitted, extra)
        ignored += dropped
        replay.choose_tools(fitted, ignored)
    if thoughtless and fitted.get("thinking", {}).get("type") == "enabled" and "thinking" not in ignored:
        ignored.append("thinking")  # with a budget a tool loop must have it from its beginning
    for key in ignored:
        fitted.pop(key, None)  # type: ignore[misc]
    if _top_p_alone(fitted) and not adaptive:
        # The CLI would add a temperature, which most models refuse beside top_p; it does not where the body says this.
        extra["thinking"] = {"type": "disabled"}
    asked_betas = fitted.pop("betas", [])
    if asked_betas and model is not None and model.endswith("[1m]"):
        # the CLI's own header would have said so
        asked_betas = list(dict.fromkeys([*asked_betas, _LONG_CONTEXT]))
    if asked_betas and betas and mode == Mode.FULL:
        extra["betas"] = asked_betas
    elif asked_betas:
        ignored.append("betas")
    if ignored and chat.get("strict"):
        raise bad(
            ignored[0], f"{ignored[0]} cannot be honoured with this login or model, and the call is strict"
        )
    return Wish(fitted, model, extra, tuple(ignored))


def _top_p_alone(chat: ChatParams) -> bool:
    thinking = chat.get("thinking", {}).get("type", "disabled")
    return "top_p" in chat and "temperature" not in chat and thinking == "disabled"


def _replayable(chat: ChatParams, extra: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What of the further keys has a documented knob, which is the effort alone; and the names of the others."""
    for key in _REPLAY_REFUSES:
        if extra.get(key):
            raise bad(key, f"{key} cannot be honoured with this login (mode replay)")
    config = extra.get("output_config") or {}
    schema = structured.by_the_cli(config.get("format") or {}, chat)
    if config.get("format") and schema is None:
        text = "this output_config.format cannot be honoured with this login (mode replay)"
        raise bad("output_config.format", text)
    notes = [f"messages[{at}].role" for at, said in enumerate(chat["messages"]) if said["role"] == "system"]
    dropped = notes + [key for key in extra if key != "output_config"]
    dropped += [f"output_config.{key}" for key in config if key not in ("effort", "format")]
    kept = {"output_config": {"effort": config["effort"]}} if "effort" in config else {}
    return (kept if schema is None else {**kept, structured.ANSWER_SCHEMA: schema}), dropped
