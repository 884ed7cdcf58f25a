"""What is finally asked of the model: the client's parameters, fitted to the model's abilities. Pure.

Where two parameters exclude each other the one that changes the answer more stays, and the other is named in
`ignored`; a strict call is refused instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ccd_daemon.claude.login import Mode
from ccd_daemon.request import exact, replay, structured, tool_schema
from ccd_daemon.request.answer_schema import expressible, reduced
from ccd_daemon.request.body import EFFORTS, Wish, bad
from ccd_protocol.chat.history import is_sound, mended, turns_of
from ccd_protocol.methods import ChatParams, Message

_JSON_ONLY = "Answer with one JSON object and nothing else: no prose around it, no code fence."
_SCHEMA_ONLY = (
    "Answer with JSON alone, no prose around it and no code fence, that is valid by this JSON schema: "
)
_MAX_STRICT_TOOLS = 20  # that the API takes in one request
PREFILL = "prefill"
GO_ON = "Go on from exactly where your last message stops. Do not repeat any of it, and do not comment on it."
_MAX_USER_CHARS = 256
#: An e-mail address or a telephone number, which the API does not take as the id of a user.
_TELLING = re.compile(
    r"[^\s@]+@[^\s@]+\.\w{2,}"
    r"|\+\s*\d(?:[ ().-]*\d){6,}"
    r"|(?<![\w-])\(?\d{2,4}\)?[ .-]{1,2}\d{2,4}(?:[ .-]\d{2,4}){1,3}(?![\w-])"
    r"|(?<![\w-])\d{10,15}(?![\w-])"
)
BOTH_SAMPLERS = "temperature and top_p"
_MIN_THINKING_TOKENS = 1024
_THINKING_TOKENS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24000, "max": 24000}
_MIN_TOP_P_WITH_THINKING = 0.95


@dataclass(frozen=True)
class Abilities:
    """What the CLI says of a model. A model it does not list (a pinned older one) thinks with a token budget."""

    adaptive: bool = False
    efforts: tuple[str, ...] = ()


_ANY_MODEL = Abilities(adaptive=True, efforts=("low", "medium", "high"))


def abilities(models: Sequence[Mapping[str, Any]], model: str | None) -> Abilities:
    """Look a model up in the CLI's list by alias or full name; None is the CLI's default."""
    wanted = model or "default"
    for entry in models:
        if wanted in (entry.get("value"), entry.get("resolvedModel")):
            levels = tuple(entry.get("supportedEffortLevels") or ())
            return Abilities(bool(entry.get("supportsAdaptiveThinking")), levels)
    return Abilities()


def full_name(models: Sequence[Mapping[str, Any]], model: str | None) -> str:
    """Returns a model's full name where the CLI lists it under an alias, else what it is asked as."""
    wanted = model or "default"
    for entry in models:
        if entry.get("value") == wanted and entry.get("resolvedModel"):
            return str(entry["resolvedModel"])
    return wanted


def understood(chat: ChatParams, tenant: str) -> tuple[ChatParams, list[str]]:
    """Returns a chat as the model API can be told it, whatever the model, and the names of what had to be changed.

    Raises:
        RpcError: BAD_PARAMS, for a history without sense, or when the call is strict and something is changed.
    """
    if chat.get("exact"):
        return chat, []
    messages, named = chat["messages"], list[str]()
    if not is_sound(messages):
        messages, named, _ = mended(turns_of(messages))
    found: ChatParams = {**chat, "messages": messages}
    who = chat.get("metadata", {}).get("user_id")
    if isinstance(who, str) and (opaque := opaque_id(who, tenant)) != who:
        found["metadata"] = {**chat["metadata"], "user_id": opaque}
        named.append("metadata")
    if named and chat.get("strict"):
        raise bad(named[0], f"{named[0]} cannot be sent as it is, and the call is strict")
    return found, named


def opaque_id(who: str, tenant: str) -> str:
    """Returns a user's id as the model API takes it: one that says who somebody is, or is too long, becomes a digest.

    It is the same for the same user of a tenant.
    """
    if len(who) <= _MAX_USER_CHARS and not _TELLING.search(who):
        return who
    digest = blake2b(
        who.encode(errors="surrogatepass"), key=blake2b(tenant.encode()).digest(), digest_size=16
    )
    return digest.hexdigest()


def _end_with_a_question(
    chat: ChatParams, extra: Mapping[str, Any], ignored: list[str], *, prefill: bool
) -> None:
    """A model that does not go on with an answer that has been begun for it is asked to."""
    messages = chat["messages"]
    if messages[-1]["role"] != "assistant":
        return
    thinks = extra.get("thinking", chat.get("thinking", {})).get("type") in ("enabled", "adaptive")
    formed = "format" in (extra.get("output_config") or {})
    if not prefill or thinks or formed:
        chat["messages"] = [*messages, {"role": "user", "content": GO_ON}]
        ignored.append(PREFILL)
        return
    begun = _without_space_at_the_end(messages[-1])
    if begun != messages[-1]:
        chat["messages"] = [*messages[:-1], begun]
        ignored.append(PREFILL)


def _without_space_at_the_end(message: Message) -> Message:
    """The API takes no beginning of an answer that ends with white space."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content.rstrip()}
    last = content[-1]
    if last.get("type") != "text":
        return message
    return {**message, "content": [*content[:-1], {**last, "text": str(last["text"]).rstrip()}]}


def make(
    chat: ChatParams,
    model: str | None,
    able: Abilities,
    *,
    mode: Mode,
    refused: Collection[str] = (),
    thoughtless: bool,
    betas: bool = False,
    loose: bool = False,
) -> Wish:
    """Fit a validated chat to a model.

    Args:
        refused: sampling parameters that the model is known to refuse; `BOTH_SAMPLERS` when it takes only one.
        thoughtless: the open tool calls in the history have lost their thinking blocks, so thinking must be off.
        betas: whether this login's calls may carry an anthropic-beta header of the client's.
        loose: the API has refused this chat's schemas as too large; nothing may depend on its keeping to them.

    Raises:
        RpcError: BAD_PARAMS, when the call is strict and a parameter would be ignored.
    """
    if chat.get("exact"):
        return exact.fit(
            chat,
            model,
            mode=mode,
            refused=list(refused),
            betas=betas,
            adaptive=able.adaptive,
            thoughtless=thoughtless,
        )
    if mode == Mode.REPLAY and not able.efforts:
        able = _ANY_MODEL  # its processes tell of models late, and what a model cannot do the CLI leaves out
    fitted: ChatParams = chat.copy()
    ignored = [key for key in refused if key in fitted]
    if BOTH_SAMPLERS in refused and "temperature" in fitted and "top_p" in fitted and "top_p" not in ignored:
        ignored.append("top_p")
    if mode == Mode.REPLAY:
        ignored += [key for key in replay.IGNORES if key in fitted and key not in ignored]
    for key in ignored:
        fitted.pop(key, None)  # type: ignore[misc]
    extra = _thinking(fitted, able, ignored, thoughtless=thoughtless)
    _fit_tools(fitted, ignored)
    if mode == Mode.REPLAY:
        replay.choose_tools(fitted, ignored)
    else:
        _loosen_tools(fitted, ignored, loose=loose)
    schema = structured.by_the_cli(fitted.get("format") or {}, fitted) if mode == Mode.REPLAY else None
    if schema is not None:
        extra[structured.ANSWER_SCHEMA] = schema
    else:
        _add_format(fitted, extra, native=mode != Mode.REPLAY and not loose)
    prefill = mode != Mode.REPLAY and not able.adaptive and PREFILL not in refused
    _end_with_a_question(fitted, extra, ignored, prefill=prefill)
    if ignored and chat.get("strict"):
        raise bad(ignored[0], f"{ignored[0]} cannot be honoured for this model, and the call is strict")
    return Wish(fitted, model, extra, tuple(ignored))


def _thinking(chat: ChatParams, able: Abilities, ignored: list[str], *, thoughtless: bool) -> dict[str, Any]:
    """Returns the body's keys for thinking; sampling that excludes it is taken out of `chat`."""
    asked = "effort" if "effort" in chat else "thinking"
    extra = _extra_for(chat, able)
    on = extra.get("thinking", chat.get("thinking", {})).get("type") in ("enabled", "adaptive")
    if not on and "top_p" in chat and "temperature" not in chat and not able.adaptive:
        # The CLI's own way to switch thinking off adds a temperature, which these models refuse beside top_p.
        return {**extra, "thinking": {"type": "disabled"}}
    if not on:
        return extra
    forced = chat.get("tool_choice", {}).get("type") in ("any", "tool")
    # what thinks adaptively may begin to in the middle of a tool loop
    lost = thoughtless and not able.adaptive
    if forced or lost or _too_few_tokens(chat, extra):
        chat.pop("thinking", None)
        ignored.append(asked)
        return {key: value for key, value in extra.items() if key != "thinking"}
    for key, fits in (
        ("temperature", chat.get("temperature") == 1),
        ("top_p", chat.get("top_p", 1) >= _MIN_TOP_P_WITH_THINKING),
        ("top_k", False),
    ):
        if key in chat and not fits:
            chat.pop(key)  # type: ignore[misc]
            ignored.append(key)
    return extra


def _extra_for(chat: ChatParams, able: Abilities) -> dict[str, Any]:
    effort = chat.get("effort", "none")
    if effort == "none":
        return {}
    if able.adaptive:
        level = _nearest(effort, able.efforts)
        return {"thinking": {"type": "adaptive", "display": "summarized"}} | (
            {"output_config": {"effort": level}} if level else {}
        )
    budget = _THINKING_TOKENS[effort]
    if "max_tokens" in chat:
        budget = max(_MIN_THINKING_TOKENS, min(budget, chat["max_tokens"] - 1))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _too_few_tokens(chat: ChatParams, extra: Mapping[str, Any]) -> bool:
    budget = extra.get("thinking", {}).get("budget_tokens", 0)
    return bool("max_tokens" in chat and budget >= chat["max_tokens"])


def _nearest(effort: str, offered: Sequence[str]) -> str | None:
    """Returns the highest level offered that is not above the wish, else the lowest offered."""
    rank = EFFORTS.index(effort)
    known = sorted((level for level in offered if level in EFFORTS), key=EFFORTS.index)
    below = [level for level in known if EFFORTS.index(level) <= rank]
    return below[-1] if below else (known[0] if known else None)


def _fit_tools(chat: ChatParams, ignored: list[str]) -> None:
    """Put what the API does not take of tools' schemas into words."""
    fitted = []
    for index, tool in enumerate(chat.get("tools") or ()):
        schema = tool_schema.fitted(tool["input_schema"])
        if schema != {"type": "object", **tool["input_schema"]}:
            ignored.append(f"tools[{index}].input_schema")
        fitted.append({**tool, "input_schema": schema})
    if fitted:
        chat["tools"] = fitted


def _loosen_tools(chat: ChatParams, ignored: list[str], *, loose: bool) -> None:
    """Take `strict` from tools whose schema the API would refuse for it; OpenAI's clients set it on all their tools."""
    tools = chat.get("tools") or []
    strict = [tool for tool in tools if tool.get("strict")]
    loose = loose or len(strict) > _MAX_STRICT_TOOLS
    if all(not loose and expressible(tool["input_schema"]) for tool in strict):
        return
    chat["tools"] = [
        tool
        if not loose and expressible(tool["input_schema"])
        else {key: value for key, value in tool.items() if key != "strict"}
        for tool in tools
    ]
    ignored.append("tools.strict")


def _add_format(chat: ChatParams, extra: dict[str, Any], *, native: bool) -> None:
    """Ask for the format by the model API's own parameter, else in words."""
    wanted = chat.get("format")
    if wanted is None:
        return
    schema = reduced(wanted["schema"]) if native and wanted["type"] == "json_schema" else None
    if schema is not None:
        form = {"type": "json_schema", "schema": schema}
        extra["output_config"] = {**extra.get("output_config", {}), "format": form}
        return
    told = _JSON_ONLY if wanted["type"] == "json_object" else _SCHEMA_ONLY + json.dumps(wanted["schema"])
    system = chat.get("system") or []
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else list(system)
    chat["system"] = [*blocks, {"type": "text", "text": told}]
