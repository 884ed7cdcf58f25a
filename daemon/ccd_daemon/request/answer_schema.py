"""From the JSON schema that a client asks for to the one that the model API takes. Pure.

Structured output knows a part of JSON schema only, and refuses the rest: objects must be closed, numbers and lengths
have no limits, nothing may refer to itself. OpenAI's clients send all of that. What only narrows a value is taken out
and told to the model in the description; the answer is checked against the client's own schema all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

_KEPT = frozenset(
    [
        *("type", "title", "description", "enum", "const", "default", "required"),
        *("properties", "additionalProperties", "items", "anyOf", "allOf", "$defs", "definitions"),
    ]
)
#: About the schema as a document; they mean nothing to a model.
_DROPPED = frozenset(["$schema", "$id", "$comment", "$anchor", "$vocabulary"])
#: What changes the sense of a schema and cannot be left out.
_INEXPRESSIBLE = frozenset(
    [
        *("not", "if", "then", "else", "dependentSchemas", "patternProperties", "prefixItems"),
        *("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"),
    ]
)
_FORMATS = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"]
)
_MAX_DEPTH = 64
_MAX_NODES = 10_000
_MAX_TOLD_CHARS = 500


class _InexpressibleError(Exception):
    """The model API has no words for a part of the schema."""


def reduced(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """A schema for structured output: its values are the given schema's, but for limits that its descriptions tell.

    None where there is none: an object with any keys, a schema that refers to itself.
    """
    walk = _SchemaWalk()
    try:
        found = walk.schema(schema, 0)
        TopologicalSorter(walk.references).prepare()
    except (_InexpressibleError, CycleError):
        return None
    return found


def expressible(schema: Mapping[str, Any]) -> bool:
    """Returns whether structured output takes a schema as it is."""
    plain = {name: value for name, value in schema.items() if name not in _DROPPED}
    return reduced(plain) == plain


class _SchemaWalk:
    """One pass over a schema: which of its definitions refer to which."""

    def __init__(self) -> None:
        self.references: dict[str, set[str]] = {}
        self._inside = "#"
        self._nodes = 0

    def schema(self, schema: Any, depth: int) -> dict[str, Any]:
        self._nodes += 1
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise _InexpressibleError
        if _INEXPRESSIBLE & schema.keys() or _combined(schema):
            raise _InexpressibleError
        found = self._definitions(schema, depth)
        if "$ref" in schema:
            return {**found, "$ref": self._reference(schema["$ref"])}
        told: dict[str, Any] = {}
        for name, value in schema.items():
            if name == "oneOf":
                found["anyOf"] = self._each(value, depth)
            elif name in _KEPT or (name in ("format", "minItems") and _fits(name, value)):
                found.setdefault(name, self._kept(name, value, depth))
            elif name not in _DROPPED:
                told[name] = value
        return _described(_closed(found), told)

    def _definitions(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for group in {"$defs", "definitions"} & schema.keys():
            if depth or not isinstance(schema[group], Mapping):
                raise _InexpressibleError  # references are looked up from the root
            found[group] = {}
            for name, definition in schema[group].items():
                self._inside = f"#/{group}/{name}"
                found[group][name] = self.schema(definition, depth + 1)
            self._inside = "#"
        return found

    def _reference(self, target: Any) -> str:
        if not isinstance(target, str) or not target.startswith(("#/$defs/", "#/definitions/")):
            raise _InexpressibleError
        self.references.setdefault(self._inside, set()).add(target)
        return target

    def _kept(self, name: str, value: Any, depth: int) -> Any:
        if name == "properties":
            if not isinstance(value, Mapping):
                raise _InexpressibleError
            return {key: self.schema(inner, depth + 1) for key, inner in value.items()}
        if name in ("anyOf", "allOf"):
            return self._each(value, depth)
        if name == "items":
            return self.schema(value, depth + 1)
        if name == "enum" and any(isinstance(choice, dict | list) for choice in value):
            raise _InexpressibleError
        return value

    def _each(self, schemas: Any, depth: int) -> list[dict[str, Any]]:
        if not isinstance(schemas, list):
            raise _InexpressibleError
        return [self.schema(inner, depth + 1) for inner in schemas]


def _combined(schema: Mapping[str, Any]) -> bool:
    """Returns whether a value must fit several schemas at once: closing each of them would leave no such value."""
    groups = {"anyOf", "oneOf", "allOf"} & schema.keys()
    several = isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1
    return several or len(groups) > 1 or bool(groups and "properties" in schema)


def _fits(name: str, value: Any) -> bool:
    return value in _FORMATS if name == "format" else value in (0, 1)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns an object's schema with no further keys allowed, which every object's must say."""
    kind = schema.get("type")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind) and "properties" not in schema:
        return schema
    further = schema.get("additionalProperties")
    if isinstance(further, dict) or (further is not False and not schema.get("properties")):
        raise _InexpressibleError  # closing it would leave nothing of it
    return {**schema, "additionalProperties": False}


def _described(schema: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    if not told:
        return schema
    limits = ", ".join(f"{name}: {value}" for name, value in told.items())[:_MAX_TOLD_CHARS]
    said = [text for text in (schema.get("description"), f"({limits})") if isinstance(text, str)]
    return {**schema, "description": " ".join(said)}
