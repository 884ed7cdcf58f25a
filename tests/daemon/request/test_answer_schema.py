from __future__ import annotations

from typing import Any

import pytest

from ccd_daemon.request.answer_schema import expressible, reduced

CLOSED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/t"}},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"t": {"enum": ["a", None], "title": "T"}},
}


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_what_the_api_takes_stays_as_it_is() -> None:
    assert reduced(CLOSED) == CLOSED
    assert expressible({**CLOSED, "$schema": "https://json-schema.org/draft/2020-12/schema"})
    assert not expressible({**CLOSED, "additionalProperties": True})


def test_objects_are_closed_wherever_they_stand() -> None:
    inner = obj(b={"type": "null"})
    found = reduced(
        {**obj(a={"anyOf": [inner, {"type": "array", "items": inner}]}), "additionalProperties": True}
    )
    assert found is not None
    closed = {**inner, "additionalProperties": False}
    assert found["properties"]["a"]["anyOf"] == [closed, {"type": "array", "items": closed}]
    assert found["additionalProperties"] is False


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many."},
            {"type": "integer", "description": "How many. (minimum: 1, maximum: 9)"},
        ),
        ({"type": "string", "format": "phone"}, {"type": "string", "description": "(format: phone)"}),
        ({"type": "array", "items": {"type": "null"}, "minItems": 1}, None),
        ({"type": "array", "items": {"type": "null"}, "minItems": 3}, {"description": "(minItems: 3)"}),
        (
            {"oneOf": [{"type": "string"}, {"type": "null"}]},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
        ),
        ({"type": "string", "$schema": "x", "$comment": "y"}, {"type": "string"}),
    ],
)
def test_limits_are_told_to_the_model(given: dict[str, Any], wanted: dict[str, Any] | None) -> None:
    found = reduced(obj(a=given))
    assert found is not None
    inner = found["properties"]["a"]
    expected = given if wanted is None else wanted
    assert {name: inner.get(name) for name in expected} == expected
    assert not inner.keys() & {"minimum", "maximum", "oneOf", "$schema", "$comment"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        obj(a={"type": "object", "patternProperties": {"x": {}}}),
        obj(a={"$ref": "#"}),
        obj(a={"$ref": "https://example.org/schema"}),
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": obj(next={"$ref": "#/$defs/b"}), "b": obj(next={"$ref": "#/$defs/a"})},
        },
        obj(a={"enum": [{"x": 1}]}),
        obj(a=True),
        obj(a={"not": {"type": "string"}}),
        {"anyOf": 1},
        {"allOf": [obj(a={}), obj(b={})]},
        {**obj(a={}), "anyOf": [obj(b={})]},
        {"anyOf": [], "oneOf": []},
        {"properties": 1},
    ],
)
def test_what_structured_output_cannot_say_is_told_apart(schema: dict[str, Any]) -> None:
    assert reduced(schema) is None


def test_deep_and_large_schemas_end() -> None:
    deep: dict[str, Any] = {"type": "null"}
    for _ in range(200):
        deep = obj(a=deep)
    assert reduced(deep) is None
    assert reduced(obj(**{f"p{number}": {"type": "null"} for number in range(20_000)})) is None
