"""Every refusal of the offline API, and the requests that must pass."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ccd_offline import models
from ccd_offline.errors import RefusedError
from ccd_offline.rules import schemas, signature, validation

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(16)).decode()
TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}
CALL = {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "call_1", "content": "done"}
MARK = {"cache_control": {"type": "ephemeral"}}
OLD = "claude-sonnet-4-5"
NEW = "claude-opus-5-5"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def request(**fields: Any) -> dict[str, Any]:
    """A valid request for a model with few special rules, changed; a field set to ... is left out."""
    body = {"model": OLD, "max_tokens": 100, "messages": [user("hi")], **fields}
    return {key: value for key, value in body.items() if value is not ...}


def content(*blocks: Any) -> dict[str, Any]:
    return request(messages=[user(list(blocks))])


def image(**source: Any) -> dict[str, Any]:
    return content(
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG, **source}}
    )


def text(**fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": "x", **fields}


def formatted(schema: Any) -> dict[str, Any]:
    return request(output_config={"format": {"type": "json_schema", "schema": schema}})


ADAPTIVE = {"model": NEW, "thinking": {"type": "adaptive"}}
BUDGET = {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 4000}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": signature.sign("hm", OLD)}


def png(width: int, height: int) -> str:
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IHDR" + size).decode()


def shown(count: int, width: int = 1) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": png(width, 1)}
    return content(*({"type": "image", "source": source} for _ in range(count)))


def schema(**keys: Any) -> dict[str, Any]:
    return request(tools=[{"name": "f", "input_schema": {"type": "object", **keys}}])


INVALID_SCHEMA = (
    "tools.0.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12"
)
REFUSED_BY_ALL = [
    (request(metadata={"user_id": "ann@example.com"}), "user_id appears to contain an email address"),
    (request(metadata={"user_id": "me: ann.lee@mail.example.org."}), "appears to contain an email address"),
    (request(metadata={"user_id": "+49 170 1234567"}), "user_id appears to contain a phone number"),
    (request(metadata={"user_id": "(555) 123-4567"}), "user_id appears to contain a phone number"),
    (schema(anyOf=[{"required": ["a"]}]), "does not support oneOf, allOf, or anyOf at the top level"),
    (schema(allOf=[]), "does not support oneOf, allOf, or anyOf at the top level"),
    (schema(properties={"a b": {}}), "Property keys should match pattern"),
    (schema(properties={"a": {"minimum": 1, "exclusiveMinimum": True}}), INVALID_SCHEMA),
    (schema(properties={"a": {"required": True}}), INVALID_SCHEMA),
    (schema(properties={"a": {"type": "array", "items": [{}]}}), INVALID_SCHEMA),
    (schema(properties={"a": {"anyOf": [{"type": "any"}]}}), INVALID_SCHEMA),
    (schema(required=["a", "a"]), INVALID_SCHEMA),
    (image(data="A" * ((5 << 20) + 4)), "image exceeds 5 MB maximum: 5242884 bytes > 5242880 bytes"),
    (image(data=png(8001, 1)), "At least one of the image dimensions exceed max allowed size: 8000 pixels"),
    (shown(21, 2001), "exceed max allowed size for many-image requests: 2000 pixels"),
    (shown(101), "too many images and documents: 101 + 0 > 100"),
    (
        request(model="claude-opus-4-1", messages=[user("x"), assistant([THOUGHT, text()]), user("y")]),
        "messages.1.content.0: Invalid `signature` in `thinking` block",
    ),
]
ALLOWED_BY_ALL = [
    *(
        request(metadata={"user_id": who})
        for who in ("user-12345678", "0f8fad5b-d9cb-469f-a165-70867728950e", "ann")
    ),
    schema(properties={"a.b-c_1": {"anyOf": [{"exclusiveMinimum": 1}, True], "items": {}}}, required=["a"]),
    image(data=png(8000, 8000)),
    shown(20, 2001),
    shown(21, 2000),
    shown(100),
]


@pytest.mark.parametrize(("body", "message"), REFUSED_BY_ALL)
def test_what_clients_of_other_apis_send_is_refused_as_the_real_api_does(body: Any, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        validation.check(body)
    assert message in caught.value.message and caught.value.status == 400


@pytest.mark.parametrize("body", ALLOWED_BY_ALL)
def test_what_only_looks_like_it_is_not(body: Any) -> None:
    validation.check(body)


REFUSED = [
    ([], "body: Input should be a valid dictionary"),
    (request(model=...), "model: Field required"),
    (request(messages=...), "messages: Field required"),
    (request(max_tokens=...), "max_tokens: Field required"),
    (request(max_tokens=0), "max_tokens: Input should be greater than or equal to 1"),
    (request(max_tokens="9"), "max_tokens: Input should be a valid integer"),
    (request(max_tokens=True), "max_tokens: Input should be a valid integer"),
    (request(model=NEW, max_tokens=128001), "max_tokens: 128001 > 128000"),
    (request(max_tokens=64001), "max_tokens: 64001 > 64000"),
    (request(seed=1), "seed: Extra inputs are not permitted"),
    (request(stream="yes"), "stream: Input should be a valid boolean"),
    (request(messages=[]), "messages: at least one message is required"),
    (request(messages="hi"), "messages: Input should be a valid list"),
    (request(messages=["hi"]), "messages.0: Input should be a valid dictionary"),
    (request(messages=[{"role": "user"}]), "messages.0.content: Field required"),
    (request(messages=[{**user("x"), "name": "bob"}]), "messages.0.name: Extra inputs are not permitted"),
    (request(messages=[user("")]), "messages.0: all messages must have non-empty content"),
    (request(messages=[user(5)]), "messages.0.content: Input should be a valid list"),
    (request(messages=[assistant("x"), user("x")]), 'first message must use the "user" role'),
    (request(messages=[{"role": "tool", "content": "x"}]), "Unexpected role 'tool'"),
    (request(messages=[{"role": "system", "content": "x"}, user("x")]), 'Unexpected role "system"'),
    (request(messages=[user("x"), {"role": "system", "content": "x"}]), 'Unexpected role "system"'),
    (
        request(model=NEW, messages=[{"role": "system", "content": "x"}, user("x")]),
        'Unexpected role "system"',
    ),
    (
        request(model=NEW, messages=[user("x"), {"role": "system", "content": 5}]),
        "messages.1.content: Input should",
    ),
    (
        request(model=NEW, messages=[user("x"), {"role": "system", "content": [{"type": "image"}]}]),
        "messages.1.content.0: Input tag 'image' found",
    ),
    (content(text(text="")), "text content blocks must be non-empty"),
    (content(text(text=" \n")), "text content blocks must contain non-whitespace text"),
    (content(text(bold=True)), "messages.0.content.0.text.bold: Extra inputs are not permitted"),
    (content({"text": "x"}), "messages.0.content.0.type: Field required"),
    (content({"type": ["text"]}), "messages.0.content.0.type: Field required"),
    (content({"type": "input_text", "text": "x"}), "Input tag 'input_text' found using 'type'"),
    (content(CALL), "Input tag 'tool_use' found using 'type'"),
    (content(text(cache_control={"type": "forever"})), "cache_control.type: Input should be 'ephemeral'"),
    (request(system=[text(text="")]), "system: text content blocks must be non-empty"),
    (request(system=5), "system: Input should be a valid list"),
    (content(*[text(**MARK)] * 5), "A maximum of 4 blocks with cache_control may be provided. Found 5."),
    (
        request(system=[text(**MARK)] * 3, tools=[{**TOOL, **MARK}], cache_control=MARK["cache_control"]),
        "Found 5.",
    ),
    (image(data="&&"), "invalid base64 data"),
    (image(data=""), "image cannot be empty"),
    (image(data=base64.b64encode(b"no image").decode()), "Could not process image"),
    (image(media_type="image/jpeg"), "appears to be a image/png image"),
    (image(media_type="image/bmp"), "media_type: Input should be 'image/jpeg', 'image/png', 'image/gif'"),
    (
        content({"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}),
        "Only HTTPS URLs are supported",
    ),
    (
        content(
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PNG}}
        ),
        "The PDF specified was not valid.",
    ),
    (request(messages=[user("x"), assistant([CALL])]), "`tool_use` ids were found without `tool_result`"),
    (
        request(messages=[user("x"), assistant([CALL]), user("y")]),
        "`tool_use` ids were found without `tool_result`",
    ),
    (
        request(messages=[user("x"), assistant([CALL]), user([text(), RESULT])]),
        "`tool_use` ids were found without `tool_result` blocks immediately after: call_1",
    ),
    (content(RESULT), "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: call_1"),
    (request(messages=[user("x"), assistant([CALL]), user([RESULT, RESULT])]), "must have a single result"),
    (
        request(messages=[user("x"), assistant([CALL, CALL]), user([RESULT])]),
        "`tool_use` ids must be unique",
    ),
    (
        request(messages=[user("x"), assistant([{**CALL, "id": "a b"}]), user("y")]),
        "messages.1.content.0.tool_use.id: String should match pattern",
    ),
    (
        request(messages=[user("x"), assistant([{**CALL, "input": "{}"}]), user("y")]),
        "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
    ),
    (
        request(messages=[user("x"), assistant([{**THOUGHT, "thinking": "changed"}]), user("y")]),
        "messages.1.content.0: Invalid `signature` in `thinking` block",
    ),
    (request(tools=[TOOL, TOOL]), "tools: Tool names must be unique."),
    (request(tools=[{**TOOL, "name": "a.b"}]), "tools.0.custom.name: String should match pattern"),
    (request(tools=[{"name": "f"}]), "tools.0.custom.input_schema: Field required"),
    (request(tools=[{"name": "f", "input_schema": {}}]), "tools.0.custom.input_schema.type: Field required"),
    (request(tools=[{**TOOL, "function": {}}]), "tools.0.custom.function: Extra inputs are not permitted"),
    (request(tools=[TOOL], tool_choice="auto"), "tool_choice: Input should be a valid dictionary"),
    (
        request(tools=[TOOL], tool_choice={"type": "required"}),
        "tool_choice.type: Input should be 'auto', 'any'",
    ),
    (request(tools=[TOOL], tool_choice={"type": "tool"}), "tool_choice.tool.name: Field required"),
    (
        request(tools=[TOOL], tool_choice={"type": "tool", "name": "g"}),
        "Tool 'g' not found in provided tools",
    ),
    (request(tool_choice={"type": "auto"}), "tool_choice: may only be specified while providing tools"),
    (
        request(**ADAPTIVE, tools=[TOOL], tool_choice={"type": "any"}),
        "Thinking may not be enabled when tool_choice forces tool use.",
    ),
    (request(temperature=1.5), "temperature: range: 0..1"),
    (request(temperature=-0.1), "temperature: range: 0..1"),
    (request(temperature="hot"), "temperature: Input should be a valid number"),
    (request(top_p=2), "top_p: range: 0..1"),
    (request(top_k=-1), "top_k: Input should be greater than or equal to 0"),
    (request(temperature=0.5, top_p=0.5), "`temperature` and `top_p` cannot both be specified"),
    (request(model=NEW, temperature=0.5), "`temperature` is deprecated for this model."),
    (request(model=NEW, top_p=0.5), "`top_p` is deprecated for this model."),
    (request(model=NEW, top_k=5), "`top_k` is deprecated for this model."),
    (request(**BUDGET, temperature=0.5), "`temperature` may only be set to 1 when thinking is enabled"),
    (request(**BUDGET, top_p=0.5), "`top_p` must be greater than or equal to 0.95"),
    (request(**BUDGET, top_k=5), "`top_k` must be unset when thinking is enabled"),
    (request(thinking={"type": "adaptive"}), "adaptive thinking is not supported on this model"),
    (request(thinking=None), "thinking: Input should be a valid dictionary"),
    (
        request(model=NEW, thinking={"type": "disabled"}),
        '"thinking.type.disabled" is not supported for this model',
    ),
    (request(model="claude-3-haiku-20240307", **BUDGET), "does not support thinking"),
    (
        request(thinking={"type": "enabled", "budget_tokens": 10}),
        "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
    ),
    (
        request(thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=2000),
        "`max_tokens` must be greater than `thinking.budget_tokens`.",
    ),
    (
        request(**BUDGET, tools=[TOOL], messages=[user("x"), assistant([CALL]), user([RESULT])]),
        "Expected `thinking` or `redacted_thinking`, but found `tool_use`",
    ),
    (request(**BUDGET, messages=[user("x"), assistant("y")]), "does not support assistant message prefill"),
    (request(model=NEW, messages=[user("x"), assistant("y")]), "does not support assistant message prefill"),
    (request(messages=[user("x"), assistant("y ")]), "cannot end with trailing whitespace"),
    (request(stop_sequences=["  "]), "each stop sequence must contain non-whitespace"),
    (request(stop_sequences="x"), "stop_sequences: Input should be a valid list"),
    (request(metadata={"tenant": "x"}), "metadata.tenant: Extra inputs are not permitted"),
    (request(metadata={"user_id": "x" * 257}), "metadata.user_id: String should have at most 256 characters"),
    (request(output_config={"effort": "low"}), "This model does not support the effort parameter."),
    (request(model=NEW, output_config={"effort": "lazy"}), "output_config.effort: Input should be 'low'"),
    (formatted({"type": "object"}), "'additionalProperties' must be explicitly set to false"),
    (formatted({"type": "integer", "minimum": 1}), "property 'minimum' is not supported"),
    (formatted({"type": "array", "items": {"type": "object"}}), "schema.items: For 'object' type"),
    (formatted({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}), "Circular reference detected"),
    (formatted({"$ref": "#/$defs/nope"}), "Unable to resolve the reference"),
    (
        formatted({"type": "object", "additionalProperties": False, "properties": 5}),
        "not a valid JSON schema",
    ),
    (
        request(output_config={"format": {"type": "json_object"}}),
        "output_config.format.type: Input should be",
    ),
    (request(messages=[user("x" * 800_100)]), "prompt is too long: "),
]

ACCEPTED = [
    request(),
    request(model=NEW, max_tokens=128000, stream=True, system="be brief", metadata={"user_id": "u"}),
    request(model="claude-haiku-4-5-20251001", temperature=0.2, stop_sequences=["END"]),
    request(model="claude-3-5-sonnet-latest", temperature=0.2, top_p=0.9, top_k=5),
    request(model=NEW, temperature=1, top_p=1),
    request(**ADAPTIVE, tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
    request(tools=[TOOL], tool_choice={"type": "tool", "name": "f"}, thinking={"type": "disabled"}),
    request(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]),
    request(**BUDGET, messages=[user("x"), assistant([THOUGHT, CALL]), user([RESULT])], tools=[TOOL]),
    request(**ADAPTIVE, messages=[user("x"), assistant([CALL]), user([RESULT])], tools=[TOOL]),
    request(messages=[user("x"), assistant([{**THOUGHT, "thinking": ""}, text()]), user("y")]),
    request(messages=[user("x"), assistant([text(), CALL]), user([RESULT, text()])]),
    request(messages=[user("x"), assistant([CALL]), user([{**RESULT, "content": [text()]}]), user("and")]),
    request(messages=[user("x"), assistant("prefill")]),
    request(messages=[user("a"), user("b")]),
    content({"type": "image", "source": {"type": "url", "url": "https://example.com/x.png"}}),
    image(),
    content(*[text(**MARK)] * 4),
    formatted({"type": "object", "additionalProperties": False, "properties": {"a": {"type": "string"}}}),
    # What the CLI (2.1.330) sends of its own accord.
    request(
        **ADAPTIVE,
        messages=[
            user([text(**MARK)]),
            {"role": "system", "content": [], "output_config": {"effort": "medium"}},
        ],
        system=[text(), text(**MARK)],
        tools=[],
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "medium"},
        stream=True,
    ),
    request(model=NEW, thinking={"type": "adaptive", "display": "updates"}),
    request(
        model=NEW,
        messages=[user("x"), {"role": "system", "content": "# Environment"}, assistant("y"), user("z")],
    ),
]


@pytest.mark.parametrize(("body", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_refuses_what_the_real_api_refuses(body: Any, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        validation.check(body)
    assert message in caught.value.message
    assert (caught.value.status, caught.value.kind) == (400, "invalid_request_error")


@pytest.mark.parametrize("body", ACCEPTED)
def test_accepts(body: dict[str, Any]) -> None:
    assert validation.check(body) is models.find(body["model"])


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(RefusedError, match="model: gpt-4o") as caught:
        validation.check(request(model="gpt-4o"))
    assert (caught.value.status, caught.value.kind) == (404, "not_found_error")


@pytest.mark.parametrize(
    "name", ["claude-opus-9", "claude-opus-5-5x", "opus", "", "claude-opus-4-20250514-1"]
)
def test_models_that_do_not_exist(name: str) -> None:
    assert models.find(name) is None


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("claude-sonnet-4-20250514", "claude-sonnet-4-0"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-3-7-sonnet-latest", "claude-3-7-sonnet"),
        ("claude-fable-5-2", "claude-fable-5-2"),
    ],
)
def test_models_under_their_other_names(name: str, id: str) -> None:
    model = models.find(name)
    assert model is not None
    assert model.id == id


def test_a_thinking_budget_may_pass_max_tokens_when_interleaved_with_tools() -> None:
    body = request(thinking={"type": "enabled", "budget_tokens": 2000}, tools=[TOOL])
    validation.check(body, betas=frozenset({"interleaved-thinking-2025-05-14"}))
    with pytest.raises(RefusedError, match=r"must be greater than `thinking\.budget_tokens`"):
        validation.check(body)


def test_counting_takes_no_max_tokens() -> None:
    validation.check(request(max_tokens=...), counting=True)
    with pytest.raises(RefusedError, match="max_tokens: Extra inputs"):
        validation.check(request(), counting=True)


def test_deeply_nested_input_ends_in_an_error_that_the_server_answers() -> None:
    nested: Any = "x"
    for _ in range(5000):
        nested = [nested]
    with pytest.raises((RefusedError, RecursionError)):
        validation.check(request(tools=[{**TOOL, "input_examples": nested}]))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]},
            {"a": "offline"},
        ),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "number", "maximum": -2}, -2),
        ({"enum": ["red", "blue"]}, "red"),
        ({"const": 7}, 7),
        ({"type": "array", "minItems": 2, "items": {"type": "boolean"}}, [True, True]),
        ({"type": ["null", "string"]}, None),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"type": "string", "minLength": 10}, "offline..."),
        ({"type": "string", "maxLength": 3}, "off"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "boolean"}}}, True),
        ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}}}]}, {"a": 1}),
    ],
)
def test_an_example_fits_its_schema(schema: dict[str, Any], expected: Any) -> None:
    assert schemas.example(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": "many"},
        {"enum": {"a": 1}},
        {"type": "integer", "minimum": 1, "multipleOf": 0},
        {
            "$defs": {
                "a": {
                    "properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#/$defs/a"}},
                    "required": ["x", "y"],
                }
            },
            "$ref": "#/$defs/a",
        },
    ],
    ids=json.dumps,
)
def test_a_senseless_schema_is_refused_and_bounded(schema: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        schemas.example(schema)
