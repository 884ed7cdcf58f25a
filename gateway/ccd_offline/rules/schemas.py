"""JSON schemas: which ones structured output takes, and an example value that fits one. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ccd_offline.errors import invalid
from ccd_offline.rules import shape

_UNSUPPORTED = frozenset(
    [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "contains",
        "minProperties",
        "maxProperties",
        "patternProperties",
        "not",
        "if",
        "then",
        "else",
        "dependentSchemas",
        "unevaluatedProperties",
    ]
)
_MALFORMED = (TypeError, AttributeError, KeyError, ValueError, ArithmeticError, RecursionError)
_LOOKS_LIKE = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "offline@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_MAX_DEPTH = 64
_MAX_NODES = 10_000  # of one walk: references can make a small schema explode
_MAX_ITEMS = 100
_MAX_GRAMMAR_BYTES = 100_000  # the real limit is on what a schema compiles to, and written nowhere


class _ExampleWalk:
    """One pass over a schema: what its references start from, and how many nodes may still be visited."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.left = _MAX_NODES

    def visit(self, path: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise invalid(f"{path}: Schema is too complex.")

    def resolve(self, ref: Any, path: str) -> Any:
        """The schema that a `#/...` reference points at."""
        node: Any = self.root
        for step in str(ref).removeprefix("#").strip("/").split("/"):
            node = node.get(step) if isinstance(node, dict) and step else node
        if not str(ref).startswith("#") or node is None:
            raise invalid(f"{path}: Unable to resolve the reference {ref}")
        return node


def check_format(value: Any, path: str) -> None:
    """Refuse an output format that structured output does not support."""
    given = shape.mapping(value, path)
    shape.one_of(given.get("type"), f"{path}.type", ("json_schema",))
    shape.keys(given, path, required=("type", "schema"))
    check_grammar(shape.mapping(given["schema"], f"{path}.schema"), f"{path}.schema")


_AT_THE_ROOT = ("oneOf", "allOf", "anyOf")
_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS_OF_SCHEMAS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def check_input(schema: dict[str, Any], path: str) -> None:
    """Refuse a tool's schema that the real API refuses for any tool."""
    if any(key in schema for key in _AT_THE_ROOT):
        raise invalid(f"{path}: input_schema does not support oneOf, allOf, or anyOf at the top level")
    properties = schema.get("properties")
    for name in properties if isinstance(properties, dict) else ():
        if not _PROPERTY.fullmatch(name):
            raise invalid(f"{path}.properties: Property keys should match pattern '^{_PROPERTY.pattern}$'")
    if not _is_schema(schema, 0):
        raise invalid(f"{path}: JSON schema is invalid. It must match JSON Schema draft 2020-12")


def _is_schema(schema: Any, depth: int) -> bool:
    """Whether a value is a schema of draft 2020-12, as far as the keywords go whose form older drafts had otherwise."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return False
    kinds = schema.get("type", [])
    required = schema.get("required", [])
    return (
        all(kind in _TYPES for kind in (kinds if isinstance(kinds, list) else [kinds]))
        and isinstance(required, list)
        and all(isinstance(name, str) for name in required)
        and len(set(required)) == len(required)
        and isinstance(schema.get("enum", []), list)
        and isinstance(schema.get("$ref", ""), str)
        and not any(isinstance(schema.get(key), bool | str) or schema.get(key, 0) is None for key in _NUMBERS)
        and all(_is_schema(schema[key], depth + 1) for key in _SCHEMAS if key in schema)
        and all(_are_schemas(schema[key], list, depth) for key in _LISTS_OF_SCHEMAS if key in schema)
        and all(_are_schemas(schema[key], dict, depth) for key in _MAPS_OF_SCHEMAS if key in schema)
    )


def _are_schemas(value: Any, kind: type, depth: int) -> bool:
    inner: list[Any] = list(value.values()) if isinstance(value, dict) else value
    return isinstance(value, kind) and all(_is_schema(schema, depth + 1) for schema in inner)


def check_grammar(root: dict[str, Any], path: str) -> None:
    """Refuse a schema that an answer, or a strict tool's input, cannot be held to."""
    try:
        _check(root, path, _ExampleWalk(root), ())
    except _MALFORMED as error:
        raise invalid(f"{path}: not a valid JSON schema ({error})") from error
    if len(msgspec.json.encode(root)) > _MAX_GRAMMAR_BYTES:
        raise invalid(
            "The compiled grammar is too large. Simplify your tool schemas or use fewer strict tools."
        )


def _check(schema: Any, path: str, walk: _ExampleWalk, refs: tuple[str, ...]) -> None:
    walk.visit(path)
    schema = shape.mapping(schema, path)
    if "$ref" in schema:
        if schema["$ref"] in refs:
            raise invalid(f"{path}: Circular reference detected in schema definitions: {schema['$ref']}")
        _check(walk.resolve(schema["$ref"], path), path, walk, (*refs, schema["$ref"]))
        return
    kind = schema.get("type")
    for key in sorted(_UNSUPPORTED & schema.keys()):
        raise invalid(f"{path}: For '{kind}' type, property '{key}' is not supported")
    if kind == "object" and schema.get("additionalProperties") is not False:
        raise invalid(f"{path}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    if kind == "array" and schema.get("minItems", 0) not in (0, 1):
        raise invalid(f"{path}: For 'array' type, 'minItems' values other than 0 or 1 are not supported")
    for name, inner in _inner(schema):
        _check(inner, f"{path}.{name}", walk, refs)


def _inner(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    found = [(f"properties.{name}", inner) for name, inner in (schema.get("properties") or {}).items()]
    for key in ("anyOf", "allOf", "oneOf"):
        found += [(f"{key}.{index}", inner) for index, inner in enumerate(schema.get(key) or [])]
    return [*found, ("items", schema["items"])] if "items" in schema else found


def example(schema: dict[str, Any]) -> Any:
    """A small value that fits a schema: required properties only, first choices, shortest texts.

    Raises:
        RefusedError: the schema makes no sense.
    """
    try:
        return _example(schema, _ExampleWalk(schema), 0)
    except _MALFORMED as error:
        raise invalid(f"input_schema: not a valid JSON schema ({error})") from error


def _example(schema: Any, walk: _ExampleWalk, depth: int) -> Any:
    walk.visit("input_schema")
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _example(walk.resolve(schema["$ref"], "input_schema"), walk, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _example(schema[key][0], walk, depth + 1)
    if schema.get("allOf"):
        return _example(_merged(schema, walk), walk, depth + 1)
    return _of_type(schema, walk, depth)


def _merged(schema: dict[str, Any], walk: _ExampleWalk) -> dict[str, Any]:
    """`schema` with its `allOf` folded in, one level."""
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for given in schema["allOf"]:
        part = walk.resolve(given["$ref"], "input_schema") if "$ref" in given else given
        properties = {**(merged.get("properties") or {}), **(part.get("properties") or {})}
        required = [*(merged.get("required") or []), *(part.get("required") or [])]
        merged = {**merged, **part, "properties": properties, "required": required}
    return merged


def _of_type(schema: dict[str, Any], walk: _ExampleWalk, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0] if kind else "null"
    if kind == "object":
        properties = schema.get("properties") or {}
        wanted = schema.get("required") or []
        return {name: _example(properties.get(name, {}), walk, depth + 1) for name in wanted}
    if kind == "array":
        count = min(schema.get("minItems", 0), _MAX_ITEMS)
        return [_example(schema.get("items", {}), walk, depth + 1) for _ in range(count)]
    if kind in ("integer", "number"):
        return _number(schema, kind)
    if kind == "boolean":
        return True
    return None if kind == "null" else _text(schema)


def _number(schema: dict[str, Any], kind: str) -> Any:
    step = schema.get("multipleOf", 1 if kind == "integer" else 0.5)
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    if least is not None:
        value = -(-least // step) * step
        return value + step if value == schema.get("exclusiveMinimum") else value
    if most is not None and most < step:
        value = most // step * step
        return value - step if value == schema.get("exclusiveMaximum") else value
    return step


def _text(schema: dict[str, Any]) -> str:
    text = _LOOKS_LIKE.get(schema.get("format", ""), "offline")
    return text.ljust(min(schema.get("minLength", 0), 10_000), ".")[: schema.get("maxLength", 10_000)]
