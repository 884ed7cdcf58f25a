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


@pytest.mark.parametrize(
    ("text", "bare"), [("```json\n{}\n```", "{}"), ("```\n{}\n```\n", "{}"), ("a ``` b", "a ``` b")]
)
def test_a_fence_around_the_whole_is_taken_off(text: str, bare: str) -> None:
    assert structured.unfenced(text) == bare


def test_the_repair_shows_the_bad_answer_and_says_why() -> None:
    again = structured.repair({"messages": [{"role": "user", "content": "q"}]}, "bad", "because")
    assert [message["role"] for message in again["messages"]] == ["user", "assistant", "user"]
    assert "because" in str(again["messages"][-1]["content"])
