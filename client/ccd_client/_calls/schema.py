"""JSON schemas of dataclasses, TypedDicts and plain types, and their values back from JSON: for `Client.parse`.

Only what an answer needs: text, numbers, booleans, None, lists, dictionaries, unions, literals, enums, and dataclasses
and TypedDicts of these. Anything else is a TypeError that says so, before anything is asked.
"""

from __future__ import annotations

import dataclasses
import types
from enum import Enum
from typing import (
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema that values of a type satisfy.

    Raises:
        TypeError: it has a part that JSON cannot say.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(argument) for argument in arguments]}
    if origin in (Required, NotRequired):
        return schema_of(arguments[0])
    if kind is list or origin is list:
        return {"type": "array", "items": schema_of(arguments[0])} if arguments else {"type": "array"}
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    return _object(kind)


def value_of(kind: Any, value: Any) -> Any:
    """What JSON says, as a value of the type: dataclasses and enums are made, the rest is as it came.

    Raises:
        TypeError, ValueError: it is not one.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value)
    if origin in (Required, NotRequired):
        return value_of(arguments[0], value)
    if kind is list or origin is list:
        _check(value, list, kind)
        return [value_of(arguments[0], item) for item in value] if arguments else value
    if origin is dict:
        _check(value, dict, kind)
        return {key: value_of(arguments[1], item) for key, item in value.items()}
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"expected one of {arguments}, got {value!r}")
        return value
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if dataclasses.is_dataclass(kind) or is_typeddict(kind):
        _check(value, dict, kind)
        hints = get_type_hints(kind, include_extras=True)
        made = {name: value_of(hint, value[name]) for name, hint in hints.items() if name in value}
        return made if is_typeddict(kind) else kind(**made)
    if kind is not Any:
        _check(value, (int, float) if kind is float else kind, kind)
    return value


def _one_of(kinds: tuple[Any, ...], value: Any) -> Any:
    for kind in kinds:
        try:
            return value_of(kind, value)
        except (TypeError, ValueError):
            continue
    raise TypeError(f"{value!r} is none of {kinds}")


def _check(value: Any, accepted: Any, kind: Any) -> None:
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind in (int, float)):
        raise TypeError(f"expected {kind}, got {type(value).__name__}")


def _object(kind: Any) -> dict[str, Any]:
    if is_typeddict(kind):
        needed = sorted(kind.__required_keys__)
    elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
        needed = [field.name for field in dataclasses.fields(kind) if _is_needed(field)]
    else:
        raise TypeError(
            f"{kind!r} has no form in JSON: use dataclasses, TypedDicts, lists, unions and plain types"
        )
    hints = get_type_hints(kind, include_extras=True)
    return {
        "type": "object",
        "title": kind.__name__,
        "properties": {name: schema_of(hint) for name, hint in hints.items()},
        "required": needed,
        "additionalProperties": False,
    }


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
