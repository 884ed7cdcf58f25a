import json
from typing import Any

import pytest

from ccd_daemon.request import structured

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
JSON_SCHEMA = {"type": "json_schema", "schema": SCHEMA}
JSON_OBJECT = {"type": "json_object"}


@pytest.mark.parametrize(
    ("text", "wanted", "words"),
    [
        ('{"n": 1}', JSON_SCHEMA, None),
        ('{"n": "one"}', JSON_SCHEMA, "$.n"),
        ("{}", JSON_SCHEMA, "'n' is a required property"),
        ("Sure! {}", JSON_SCHEMA, "not valid JSON"),
        ("{}", JSON_OBJECT, None),
        ("[]", JSON_OBJECT, "not an object"),
        ("[" * 100_000, JSON_OBJECT, "not valid JSON"),
    ],
)
def test_what_is_wrong_with_an_answer(text: str, wanted: dict[str, object], words: str | None) -> None:
    found = structured.problem(text, wanted)
    assert found is None if words is None else words in (found or "")


def test_a_schema_that_is_none_is_told() -> None:
    assert structured.schema_error(SCHEMA) is None
    assert structured.schema_error({"type": "nonsense"})


def nested(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {}
    for _ in range(levels):
        schema = {"properties": {"x": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        nested(60),
        {"properties": {"$ref": {"type": "string"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}, "enum": [None, 1.5, True]},
        {"enum": ["x"] * 9000},
    ],
)
def test_schemas_within_bounds(schema: dict[str, object]) -> None:
    assert structured.bounds_error(schema) is None


@pytest.mark.parametrize("name", ["$ref", "$dynamicRef", "$recursiveRef"])
@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "http://127.0.0.1/", "other.json", "/etc/passwd", "", " #", "urn:x"]
)
@pytest.mark.parametrize("place", ["items", "const", "$defs", "unknown", "examples"])
def test_a_reference_leads_nowhere_outside(name: str, target: str, place: str) -> None:
    for schema in ({name: target}, {place: {name: target}}, {place: [{"a": {name: target}}]}):
        assert "must begin with '#'" in str(structured.bounds_error(schema))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (nested(100), "levels deep"),
        (nested(100_000), "levels deep"),
        ({"enum": ["x"] * 1_000_000}, "values"),
        ({f"k{number}": {} for number in range(100_000)}, "values"),
        ({"allOf": [{"enum": list(range(100))} for _ in range(1000)]}, "values"),
        ({"description": "x" * 2_000_000}, "characters"),
        ({"x" * 2_000_000: {}}, "characters"),
        ({"const": b"bytes"}, "none of JSON's"),
        ({"properties": {1: {}}}, "no text"),
    ],
)
def test_schemas_without_bounds(schema: dict[str, object], words: str) -> None:
    assert words in str(structured.bounds_error(schema))


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("```json\n{}\n```", "{}"),
        ("```\n{}\n```\n", "{}"),
        ("\n ``` json \n".replace("` j", "`j") + "{\n}\n  ```  ", "{\n}"),
        *(
            (text, text)
            for text in (
                "a ``` b",
                "```json\n```",
                "```",
                "",
                "```\n{}\n```x",
                "x\n```\n{}\n```",
                "```js\n1\n```",
            )
        ),
    ],
)
def test_a_fence_around_the_whole_is_taken_off(text: str, bare: str) -> None:
    assert structured.unfenced(text) == bare


def test_a_fence_is_looked_for_in_linear_time() -> None:
    text = "```\n" + "\n" * 300_000
    assert structured.unfenced(text) == text


def test_the_repair_shows_the_bad_answer_and_says_why() -> None:
    again = structured.repair({"messages": [{"role": "user", "content": "q"}]}, "bad", "because")
    assert [message["role"] for message in again["messages"]] == ["user", "assistant", "user"]
    assert "because" in str(again["messages"][-1]["content"])


@pytest.mark.parametrize(
    ("wanted", "tools", "schema"),
    [
        (JSON_OBJECT, [], {"type": "object"}),
        (JSON_SCHEMA, [], {**SCHEMA, "additionalProperties": False}),
        (JSON_SCHEMA, [{"name": "t"}], None),
        ({"type": "json_schema", "schema": {"type": "array", "items": {"type": "string"}}}, [], None),
        ({"type": "json_schema", "schema": {"type": "object", "additionalProperties": {}}}, [], None),
        ({"type": "json_schema"}, [], None),
        ({}, [], None),
    ],
)
def test_which_formats_the_clis_own_tool_is_for(wanted: Any, tools: Any, schema: Any) -> None:
    assert structured.by_the_cli(wanted, {"messages": [], "tools": tools}) == schema


GIVEN = {"type": "tool_use", "id": "toolu_1", "name": "StructuredOutput", "input": {"n": 1, "s": "ä"}}


def line(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def test_what_the_tool_took_is_told_as_a_text() -> None:
    text = {"type": "text", "text": '{"n": 1, "s": "ä"}'}
    thought = {"type": "thinking", "thinking": "hm"}
    assert structured.told([thought, {"type": "text", "text": "Here:"}, GIVEN]) == [thought, text]
    said = [{"type": "text", "text": "no JSON"}]
    assert structured.told(said) == said
    tricky = 'a "stop_reason":"tool_use" "type":"input_json_delta","partial_json": in it'
    start = {"type": "content_block_start", "index": 0, "content_block": {**GIVEN, "input": {}}}
    piece = {"type": "input_json_delta", "partial_json": json.dumps({"s": tricky})}
    end = {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}}
    lines = (
        line(type="stream_event", event=start)
        + line(type="stream_event", event={"type": "content_block_delta", "index": 0, "delta": piece})
        + line(type="assistant", message={"id": "m", "content": [GIVEN]})
        + line(type="stream_event", event=end)
    )
    begun, told, whole, stopped = (json.loads(found) for found in structured.told_lines(lines).splitlines())
    assert begun["event"]["content_block"] == {"type": "text", "text": ""}
    assert told["event"]["delta"]["type"] == "text_delta"
    assert json.loads(told["event"]["delta"]["text"]) == {"s": tricky}
    assert whole["message"]["content"] == [text]
    assert stopped["event"]["delta"]["stop_reason"] == "end_turn"
