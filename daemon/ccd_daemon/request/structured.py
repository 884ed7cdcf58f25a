"""Checks an answer against the format that was asked for, and words the one request to repair it."""

from __future__ import annotations

import json
import re
from typing import Any

from ccd_protocol.methods import ChatParams, Message

_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)
_MAX_REASON_CHARS = 500


def problem(text: str, wanted: dict[str, Any]) -> str | None:
    """What is wrong with an answer, in words for the model and for people; None when it is as asked."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"it is not valid JSON: {error}"
    if wanted["type"] == "json_object":
        return None if isinstance(value, dict) else "it is JSON, but not an object"
    return _schema_problem(value, wanted["schema"])


def _schema_problem(value: Any, schema: dict[str, Any]) -> str | None:
    import jsonschema  # noqa: PLC0415 - a few MB that most daemons never need

    try:
        validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)(
            schema
        )
        error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    except Exception as failure:  # a schema may be wrong in any number of ways
        return f"it cannot be checked against the schema: {failure}"[:_MAX_REASON_CHARS]
    return None if error is None else f"{error.json_path}: {error.message}"[:_MAX_REASON_CHARS]


def schema_error(schema: dict[str, Any]) -> str | None:
    """Why a schema cannot be used at all, or None."""
    import jsonschema  # noqa: PLC0415

    try:
        jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator).check_schema(
            schema
        )
    except jsonschema.exceptions.SchemaError as error:
        return f"{error.json_path}: {error.message}"[:_MAX_REASON_CHARS]
    return None


def unfenced(text: str) -> str:
    """The text without a code fence around the whole of it, the commonest blemish."""
    match = _FENCE.match(text)
    return match[1] if match else text


def repair(chat: ChatParams, text: str, why: str) -> ChatParams:
    """The same chat, continued by the bad answer and the request to correct it."""
    request = f"That answer cannot be used: {why}. Send the corrected JSON alone, without any other text."
    answer, correction = (
        Message(role="assistant", content=text or "(empty)"),
        Message(role="user", content=request),
    )
    return {**chat, "messages": [*chat["messages"], answer, correction]}
