"""What to answer: a request and its directive → content blocks, stop reason and usage. Pure.

Everything that a caller asked for really takes effect here: stop sequences and max_tokens cut the text, a
forced tool is called, an output format is kept.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from typing import Any, NamedTuple

import msgspec

from ccd_offline import models, tokens
from ccd_offline.answer.caching import Split
from ccd_offline.answer.directives import Directive, ScriptedCall
from ccd_offline.rules import schemas, signature, validation
from ccd_offline.rules.messages import as_blocks

ECHO = "[ccd offline echo] No model was asked. You said: "
_MARK = "<system-reminder>"
#: The CLI's own, for answers with a schema.
_ANSWER_TOOL = "StructuredOutput"
#: How ccd words what a login has no parameter for.
_MUST_CALL = re.compile(r"Your next answer must call the tool ([A-Za-z0-9_-]+)\.")
_MUST_CALL_ONE = "Your next answer must call one of the tools."
_ONE_CALL = "Call at most one tool in an answer."
_JSON_BY_SCHEMA = re.compile(r"that is valid by this JSON schema: (\{.*\})", re.DOTALL)


class ScriptedAnswer(NamedTuple):
    """A whole message."""

    id: str
    model: str
    blocks: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None
    stop_details: dict[str, Any] | None
    usage: dict[str, Any]

    def message(self) -> dict[str, Any]:
        """The body of a request that does not stream."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": self.blocks,
            "stop_reason": self.stop_reason,
            "stop_sequence": self.stop_sequence,
            "stop_details": self.stop_details,
            "usage": self.usage,
        }


def last_user_text(body: dict[str, Any]) -> str:
    """The last text of the user's that is not a reminder of the CLI's, else the tool results."""
    spoken = [message for message in body["messages"] if message["role"] == "user"]
    blocks = as_blocks(spoken[-1]) if spoken else []
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    own = [text for text in texts if not text.startswith(_MARK)]
    if own:
        return str(own[-1])
    results = [_result_text(block) for block in blocks if block["type"] == "tool_result"]
    return " ".join(results) if results else " ".join(texts)


def _result_text(block: dict[str, Any]) -> str:
    content = block.get("content", "")
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def compose(body: dict[str, Any], directive: Directive, text: str, split: Split = Split()) -> ScriptedAnswer:  # noqa: B008
    """The answer to a valid request; `text` is what the user said last, `split` what of it was cached."""
    calls = _calls(body, directive)
    speaks = not calls or (directive.text is not None and calls[0]["name"] != _ANSWER_TOOL)
    said = _said(body, directive, text) if speaks else ""
    said, stop, sequence, calls = _limited(body, said, calls)
    blocks = _thinking(body, directive) + ([{"type": "text", "text": said}] if said else []) + calls
    usage = {**_usage(body, blocks, directive, split), **directive.usage}
    reason = directive.stop_reason or stop
    return ScriptedAnswer(
        f"msg_{secrets.token_hex(12)}", body["model"], blocks, reason, sequence, directive.stop_details, usage
    )


def _said(body: dict[str, Any], directive: Directive, text: str) -> str:
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format")
    if directive.text is not None:
        return directive.text * min(directive.repeat, 64_000_000 // (len(directive.text) or 1) + 1)
    if directive.deltas:
        return " ".join(f"w{number}" for number in range(1, directive.deltas + 1))
    wanted = wanted or _told_format(body)
    if wanted:
        return msgspec.json.encode(schemas.example(wanted["schema"])).decode()
    return ECHO + text


def _calls(body: dict[str, Any], directive: Directive) -> list[dict[str, Any]]:
    tools = {tool.get("name"): tool for tool in body.get("tools") or []}
    choice = body.get("tool_choice") or {}
    wanted = [] if choice.get("type") == "none" else directive.tool_calls
    if _ANSWER_TOOL in tools and not wanted:
        return _answer_calls(tools[_ANSWER_TOOL], directive)
    if not choice:
        choice = _told_choice(body, tools)
    forced = choice.get("type") in ("any", "tool")
    if choice.get("type") == "tool":
        wanted = [call for call in wanted if call.name == choice["name"]] or [ScriptedCall(choice["name"])]
    elif forced and not wanted:
        wanted = [ScriptedCall(str(next(iter(tools))))]
    if choice.get("disable_parallel_tool_use"):
        wanted = wanted[:1]
    return [_call(call, tools.get(call.name, {})) for call in wanted]


def _answer_calls(tool: dict[str, Any], directive: Directive) -> list[dict[str, Any]]:
    """What the CLI's own tool for answers is given: an example, or the scripted text, which else is said."""
    given: Any = None
    if directive.text is not None:
        with contextlib.suppress(msgspec.DecodeError):
            given = msgspec.json.decode(directive.text)
        if not isinstance(given, dict):
            return []
    return [_call(ScriptedCall(_ANSWER_TOOL, given), tool)]


def _system(body: dict[str, Any]) -> str:
    system = body.get("system") or ""
    return system if isinstance(system, str) else "\n".join(block["text"] for block in system)


def _told_choice(body: dict[str, Any], tools: dict[Any, Any]) -> dict[str, Any]:
    """A choice among tools that is put into words, which a model obeys as well."""
    system, found = _system(body), {}
    named = _MUST_CALL.search(system)
    if named is not None and named[1] in tools:
        found = {"type": "tool", "name": named[1]}
    elif _MUST_CALL_ONE in system and tools:
        found = {"type": "any"}
    return {**found, "disable_parallel_tool_use": True} if _ONE_CALL in system else found


def _told_format(body: dict[str, Any]) -> dict[str, Any] | None:
    """A format that is put into words."""
    found = _JSON_BY_SCHEMA.search(_system(body))
    if found is None:
        return None
    try:
        return {"schema": msgspec.json.decode(found[1])}
    except msgspec.DecodeError:
        return None


def _call(call: ScriptedCall, tool: dict[str, Any]) -> dict[str, Any]:
    if call.input_json is not None:
        given: Any = msgspec.Raw(call.input_json.encode())
        return {"type": "tool_use", "id": _call_id(call), "name": call.name, "input": given}
    given = (
        call.input
        if call.input is not None
        else schemas.example(tool.get("input_schema") or {"type": "object"})
    )
    return {
        "type": "tool_use",
        "id": _call_id(call),
        "name": call.name,
        "input": given,
    }


def _call_id(call: ScriptedCall) -> str:
    return call.id or f"toolu_{secrets.token_hex(12)}"


def _thinking(body: dict[str, Any], directive: Directive) -> list[dict[str, Any]]:
    if directive.thinking is None or not validation.thinks(body):
        return []
    shown = "" if body["thinking"].get("display") == "omitted" else directive.thinking
    return [
        {
            "type": "thinking",
            "thinking": shown,
            "signature": signature.sign(directive.thinking, _model_id(body)),
        }
    ]


def _model_id(body: dict[str, Any]) -> str:
    model = models.find(body["model"])
    return model.id if model is not None else str(body["model"])


def _limited(
    body: dict[str, Any], said: str, calls: list[dict[str, Any]]
) -> tuple[str, str, str | None, list[dict[str, Any]]]:
    """What of the text and calls comes before a stop sequence and within max_tokens, and why it ends."""
    found = [(said.find(word), word) for word in body.get("stop_sequences") or [] if word in said]
    at, word = min(found, default=(len(said), None))
    room = body["max_tokens"] * tokens.CHARS_PER_TOKEN
    if min(at, len(said)) > room:
        return said[:room], "max_tokens", None, []
    if word is not None:
        return said[:at], "stop_sequence", word, []
    return said, "tool_use" if calls else "end_turn", None, calls


def _usage(
    body: dict[str, Any], blocks: list[dict[str, Any]], directive: Directive, split: Split
) -> dict[str, Any]:
    thought = tokens.of_chars(len(directive.thinking or "")) if validation.thinks(body) else 0
    spoken = sum(tokens.of_chars(_length(block)) for block in blocks)
    return {
        "input_tokens": max(0, tokens.of_request(body) - split.read - split.created),
        "cache_creation_input_tokens": split.created,
        "cache_read_input_tokens": split.read,
        "cache_creation": {"ephemeral_5m_input_tokens": split.created, "ephemeral_1h_input_tokens": 0},
        "output_tokens": max(1, spoken + thought),
        "output_tokens_details": {"thinking_tokens": thought},
        "service_tier": "standard",
    }


def _length(block: dict[str, Any]) -> int:
    """Characters that count as output, thinking aside."""
    if block["type"] == "tool_use":
        return len(block["name"]) + len(msgspec.json.encode(block["input"]))
    return len(block.get("text", ""))
