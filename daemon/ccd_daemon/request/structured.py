"""Checks an answer against the format that was asked for, and words the one request to repair it.

In mode `replay` the CLI has a mechanism of its own: it gives the model a tool that takes the answer. What the model
puts into it is passed on as the text that it stands for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ccd_daemon.request.answer_schema import reduced
from ccd_protocol.methods import ChatParams, Message

_MAX_REASON_CHARS = 500
ANSWER_SCHEMA = "answer_schema"  # among what follows from a wish: what `initialize` calls jsonSchema
_TOOL = "StructuredOutput"
_BEGUN = re.compile(
    rb'"content_block":\{"type":"tool_use","id":"[^"]*","name":"StructuredOutput","input":\{\}[^}]*\}'
)
_TEXT = b'"content_block":{"type":"text","text":""}'
_PIECE, _TEXT_PIECE = b'"type":"input_json_delta","partial_json":', b'"type":"text_delta","text":'
_STOP, _TEXT_STOP = b'"stop_reason":"tool_use"', b'"stop_reason":"end_turn"'
_WHOLE = b'{"type":"assistant"'


def by_the_cli(wanted: Mapping[str, Any], chat: ChatParams) -> dict[str, Any] | None:
    """The schema for the CLI's own mechanism; None where words are surer: beside tools, and for what is no object."""
    if chat.get("tools") or wanted.get("type") not in ("json_schema", "json_object"):
        return None
    if wanted["type"] == "json_object":
        return {"type": "object"}
    schema = wanted.get("schema")
    found = reduced(schema) if isinstance(schema, dict) else None
    return found if found is not None and found.get("type") == "object" else None


def told(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns an answer's blocks with what the tool took as a text; what was said beside it is left out."""
    taken = [block.get("input") for block in blocks if block.get("name") == _TOOL]
    if not taken:
        return blocks
    text = json.dumps(taken[-1], ensure_ascii=False)
    return [*(b for b in blocks if b.get("type") not in ("text", "tool_use")), {"type": "text", "text": text}]


def told_lines(lines: bytes) -> bytes:
    """The CLI's lines of such an answer as if the model had said it. Quotes within texts are escaped in them."""
    lines = _BEGUN.sub(_TEXT, lines).replace(_PIECE, _TEXT_PIECE).replace(_STOP, _TEXT_STOP)
    if _WHOLE not in lines:
        return lines
    return b"".join(_told_line(line) for line in lines.splitlines(keepends=True))


def _told_line(line: bytes) -> bytes:
    if not line.startswith(_WHOLE):
        return line
    decoded = json.loads(line)
    decoded["message"]["content"] = told(decoded["message"]["content"])
    return json.dumps(decoded, separators=(",", ":")).encode() + b"\n"


_MAX_VALUES = 10_000
_MAX_DEPTH = 128  # of JSON; 64 levels of objects with properties
_MAX_CHARS = 1 << 20
_FENCE = "```"
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def problem(text: str, wanted: dict[str, Any]) -> str | None:
    """Returns what is wrong with an answer, in words that a model understands too; None when it is as asked.

    It may take any time, and much memory: see `schema`.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"it is not valid JSON: {error}"
    if wanted["type"] == "json_object":
        return None if isinstance(value, dict) else "it is JSON, but not an object"
    return _schema_problem(value, wanted["schema"])


def _schema_problem(value: Any, schema: dict[str, Any]) -> str | None:
    import jsonschema  # noqa: PLC0415 - 15 MB, and only for the processes that check
    import referencing  # noqa: PLC0415

    try:
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        # By itself it would fetch what a reference names, also from files.
        validator = kind(schema, registry=referencing.Registry())
        error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    except Exception as failure:  # a schema may be wrong in any number of ways
        return f"it cannot be checked against the schema: {failure}"[:_MAX_REASON_CHARS]
    return None if error is None else f"{error.json_path}: {error.message}"[:_MAX_REASON_CHARS]


def schema_error(schema: dict[str, Any]) -> str | None:
    """Returns why a schema cannot be used at all, or None. It may take any time: see `schema`."""
    import jsonschema  # noqa: PLC0415

    try:
        jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator).check_schema(
            schema
        )
    except jsonschema.exceptions.SchemaError as error:
        return f"{error.json_path}: {error.message}"[:_MAX_REASON_CHARS]
    return None


def bounds_error(schema: dict[str, Any]) -> str | None:
    """Why a schema is not even looked at: it is too large, too deep, or refers to something outside of itself."""
    values = chars = 0
    todo: list[tuple[Any, int]] = [(schema, 1)]
    while todo:
        value, depth = todo.pop()
        values += 1
        if isinstance(value, str):
            chars += len(value)
        elif value is None or isinstance(value, int | float):
            pass
        elif isinstance(value, list):
            todo += [(inner, depth + 1) for inner in value[:_MAX_VALUES]]
        elif isinstance(value, dict):
            if (outside := _outside(value)) is not None:
                return outside
            if not all(isinstance(name, str) for name in value):
                return "it has a key that is no text"
            chars += sum(map(len, value))
            todo += [(inner, depth + 1) for inner in value.values()]
        else:
            return "it has a value that is none of JSON's"
        if values + len(todo) > _MAX_VALUES:
            return f"it has more than {_MAX_VALUES} values"
        if depth > _MAX_DEPTH:
            return f"it is nested more than {_MAX_DEPTH} levels deep"
        if chars > _MAX_CHARS:
            return f"it is longer than {_MAX_CHARS} characters"
    return None


def _outside(schema: dict[str, Any]) -> str | None:
    """Also in what is data by its place: another reference may make a schema of it."""
    for name in _REFERENCES:
        target = schema.get(name)
        if isinstance(target, str) and not target.startswith("#"):
            return f"{name} must begin with '#': nothing outside of the schema is read"
    return None


def unfenced(text: str) -> str:
    """Returns the text without a code fence around the whole of it, the commonest blemish."""
    bare = text.strip()
    head, newline, rest = bare.partition("\n")
    if not (newline and head.rstrip() in (_FENCE, f"{_FENCE}json") and rest.endswith(_FENCE)):
        return text
    inner, newline, last = rest.rpartition("\n")
    return inner if newline and last.strip() == _FENCE else text


def repair(chat: ChatParams, text: str, why: str) -> ChatParams:
    """Returns the same chat, continued by the bad answer and the request to correct it."""
    request = f"That answer cannot be used: {why}. Send the corrected JSON alone, without any other text."
    answer, correction = (
        Message(role="assistant", content=text or "(empty)"),
        Message(role="user", content=request),
    )
    return {**chat, "messages": [*chat["messages"], answer, correction]}
