"""Checks the parameters of a chat, and makes of them the body of a request (modes `full` and `keep_system`).

The whole request travels in `CLAUDE_CODE_EXTRA_BODY`, which the CLI merges over its own API request. The CLI *reports
success and sends its own transcript* when that variable is not a valid JSON object, so nothing is written before the
body has been encoded strictly and read back. How the mode `replay` does it is in `replay`.

Not here: what a model can do (`wish`) and what a client calls a parameter (the surfaces; `ccd_protocol.chat.parameters`
is the one table). Leaving `system` out is the obvious way to have none, and would send the CLI's own (DECISIONS, "An
absent system prompt is sent as an empty list").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ccd_daemon.claude import control
from ccd_daemon.claude.login import Mode
from ccd_protocol.chat.parameters import PARAMETERS, Fate, with_fate
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatParams

#: Parameters that go into the API request under their own names; the system prompt is made into blocks first.
_BODY_KEYS = tuple(name for name in with_fate(Fate.BODY, Mode.FULL) if name != "system")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TOOL_CHOICES = ("auto", "any", "tool", "none")
_MAX_TOOLS = 1000
_MAX_CACHE_MARKS = 4
_CACHEABLE_CHARS = 4096  # about 1,024 tokens, the least that the API caches
_UNMARKABLE = ("thinking", "redacted_thinking")
EFFORTS = PARAMETERS["effort"].one_of
FORMATS = ("json_schema", "json_object")
_MAX_NAME_CHARS = 200


def validate(params: object) -> ChatParams:
    """Returns the parameters of a chat call, checked for known names, types and ranges.

    Raises:
        RpcError: BAD_PARAMS; `data["param"]` names the culprit.
    """
    if not isinstance(params, dict):
        raise bad("", "the parameters of a chat are a map")
    for key in params:
        if key not in PARAMETERS:
            raise bad(str(key)[:80], f"there is no parameter {str(key)[:80]!r}, or it is not supported yet")
    if "messages" not in params:
        raise bad("messages", "messages is missing")
    try:
        chat = msgspec.convert(params, type=ChatParams)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        where = path.rstrip("`") or "messages"
        raise bad(where, f"{where}: {reason}") from None
    _check_names(chat)
    _check_ranges(chat)
    _check_messages(chat)
    _check_tools(chat)
    _check_format(chat)
    if chat.get("exact"):
        chat["messages"] = params["messages"]  # with the keys that the conversion does not know
    return chat


def _check_names(chat: ChatParams) -> None:
    for key, name in (
        ("model", chat.get("model")),
        ("profile", chat.get("profile")),
        ("tenant", chat.get("tenant")),
    ):
        if name is not None and not (0 < len(name) <= _MAX_NAME_CHARS and name.isprintable()):
            raise bad(key, f"{key} must be 1 to {_MAX_NAME_CHARS} printable characters")


def _check_ranges(chat: ChatParams) -> None:
    given = {name: parameter for name, parameter in PARAMETERS.items() if name in chat}
    for name, parameter in given.items():
        value = chat[name]  # type: ignore[literal-required]
        if (parameter.one_of or isinstance(value, int | float)) and (wrong := parameter.wrong(value)):
            raise bad(name, wrong)
        for other in parameter.excludes:
            if other in chat:
                raise bad(name, f"give either {name} or {other}")
    for index, stop in enumerate(chat.get("stop_sequences", [])):
        if not stop:
            raise bad(f"stop_sequences[{index}]", "a stop sequence must not be empty")


def _check_messages(chat: ChatParams) -> None:
    messages = chat["messages"]
    roles = ("user", "assistant", "system") if chat.get("exact") else ("user", "assistant")
    if not messages:
        raise bad("messages", "messages must not be empty")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message["role"] not in roles:
            raise bad(f"{where}.role", f"role must be {' or '.join(roles)}, not {message['role'][:40]!r}")
        if chat.get("exact") and not message["content"]:
            raise bad(f"{where}.content", "content must not be empty")
        if isinstance(message["content"], list) and not all(
            isinstance(block.get("type"), str) for block in message["content"]
        ):
            raise bad(f"{where}.content", "every content block needs a type")


def _check_tools(chat: ChatParams) -> None:
    names: set[str] = set()
    if len(chat.get("tools", ())) > _MAX_TOOLS:
        raise bad("tools", f"there are more than {_MAX_TOOLS} tools")
    for index, tool in enumerate(chat.get("tools", ())):
        if chat.get("exact") and tool.get("type", "custom") != "custom":
            names.add(str(tool.get("name")))
            continue  # one of the API's own tools, which it knows itself
        name = tool.get("name")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise bad(f"tools[{index}].name", "a tool's name is 1 to 128 letters, digits, _ and -")
        if name in names:
            raise bad(f"tools[{index}].name", f"there are two tools named {name!r}")
        names.add(name)
        if not isinstance(tool.get("input_schema"), dict):
            raise bad(
                f"tools[{index}].input_schema", "a tool needs an input_schema, which is a JSON schema object"
            )
    choice = chat.get("tool_choice")
    if choice is None:
        return
    if not names:
        raise bad("tool_choice", "tool_choice needs tools")
    if choice.get("type") not in _TOOL_CHOICES:
        raise bad("tool_choice.type", f"tool_choice is one of {', '.join(_TOOL_CHOICES)}")
    if choice["type"] == "tool" and choice.get("name") not in names:
        raise bad("tool_choice.name", "tool_choice names a tool that is not in tools")


def _check_format(chat: ChatParams) -> None:
    answer_format = chat.get("format")
    if answer_format is None:
        return
    if answer_format.get("type") not in FORMATS:
        raise bad("format.type", f"format.type is one of {', '.join(FORMATS)}")
    if answer_format["type"] == "json_schema" and not isinstance(answer_format.get("schema"), dict):
        raise bad("format.schema", "format needs a schema, which is a JSON schema object")


def bad(param: str, message: str) -> RpcError:
    """Returns a BAD_PARAMS error that names the parameter."""
    return RpcError(Code.BAD_PARAMS, message, {"param": param})


def engine_body(chat: ChatParams, extra: Mapping[str, Any] | None = None, *, with_system: bool = True) -> str:
    """Returns the JSON text for `CLAUDE_CODE_EXTRA_BODY`: every key of the request that the client may decide.

    Args:
        extra: keys that follow from the model's abilities (`wish`).
        with_system: False leaves the system prompt, and the CLI's identity, to the CLI.

    Raises:
        RpcError: BAD_PARAMS, when a value has no JSON form (NaN, Infinity, a lone surrogate, bytes).
    """
    body: dict[str, Any] = {"system": _system_blocks(chat.get("system")), "metadata": {}}
    body.update({key: chat[key] for key in _BODY_KEYS if key in chat})  # type: ignore[literal-required]
    body.update(extra or {})
    if not chat.get("exact"):
        body["messages"] = _marked(body)
    if not with_system:
        del body["system"]
    try:
        text = json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        back = msgspec.json.decode(text)
    except (ValueError, TypeError, RecursionError, msgspec.DecodeError) as error:
        raise bad("messages", f"the request has a value without a JSON form: {error}") from None
    if not (isinstance(back, dict) and back.get("messages")):
        raise bad("messages", "messages must not be empty")
    return text


def _marked(body: dict[str, Any]) -> list[Any]:
    """Returns the messages with a cache mark on the last block, so that the next turn of the conversation is cheap.

    The client's own marks stay; the API takes four at most, and caches nothing short.
    """
    messages = body["messages"]
    if _chars(body["system"]) + sum(_chars(message["content"]) for message in messages) < _CACHEABLE_CHARS:
        return list(messages)
    marks = (
        _marks(body["system"]) + _marks(body.get("tools", ())) + sum(_marks(m["content"]) for m in messages)
    )
    *before, last = messages
    content = last["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if marks >= _MAX_CACHE_MARKS or "cache_control" in blocks[-1] or blocks[-1]["type"] in _UNMARKABLE:
        return list(messages)
    marked = {**blocks[-1], "cache_control": {"type": "ephemeral"}}
    return [*before, {**last, "content": [*blocks[:-1], marked]}]


def _chars(content: Any) -> int:
    return (
        len(content)
        if isinstance(content, str)
        else sum(len(str(block.get("text", ""))) for block in content)
    )


def _marks(blocks: Any) -> int:
    """Cache marks on content blocks or tools; a plain text has none."""
    return sum("cache_control" in block for block in blocks) if not isinstance(blocks, str) else 0


def _system_blocks(system: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Returns the blocks; an absent or empty prompt is an empty list, which replaces the CLI's own."""
    if not system:
        return []
    return [{"type": "text", "text": system}] if isinstance(system, str) else system


@dataclass(frozen=True)
class Wish:
    """A validated chat, as it is to be sent (`wish.py` makes it).

    Attributes:
        model: None for the CLI's default.
        extra: keys of the request body that follow from the model's abilities: thinking, output_config.
        ignored: parameters that cannot be honoured, for the result.
    """

    chat: ChatParams
    model: str | None
    extra: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Script:
    """What to write for one turn.

    `first` goes out in one write; each of `rest` after the CLI has acknowledged the one before with a `result`.
    """

    first: bytes
    ignored: tuple[str, ...] = ()
    rest: tuple[bytes, ...] = ()
    request_ids: frozenset[str] = field(default_factory=frozenset)
    opened_by: str | None = None  # of these the one that gives it what it keeps for life
    binding: str | None = None  # what the worker was given for life, after this turn: fields of `initialize`
    place: tuple[str, str] | None = (
        None  # in mode replay: root and link of what was said when this is answered
    )
    results: tuple[dict[str, Any], ...] | None = None  # for the calls that wait for them, in the calls' order
    knobs: tuple[Any, ...] | None = None  # those that are in force after it
    structured: bool = False  # the answer comes by the CLI's own tool for answers with a schema
    parks: bool = False  # the answer may call client tools, and the process then waits for their results
    calls: bool = False  # the answer may call client tools, whose inputs the daemon is asked for


def binding_of(mode: Mode, chat: ChatParams) -> str | None:
    """What a worker must be, or become, bound to for this chat; None where the system prompt travels with it."""
    fields = {"systemPrompt": system_texts(chat.get("system"))}
    return json.dumps(fields) if mode == Mode.KEEP_SYSTEM else None


def initialize(request_id: str, binding: str) -> bytes:
    """Give a worker what it keeps for life."""
    return control.request(request_id, "initialize", **json.loads(binding))


def _engine_env(wish: Wish, request_body: str) -> dict[str, str]:
    """The live variables of an engine turn. The CLI must not add thinking of its own to what the client asked."""
    in_body = wish.extra.get("thinking", {}).get("type") == "disabled"
    return {
        "CLAUDE_CODE_EXTRA_BODY": request_body,
        "CLAUDE_CODE_DISABLE_THINKING": "" if in_body else "1",
        "CLAUDE_CODE_EFFORT_LEVEL": _effort_setting(wish),
        # With these the CLI sends every request twice that the API refuses, the second time without one of them.
        "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "" if _needs_betas(wish) else "1",
    }


def _needs_betas(wish: Wish) -> bool:
    """Returns whether an exact request without betas of its own has something in it that the CLI's make possible."""
    if not wish.chat.get("exact") or "betas" in wish.extra:
        return False
    return "context_management" in wish.extra or any(m["role"] == "system" for m in wish.chat["messages"])


def _effort_setting(wish: Wish) -> str:
    """Returns the effort; the CLI's default would be part of an exact request too, unless it is unset."""
    if not wish.chat.get("exact"):
        return ""
    effort = (wish.extra.get("output_config") or {}).get("effort")
    return str(effort) if effort in EFFORTS else "unset"


def engine_script(wish: Wish, request_id: str, bound: str | None) -> Script:
    """Binding and the user line of an engine turn, in one write. The user line's own text is never sent on."""
    env = _engine_env(wish, engine_body(wish.chat, wish.extra))
    first = control.flags(request_id, env=env, model=wish.model) + control.user_line(".")
    return Script(first, wish.ignored, request_ids=frozenset((request_id,)), calls=_may_call(wish))


def keep_system_script(wish: Wish, request_id: str, bound: str | None) -> Script:
    """As an engine turn, but the CLI composes the system prompt, which a worker takes on once."""
    binding = binding_of(Mode.KEEP_SYSTEM, wish.chat)
    assert binding is not None
    env = _engine_env(wish, engine_body(wish.chat, wish.extra, with_system=False))
    ids = (request_id, f"{request_id}s")
    head = b"" if bound == binding else initialize(ids[1], binding)
    first = head + control.flags(ids[0], env=env, model=wish.model) + control.user_line(".")
    opened_by = None if bound == binding else ids[1]
    return Script(
        first,
        wish.ignored,
        request_ids=frozenset(ids),
        opened_by=opened_by,
        binding=binding,
        calls=_may_call(wish),
    )


def _may_call(wish: Wish) -> bool:
    """Returns whether the answer may call client tools; exact ones are read where they arrive."""
    return bool(wish.chat.get("tools")) and not wish.chat.get("exact")


def system_texts(system: str | list[dict[str, Any]] | None) -> list[str]:
    """Returns the system prompt as the CLI takes it, one text after the other."""
    if not system:
        return []
    return [system] if isinstance(system, str) else [str(block.get("text", "")) for block in system]


def script(mode: Mode, wish: Wish, request_id: str, bound: str | None = None) -> Script:
    """Returns the turn's script for a worker of a mode in which the whole request is written each time.

    Args:
        bound: what the worker has been given for life.
    """
    return (engine_script if mode == Mode.FULL else keep_system_script)(wish, request_id, bound)
