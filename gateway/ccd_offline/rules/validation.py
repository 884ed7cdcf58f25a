"""What the Messages API refuses, checked in the order of the parameters. Pure.

A yes-man proves nothing: a parameter that ccd passes on is only known to work if the API at the other end
would have refused a wrong one. `messages` has the rules of the conversation itself.
"""

from __future__ import annotations

import re
from typing import Any

from ccd_offline import models, tokens
from ccd_offline.errors import RefusedError, invalid
from ccd_offline.models import PretendedModel
from ccd_offline.rules import messages, schemas, shape

_REQUIRED = ("model", "messages")
_OPTIONAL = frozenset(
    [
        "max_tokens",
        "system",
        "stream",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "tools",
        "tool_choice",
        "thinking",
        "metadata",
        "service_tier",
        "output_config",
        "output_format",
        "context_management",
        "container",
        "mcp_servers",
        "cache_control",
        "inference_geo",
        "speed",
        "betas",
        "diagnostics",
        "fallbacks",
        "billing_policy",
        "compaction",
        "fallback_credit_token",
        "thread",
    ]
)
_COUNT_OPTIONAL = frozenset(
    [
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "output_format",
        "context_management",
        "mcp_servers",
        "cache_control",
        "speed",
        "betas",
    ]
)
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_MAX_CACHE_MARKS = 4
_MAX_STRICT_TOOLS = 20
_TELLING = {
    "an email address": re.compile(r"[^\s@]+@[^\s@]+\.[A-Za-z]{2,}"),
    "a phone number": re.compile(
        r"\+\s*\d(?:[ ().-]*\d){6,}"
        r"|(?<![\w-])\(?\d{2,4}\)?[ .-]{1,2}\d{2,4}(?:[ .-]\d{2,4}){1,3}(?![\w-])"
        r"|(?<![\w-])\d{10,15}(?![\w-])"
    ),
}


def check(body: Any, *, betas: frozenset[str] = frozenset(), counting: bool = False) -> PretendedModel:
    """Refuse a request that the real API would refuse.

    `betas` are the words of the `anthropic-beta` header; `counting` means count_tokens, which takes fewer
    parameters.

    Raises:
        RefusedError: what is wrong, worded like the real API's answer.
    """
    body = shape.mapping(body, "body")
    required = _REQUIRED if counting else (*_REQUIRED, "max_tokens")
    shape.keys(body, "", required=required, optional=_COUNT_OPTIONAL if counting else _OPTIONAL)
    model = _model(body["model"])
    if not counting:
        _max_tokens(body["max_tokens"], model)
    _system(body)
    thinking = _thinking(body, model, betas)
    _sampling(body, model, thinking)
    _stop_sequences(body)
    _tools(body)
    _tool_choice(body, thinking)
    _metadata(body)
    _output_config(body, model)
    messages.check(body["messages"], model=model, thinking=thinking)
    _cache_marks(body)
    _fits(body, model)
    return model


def thinks(body: dict[str, Any]) -> bool:
    """Whether thinking is on in a valid request."""
    return (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")


def _model(value: Any) -> PretendedModel:
    name = shape.string(value, "model")
    model = models.find(name)
    if model is None:
        raise RefusedError(404, f"model: {name[:200]}")
    return model


def _max_tokens(value: Any, model: PretendedModel) -> None:
    limit = model.max_output_tokens
    if shape.integer(value, "max_tokens", least=1) > limit:
        raise invalid(
            f"max_tokens: {value} > {limit}, which is the maximum allowed number of output tokens for"
            f" {model.id}"
        )


def _system(body: dict[str, Any]) -> None:
    system = body.get("system", "")
    if isinstance(system, str):
        return
    for index, block in enumerate(shape.sequence(system, "system")):
        path = f"system.{index}"
        shape.keys(
            shape.mapping(block, path),
            path,
            required=("type", "text"),
            optional=("cache_control", "citations"),
        )
        shape.one_of(block["type"], f"{path}.type", ("text",))
        if not shape.string(block["text"], f"{path}.text"):
            raise invalid("system: text content blocks must be non-empty")


def _thinking(body: dict[str, Any], model: PretendedModel, betas: frozenset[str]) -> str:
    """The thinking mode in force: off, enabled or adaptive."""
    if "thinking" not in body:
        return "off"
    thinking = shape.mapping(body["thinking"], "thinking")
    kind = shape.one_of(thinking.get("type"), "thinking.type", ("enabled", "disabled", "adaptive"))
    budget = ("budget_tokens",) if kind == "enabled" else ()
    shape.keys(thinking, f"thinking.{kind}", required=("type", *budget), optional=("display",))
    if kind == "disabled":
        if model.always_thinks:
            raise invalid(
                f'"thinking.type.disabled" is not supported for this model ({model.id} always thinks).'
            )
        return "off"
    if not model.thinks:
        raise invalid(f"thinking: {model.id} does not support thinking.")
    if "display" in thinking:
        shape.one_of(
            thinking["display"], "thinking.display", ("summarized", "omitted", "highlights", "updates")
        )
    if kind == "enabled":
        _budget(thinking["budget_tokens"], body, betas)
    elif not model.adaptive:
        raise invalid("adaptive thinking is not supported on this model")
    return kind


def _budget(value: Any, body: dict[str, Any], betas: frozenset[str]) -> None:
    budget = shape.integer(value, "thinking.enabled.budget_tokens", least=1024)
    interleaved = any(beta.startswith("interleaved-thinking") for beta in betas) and body.get("tools")
    if not interleaved and budget >= body.get("max_tokens", budget + 1):
        raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _sampling(body: dict[str, Any], model: PretendedModel, thinking: str) -> None:
    temperature = shape.number(body.get("temperature", 1), "temperature", least=0, most=1)
    top_p = shape.number(body.get("top_p", 1), "top_p", least=0, most=1)
    if "top_k" in body:
        shape.integer(body["top_k"], "top_k", least=0)
    off_default = {"temperature": temperature != 1, "top_p": top_p < 0.99, "top_k": "top_k" in body}
    if not model.sampling:
        for name, changed in off_default.items():
            if changed:
                raise invalid(f"`{name}` is deprecated for this model.")
    if thinking != "off":
        _sampling_beside_thinking(off_default["temperature"], top_p, "top_k" in body)
    elif model.sampling and not model.both_samplers and "temperature" in body and "top_p" in body:
        raise invalid(
            "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        )


def _sampling_beside_thinking(hot: bool, top_p: float, top_k: bool) -> None:
    see = "when thinking is enabled or in adaptive mode."
    if hot:
        raise invalid(f"`temperature` may only be set to 1 {see}")
    if top_p < 0.95:
        raise invalid(f"`top_p` must be greater than or equal to 0.95 or unset {see}")
    if top_k:
        raise invalid(f"`top_k` must be unset {see}")


def _stop_sequences(body: dict[str, Any]) -> None:
    for index, word in enumerate(shape.sequence(body.get("stop_sequences", []), "stop_sequences")):
        if not shape.string(word, f"stop_sequences.{index}").strip():
            raise invalid("stop_sequences: each stop sequence must contain non-whitespace")


def _tools(body: dict[str, Any]) -> None:
    names: set[str] = set()
    for index, value in enumerate(shape.sequence(body.get("tools", []), "tools")):
        tool = shape.mapping(value, f"tools.{index}")
        name = _tool(tool, f"tools.{index}")
        if name in names:
            raise invalid("tools: Tool names must be unique.")
        names.add(name)
    if sum(1 for tool in body.get("tools", []) if tool.get("strict")) > _MAX_STRICT_TOOLS:
        raise invalid(f"tools: At most {_MAX_STRICT_TOOLS} tools can be strict.")


_TOOL_KEYS = [
    "type",
    "description",
    "cache_control",
    "strict",
    "defer_loading",
    "eager_input_streaming",
    "input_examples",
    "allowed_callers",
]


def _tool(tool: dict[str, Any], path: str) -> str:
    if tool.get("type", "custom") != "custom":  # a server tool brings its own fields
        return shape.string(tool.get("name", tool["type"]), f"{path}.name")
    path = f"{path}.custom"
    shape.keys(tool, path, required=("name", "input_schema"), optional=_TOOL_KEYS)
    schema = shape.mapping(tool["input_schema"], f"{path}.input_schema")
    if "type" not in schema:
        raise invalid(f"{path}.input_schema.type: Field required")
    if schema["type"] != "object":
        raise invalid(f"{path}.input_schema.type: Input should be 'object'")
    schemas.check_input(schema, f"{path}.input_schema")
    if tool.get("strict"):
        schemas.check_grammar(schema, f"{path}.input_schema")
    if "description" in tool:
        shape.string(tool["description"], f"{path}.description")
    return shape.string(tool["name"], f"{path}.name", pattern="[a-zA-Z0-9_-]{1,128}")


def _tool_choice(body: dict[str, Any], thinking: str) -> None:
    if "tool_choice" not in body:
        return
    choice = shape.mapping(body["tool_choice"], "tool_choice")
    kind = shape.one_of(choice.get("type"), "tool_choice.type", ("auto", "any", "tool", "none"))
    named = ("name",) if kind == "tool" else ()
    parallel = () if kind == "none" else ("disable_parallel_tool_use",)
    shape.keys(choice, f"tool_choice.{kind}", required=("type", *named), optional=parallel)
    if "disable_parallel_tool_use" in choice:
        shape.boolean(choice["disable_parallel_tool_use"], f"tool_choice.{kind}.disable_parallel_tool_use")
    if not body.get("tools"):
        raise invalid("tool_choice: may only be specified while providing tools.")
    if thinking != "off" and kind in ("any", "tool"):
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")
    if named and choice["name"] not in {tool.get("name") for tool in body["tools"]}:
        raise invalid(f"Tool '{choice['name']}' not found in provided tools")


def _metadata(body: dict[str, Any]) -> None:
    metadata = shape.mapping(body.get("metadata", {}), "metadata")
    shape.keys(metadata, "metadata", optional=("user_id",))
    if metadata.get("user_id") is not None:
        _opaque(shape.string(metadata["user_id"], "metadata.user_id", limit=256))


def _opaque(user_id: str) -> None:
    """It must not say who somebody is."""
    for what, pattern in _TELLING.items():
        if pattern.search(user_id):
            raise invalid(
                f"metadata.user_id: user_id appears to contain {what}. Please send a uuid or hash value instead"
            )


def _output_config(body: dict[str, Any], model: PretendedModel) -> None:
    if "stream" in body:
        shape.boolean(body["stream"], "stream")
    config = shape.mapping(body.get("output_config", {}), "output_config")
    shape.keys(config, "output_config", optional=("effort", "format", "task_budget"))
    if "effort" in config:
        shape.one_of(config["effort"], "output_config.effort", _EFFORTS)
        if not model.adaptive:
            raise invalid("This model does not support the effort parameter.")
    for path, value in (
        ("output_config.format", config.get("format")),
        ("output_format", body.get("output_format")),
    ):
        if value is not None:
            schemas.check_format(value, path)


def _cache_marks(body: dict[str, Any]) -> None:
    spots = [body.get("tools") or [], body.get("system") or []]
    spots += [message.get("content") for message in body["messages"]]
    found = int(body.get("cache_control") is not None) + sum(map(_count_marks, spots))
    if found > _MAX_CACHE_MARKS:
        raise invalid(
            f"A maximum of {_MAX_CACHE_MARKS} blocks with cache_control may be provided. Found {found}."
        )


def _count_marks(blocks: Any) -> int:
    if not isinstance(blocks, list):
        return 0
    known = [block for block in blocks if isinstance(block, dict)]
    marks = sum(1 for block in known if block.get("cache_control") is not None)
    return marks + sum(_count_marks(block.get("content")) for block in known)


def _fits(body: dict[str, Any], model: PretendedModel) -> None:
    prompt = tokens.of_request(body)
    if prompt > model.context_tokens:
        raise invalid(f"prompt is too long: {prompt} tokens > {model.context_tokens} maximum")
