"""From the JSON schema of a client's tool to one that the model API takes for any tool. Pure.

The API wants an object without alternatives at its root, properties with plain names, and the form of draft 2020-12.
What only has an older form gets the new one; what the API does not take at all is told to the model in the description,
because it may call a tool with whatever it was told of. Where something was put otherwise the result is another object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Schema = dict[str, Any]

_ALTERNATIVES = ("oneOf", "anyOf", "allOf")
_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_SCHEMAS = (
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedProperties",
)
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LIMITS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
)
_COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties")
_MAX_DEPTH = 64
_MAX_TOLD_CHARS = 4000


def fitted(schema: Schema) -> Schema:
    """Returns the schema itself if the API takes it, else one that says the same as far as it can."""
    found = _plain_root(_modern(schema, 0))
    return schema if found == schema else found


# --- the form of draft 2020-12 ---


def _modern(schema: Any, depth: int) -> Any:
    """Returns a schema with what older drafts wrote otherwise as the present one has it; nonsense is left out."""
    if isinstance(schema, bool) or depth > _MAX_DEPTH:
        return schema if isinstance(schema, bool) else True
    if not isinstance(schema, Mapping):
        return True
    found: Schema = {}
    for key, value in schema.items():
        _put(found, key, value, depth)
    for limit in ("Minimum", "Maximum"):
        _exclusive(found, limit, schema)
    names = [name for name, inner in _properties(schema).items() if _is_required(inner)]
    if names:  # draft 3 said so in the property itself
        found["required"] = list(dict.fromkeys([*found.get("required", ()), *names]))
    return found


def _put(found: Schema, key: str, value: Any, depth: int) -> None:
    if key == "items":
        _put_items(found, value, depth)
    elif key == "additionalItems":
        found.setdefault("items", _modern(value, depth + 1))
    elif key not in _READERS:
        found[key] = value
    elif (read := _READERS[key](value, depth)) is not None:
        found[key] = read


def _put_items(found: Schema, value: Any, depth: int) -> None:
    if isinstance(value, list):  # a tuple, as drafts before 2020-12 had it
        found.pop("items", None)
        found.update({"prefixItems": [_modern(inner, depth + 1) for inner in value]} if value else {})
    else:
        found["items"] = _modern(value, depth + 1)


def _type(value: Any, depth: int) -> Any:
    """Returns the type or types that there are; `any`, and what no draft knows, is no restriction."""
    if isinstance(value, str):
        return value if value in _TYPES else None
    if not isinstance(value, list):
        return None
    known = list(dict.fromkeys(kind for kind in value if isinstance(kind, str) and kind in _TYPES))
    if len(known) < len(set(map(str, value))) or not known:
        return None
    return known[0] if len(known) == 1 else known


def _required(value: Any, depth: int) -> Any:
    if not isinstance(value, list):
        return None
    return list(dict.fromkeys(name for name in value if isinstance(name, str)))


def _list(value: Any, depth: int) -> Any:
    return [_modern(inner, depth + 1) for inner in value] if isinstance(value, list) and value else None


def _map(value: Any, depth: int) -> Any:
    if not isinstance(value, Mapping):
        return None
    return {name: _modern(inner, depth + 1) for name, inner in value.items()}


def _limit(value: Any, depth: int) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


_READERS: Mapping[str, Callable[[Any, int], Any]] = {
    "type": _type,
    "required": _required,
    "$ref": lambda value, depth: value if isinstance(value, str) else None,
    "enum": lambda value, depth: value if isinstance(value, list) else None,
    **dict.fromkeys(_SCHEMAS, lambda value, depth: _modern(value, depth + 1)),
    **dict.fromkeys(_LISTS, _list),
    **dict.fromkeys(_MAPS, _map),
    **dict.fromkeys((*_LIMITS, *_COUNTS), _limit),
}


def _exclusive(found: Schema, limit: str, schema: Mapping[str, Any]) -> None:
    """Until draft 4 an exclusive limit was a limit with a flag beside it."""
    plain, exclusive = limit.lower(), f"exclusive{limit}"
    if schema.get(exclusive) is True and plain in found:
        found[exclusive] = found.pop(plain)


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def _is_required(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("required") is True


# --- the root ---


def _plain_root(schema: Schema) -> Schema:
    """Returns an object without alternatives, its properties with names that the API takes."""
    told: Schema = {key: schema[key] for key in _ALTERNATIVES if key in schema}
    found = {key: value for key, value in schema.items() if key not in _ALTERNATIVES}
    if told:
        _fold(found, told)
    odd = {name: inner for name, inner in _properties(found).items() if not _PROPERTY.fullmatch(name)}
    if odd:
        required = found.get("required", [])
        found["properties"] = {n: inner for n, inner in _properties(found).items() if n not in odd}
        found["required"] = [name for name in required if name not in odd]
        if found.get("additionalProperties") is False:
            del found["additionalProperties"]
        told["properties"] = odd
        if missing := [name for name in required if name in odd]:
            told["required"] = missing
    found["type"] = "object"
    return _described(found, told) if told else found


def _fold(found: Schema, told: Schema) -> None:
    """Put what alternatives say of properties where it may stand: what all of `allOf` and any of the others know."""
    properties, required = dict(_properties(found)), list(found.get("required", ()))
    for key, branches in told.items():
        known = [_resolved(branch, found) for branch in branches]
        for branch in known:
            for name, inner in _properties(branch).items():
                properties.setdefault(name, inner)
        wanted = [branch.get("required") or [] for branch in known]
        if key == "allOf":
            required += [name for names in wanted for name in names]
        elif wanted:
            required += [name for name in wanted[0] if all(name in names for names in wanted)]
    found["properties"] = properties
    if required:
        found["required"] = list(dict.fromkeys(required))
    if found.get("additionalProperties") is False and any(_closed(b) for b in told.values()):
        del found["additionalProperties"]


def _closed(branches: Any) -> bool:
    return any(not isinstance(branch, Mapping) or "$ref" in branch for branch in branches)


def _resolved(branch: Any, root: Schema) -> Mapping[str, Any]:
    """Returns a branch, or what it refers to in the root's definitions."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(branch, Mapping):
            return {}
        target = branch.get("$ref")
        if not isinstance(target, str):
            return branch
        group, _, name = target.removeprefix("#/").partition("/")
        branch = (root.get(group) or {}).get(name) if group in ("$defs", "definitions") else None
    return {}


def _described(schema: Schema, told: Schema) -> Schema:
    words = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    if len(words) > _MAX_TOLD_CHARS:
        words = f"{words[:_MAX_TOLD_CHARS]} …"
    said = [
        text
        for text in (schema.get("description"), f"(The input must also fit this schema: {words})")
        if text
    ]
    return {**schema, "description": " ".join(map(str, said))}
