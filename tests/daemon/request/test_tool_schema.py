"""Schemas of clients' tools are made into such as the model API takes, and say the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccd_daemon.request.tool_schema import fitted
from ccd_offline.rules import validation

TEXT = {"type": "string"}


def takes(schema: Any) -> None:
    """The model API takes it."""
    tools = [{"name": "f", "input_schema": schema}]
    messages = [{"role": "user", "content": "x"}]
    validation.check({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": messages, "tools": tools})


GOOD = [
    {"type": "object"},
    {"type": "object", "properties": {"a": TEXT}, "required": ["a"], "additionalProperties": False},
    {
        "type": "object",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {"a": {"anyOf": [TEXT, {"type": "null"}], "default": None}, "b": {"$ref": "#/$defs/B"}},
        "$defs": {"B": {"type": "array", "items": TEXT, "prefixItems": [True], "minItems": 1}},
    },
    {
        "type": "object",
        "properties": {"a": {"type": "number", "exclusiveMinimum": 1, "enum": [1.5]}},
        "x-own": 1,
    },
]


@pytest.mark.parametrize("schema", GOOD)
def test_a_good_schema_is_not_touched(schema: Any) -> None:
    takes(schema)
    assert fitted(schema) is schema


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": ["object"]}, {"type": "object"}),
        ({"type": ["object", "null"]}, {"type": "object"}),
        (
            {"properties": {"a": {"type": "number", "minimum": 1, "exclusiveMinimum": True}}},
            {"type": "object", "properties": {"a": {"type": "number", "exclusiveMinimum": 1}}},
        ),
        (
            {"properties": {"a": {"type": "number", "maximum": 1, "exclusiveMaximum": False}}},
            {"type": "object", "properties": {"a": {"type": "number", "maximum": 1}}},
        ),
        (
            {"properties": {"a": {"type": "string", "required": True}, "b": {"required": False}}},
            {"type": "object", "properties": {"a": TEXT, "b": {}}, "required": ["a"]},
        ),
        (
            {"properties": {"a": {"items": [TEXT, {"type": "any"}], "additionalItems": False}}},
            {"type": "object", "properties": {"a": {"prefixItems": [TEXT, {}], "items": False}}},
        ),
        ({"properties": None, "required": None}, {"type": "object"}),
        (
            {"properties": {"a": {"enum": None, "minLength": None, "anyOf": []}}, "required": ["a", "a", 5]},
            {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        ),
    ],
)
def test_older_forms(schema: Any, wanted: Any) -> None:
    assert fitted(schema) == wanted
    takes(wanted)


def test_alternatives_at_the_root_are_told() -> None:
    left = {"properties": {"a": TEXT, "b": TEXT}, "required": ["a", "b"]}
    right = {"$ref": "#/$defs/R"}
    defs = {"R": {"properties": {"b": TEXT, "c": TEXT}, "required": ["b"]}}
    made = fitted({"description": "Either.", "oneOf": [left, right], "$defs": defs})
    takes(made)
    assert made["properties"] == {"a": TEXT, "b": TEXT, "c": TEXT} and made["required"] == ["b"]
    assert made["description"].startswith('Either. (The input must also fit this schema: {"oneOf":[{')
    both = fitted({"type": "object", "allOf": [left, {"required": ["d"]}]})
    takes(both)
    assert both["required"] == ["a", "b", "d"]


def test_properties_with_odd_names_are_told() -> None:
    schema = {
        "type": "object",
        "properties": {"a": TEXT, "über uns": TEXT, "x" * 65: TEXT},
        "required": ["a", "über uns"],
        "additionalProperties": False,
    }
    made = fitted(schema)
    takes(made)
    assert made["properties"] == {"a": TEXT} and made["required"] == ["a"]
    assert "additionalProperties" not in made
    assert '"über uns":{"type":"string"}' in made["description"]
    assert '"required":["über uns"]' in made["description"]


json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "type",
                        "properties",
                        "items",
                        "required",
                        "anyOf",
                        "oneOf",
                        "allOf",
                        "enum",
                        "$ref",
                        "minimum",
                    ),
                    *(
                        "exclusiveMinimum",
                        "additionalProperties",
                        "a",
                        "b c",
                        "$defs",
                        "not",
                        "minItems",
                        "description",
                    ),
                ]
            ),
            inner | st.sampled_from(["object", "string", "any", "#/$defs/a"]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(["properties", "anyOf", "allOf", "$defs", "items", "required"]), json, max_size=4
    )
)
def test_whatever_comes_the_api_takes_what_is_made_of_it(schema: Any) -> None:
    made = fitted(schema)
    takes(made)
    again = fitted(made)
    assert again == made
