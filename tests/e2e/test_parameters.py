"""Every parameter of a chat completion, judged by what the API received, or by the clear word that it was not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import openai
import pytest

from ccd_client import Client
from ccd_protocol.errors import Code, RpcError
from fakes.stack import Api, Stack, running_stack, wait_until

SAMPLING = "claude-sonnet-4-5"  # newer models take no sampling parameters
PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjQ="


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    settings = {"CCD_GATEWAY__MODEL_MAP": json.dumps({"gpt-4o": "claude-haiku-4-5", "gpt-*": SAMPLING})}
    with running_stack(tmp_path_factory.mktemp("parameters"), cli, api, gateway=True, **settings) as stack:
        yield stack


@pytest.fixture
def http(stack: Stack) -> Iterator[openai.OpenAI]:
    stack.settle()
    url = f"{stack.url}/v1"
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0, _strict_response_validation=True) as http:
        yield http


def ask(http: openai.OpenAI, content: Any = "hi", *, strict: bool = False, **fields: Any) -> Any:
    """The answer to one message, and what `X-CCD-Ignored` named."""
    fields = {"model": SAMPLING, "messages": [{"role": "user", "content": content}], **fields}
    headers = {"X-CCD-Strict": "true"} if strict else {}
    raw = http.chat.completions.with_raw_response.create(**fields, extra_headers=headers)
    return raw.parse(), [name for name in raw.headers.get("x-ccd-ignored", "").split(", ") if name]


@pytest.mark.parametrize(
    ("fields", "received"),
    [
        ({"temperature": 0.25}, {"temperature": 0.25}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"extra_body": {"top_k": 7}}, {"top_k": 7}),
        ({"max_tokens": 77}, {"max_tokens": 77}),
        ({"max_tokens": 5, "max_completion_tokens": 78}, {"max_tokens": 78}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}),
        ({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
        ({"metadata": {"user_id": "u-2"}}, {"metadata": {"user_id": "u-2"}}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"temperature": 1, "top_p": 1}, {"temperature": 1.0}),
        (
            {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 2000}}},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        ),
    ],
)
def test_honoured(stack: Stack, http: openai.OpenAI, fields: Any, received: dict[str, Any]) -> None:
    _, ignored = ask(http, strict=True, **fields)
    assert ignored == []
    (body,) = stack.api.bodies()
    assert {key: body.get(key) for key in received} == received


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"seed": 1}, ["seed"]),
        ({"logprobs": True, "top_logprobs": 2}, ["logprobs", "top_logprobs"]),
        ({"logit_bias": {"1": 2}}, ["logit_bias"]),
        ({"frequency_penalty": 0.5, "presence_penalty": 0.5}, ["frequency_penalty", "presence_penalty"]),
        ({"temperature": 1.5}, ["temperature"]),
        ({"stop": "\n"}, ["stop"]),
        ({"store": True, "verbosity": "low", "service_tier": "flex"}, ["service_tier", "verbosity", "store"]),
        ({"prompt_cache_key": "k", "extra_body": {"zeta": 1}}, ["prompt_cache_key", "zeta"]),
        ({"prediction": {"type": "content", "content": "x"}}, ["prediction"]),
        ({"web_search_options": {}}, ["web_search_options"]),
    ],
)
def test_named_as_ignored_or_refused_when_strict(
    stack: Stack, http: openai.OpenAI, fields: Any, names: list[str]
) -> None:
    _, ignored = ask(http, **fields)
    assert ignored == names
    assert len(stack.api.bodies()) == 1
    with pytest.raises(openai.BadRequestError) as caught:
        ask(http, strict=True, **fields)
    assert caught.value.param == names[0]
    assert len(stack.api.bodies()) == 1


def test_what_only_the_daemon_knows_is_named_too(stack: Stack, http: openai.OpenAI) -> None:
    """The newest models take no sampling; a strict request is refused instead of being answered differently."""
    assert ask(http, model="sonnet", temperature=0.5)[1] == ["temperature"]
    message: Any = {"role": "user", "content": "hi"}
    raw = http.chat.completions.with_streaming_response.create(
        model="sonnet", temperature=0.5, messages=[message], stream=True
    )
    with raw as response:
        assert '"ccd_ignored":["temperature"]' in response.read().decode()
    before = len(stack.api.bodies())
    with pytest.raises(openai.BadRequestError) as caught:
        ask(http, model="sonnet", temperature=0.5, strict=True)
    assert caught.value.param == "temperature"
    assert len(stack.api.bodies()) == before


def test_several_calls_find_out_together_what_a_model_does_not_take(
    tmp_path: Path, cli: Path, api: Api
) -> None:
    """Those that were asked before the first of them was refused are asked again, too."""
    workers = {"CCD_POOL__SPARES": "4", "CCD_POOL__MAX_WORKERS": "4"}
    with running_stack(tmp_path, cli, api, **workers) as stack:
        wait_until(lambda: sum(row["state"] == "ready" for row in stack.workers()) == 4)
        with Client(stack.socket) as client:
            items = client.batch(["hi"] * 4, concurrency=4, model="opus", temperature=0.5)
    assert [item.error for item in items] == [None] * 4
    assert [item.answer.ignored for item in items if item.answer] == [["temperature"]] * 4


def test_models_that_take_one_sampler_get_the_temperature(stack: Stack, http: openai.OpenAI) -> None:
    """Many clients send both; the refusal is met once, and top_p alone is still honoured."""
    for _ in range(2):
        assert ask(http, temperature=0.5, top_p=0.5)[1] == ["top_p"]
    assert ask(http, top_p=0.5)[1] == []
    sent = [(body.get("temperature"), body.get("top_p")) for body in stack.api.bodies()]
    assert [pair for pair, _ in groupby(sent)] == [(0.5, 0.5), (0.5, None), (None, 0.5)]
    with pytest.raises(openai.BadRequestError):
        ask(http, strict=True, temperature=0.5, top_p=0.5)


def test_top_p_is_left_out_where_a_model_cannot_be_kept_from_thinking(
    stack: Stack, http: openai.OpenAI
) -> None:
    assert ask(http, model="claude-fable-5", top_p=0.5)[1] == ["top_p"]


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "config"),
    [
        ("sonnet", "low", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        ("sonnet", "none", None, {"effort": "medium"}),  # the CLI's own, which it always sends
        (SAMPLING, "minimal", {"type": "enabled", "budget_tokens": 1024}, None),
    ],
)
def test_reasoning_effort(
    stack: Stack, http: openai.OpenAI, model: str, effort: str, thinking: Any, config: Any
) -> None:
    question = '[[offline: {"thinking": "let me think", "text": "done"}]]'
    answer, _ = ask(http, question, model=model, reasoning_effort=effort)
    (body,) = stack.api.bodies()
    assert (body.get("thinking"), body.get("output_config")) == (thinking, config)
    extra = answer.choices[0].message.model_extra
    shown = {"reasoning_content": "let me think", "reasoning": "let me think"} if thinking else {}
    assert {key: extra[key] for key in shown} == shown
    assert answer.choices[0].message.content == "done"


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def test_response_format_json_schema(stack: Stack, http: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}
    answer, _ = ask(http, response_format=wanted)
    assert set(json.loads(answer.choices[0].message.content)) == {"city"}
    (body,) = stack.api.bodies()
    assert body["output_config"]["format"] == {"type": "json_schema", "schema": SCHEMA}


def test_openai_sdk_parses_into_a_model(http: openai.OpenAI) -> None:
    from pydantic import BaseModel

    class Place(BaseModel):
        city: str
        tags: list[str]

    messages: Any = [
        {"role": "user", "content": '[[offline: {"text": "{\\"city\\": \\"Rome\\", \\"tags\\": []}"}]]'}
    ]
    parsed = http.chat.completions.parse(model=SAMPLING, messages=messages, response_format=Place)
    assert parsed.choices[0].message.parsed == Place(city="Rome", tags=[])
    with http.chat.completions.stream(model=SAMPLING, messages=messages, response_format=Place) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Place(city="Rome", tags=[])


def test_an_answer_without_the_format_is_repaired_once_or_fails(stack: Stack, http: openai.OpenAI) -> None:
    stack.api.script({"reply": {"text": "no JSON"}}, {"reply": {"text": '{"a": 1}'}})
    answer, _ = ask(http, response_format={"type": "json_object"})
    assert answer.choices[0].message.content == '{"a": 1}'
    assert len(stack.api.bodies()) == 2
    stack.api.script({"reply": {"text": "no JSON"}, "uses": 2})
    with pytest.raises(openai.InternalServerError, match="format") as caught:
        ask(http, response_format={"type": "json_object"})
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_with_only_the_documented_knobs_a_format_is_the_clis_own_tool(
    tmp_path: Path, cli: Path, api: Api
) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    with running_stack(tmp_path, cli, api, gateway=True, CCD_ENGINE__BODY="replay") as stack:
        with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="x", max_retries=0) as http:
            answer, _ = ask(http, response_format=wanted)
    assert json.loads(answer.choices[0].message.content or "").keys() == {"city"}
    body = api.bodies()[0]
    (tool,) = (tool for tool in body["tools"] if tool["name"] == "StructuredOutput")
    assert tool["input_schema"]["properties"] == SCHEMA["properties"]


def test_schemas_that_are_too_large_for_a_grammar_are_asked_for_without(
    stack: Stack, http: openai.OpenAI
) -> None:
    """At a size that nobody can know beforehand; the tool stays, and the answer is checked."""
    large = {**SCHEMA, "properties": {"city": {"type": "string", "description": "x" * 100_000}}}
    function = {"name": "f", "parameters": large, "strict": True}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": large}}
    question = '[[offline: {"text": "{\\"city\\": \\"Rome\\"}"}]]'
    answer, ignored = ask(
        http, question, tools=[{"type": "function", "function": function}], response_format=wanted
    )
    assert json.loads(answer.choices[0].message.content) == {"city": "Rome"}
    assert ignored == ["tools.strict"]
    last = stack.api.bodies()[-1]
    assert last["tools"] == [{"name": "f", "input_schema": large}]
    assert "format" not in last.get("output_config", {})


def test_images_and_documents(stack: Stack, http: openai.OpenAI) -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
        {"type": "text", "text": "what is this?"},
    ]
    ask(http, parts, strict=True)
    (body,) = stack.api.bodies()
    image = {"type": "base64", "media_type": "image/png", "data": PNG}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": PDF}
    assert body["messages"][0]["content"] == [
        {"type": "image", "source": image},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {"type": "text", "text": "what is this?"},
    ]


@pytest.mark.parametrize(
    "url", ["/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/a.png", "data:image/png;base64,AA=="]
)
def test_images_that_are_refused_cost_nothing(stack: Stack, http: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(http, [{"type": "image_url", "image_url": {"url": url}}])
    assert caught.value.param == "messages[0].content[0].image_url.url"
    assert stack.api.bodies() == []


def test_several_answers(stack: Stack, http: openai.OpenAI) -> None:
    answer, _ = ask(http, "hello", n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 1
    assert len(stack.api.bodies()) == 3
    one, _ = ask(http, "hello")
    assert answer.usage.completion_tokens == 3 * one.usage.completion_tokens
    messages: Any = [{"role": "user", "content": '[[offline: {"deltas": 5, "delta_ms": 5}]]'}]
    chunks = list(
        http.chat.completions.create(
            model=SAMPLING, messages=messages, n=3, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = ["", "", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == ["w1 w2 w3 w4 w5"] * 3
    assert sum(bool(c.choices and c.choices[0].finish_reason) for c in chunks) == 3
    assert chunks[-1].usage is not None
    with pytest.raises(openai.BadRequestError):
        ask(http, n=9)


def test_when_one_of_several_answers_fails_all_do(stack: Stack, http: openai.OpenAI) -> None:
    stack.api.script({"reply": {"status": 400, "message": "not today"}, "uses": 8})
    with pytest.raises(openai.APIStatusError, match="not today"):
        ask(http, n=2)


def test_a_refusal(http: openai.OpenAI) -> None:
    question = '[[offline: {"text": "I will not.", "stop_reason": "refusal"}]]'
    answer, _ = ask(http, question)
    choice = answer.choices[0]
    assert (choice.finish_reason, choice.message.content, choice.message.refusal) == (
        "content_filter",
        None,
        "I will not.",
    )
    message: Any = {"role": "user", "content": question}
    chunks = list(http.chat.completions.create(model=SAMPLING, messages=[message], stream=True))
    assert any(chunk.choices[0].delta.refusal for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "content_filter"


def test_foreign_model_names_are_mapped_and_echoed(stack: Stack, http: openai.OpenAI) -> None:
    for name in ("gpt-4o", "gpt-5-mini"):
        assert ask(http, model=name)[0].model == name
    assert [body["model"] for body in stack.api.bodies()] == ["claude-haiku-4-5", SAMPLING]
    assert http.models.retrieve("gpt-4o").id == "gpt-4o"


def test_usage_counts_what_the_cache_held(stack: Stack, http: openai.OpenAI) -> None:
    counts = {
        "input_tokens": 3,
        "cache_read_input_tokens": 40,
        "cache_creation_input_tokens": 5,
        "output_tokens": 7,
    }
    stack.api.script({"reply": {"usage": counts}})
    usage = ask(http)[0].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (48, 7, 55)
    assert usage.prompt_tokens_details.cached_tokens == 40


def test_everything_at_once(stack: Stack, http: openai.OpenAI) -> None:
    """What the SDK's own test of all parameters sends: each has its fate, and the answer comes."""
    tool: Any = {"name": "name", "description": "d", "parameters": {"foo": "bar"}}
    fields: dict[str, Any] = {
        "messages": [{"content": "string", "role": "developer", "name": "name"}],
        "audio": {"format": "wav", "voice": "string"},
        "frequency_penalty": -2,
        "function_call": "none",
        "functions": [tool],
        "logit_bias": {"foo": 0},
        "logprobs": True,
        "max_completion_tokens": 0,
        "max_tokens": 0,
        "metadata": {"foo": "string"},
        "modalities": ["text"],
        "n": 1,
        "parallel_tool_calls": True,
        "prediction": {"content": "string", "type": "content"},
        "presence_penalty": -2,
        "prompt_cache_key": "prompt-cache-key-1234",
        "reasoning_effort": "none",
        "response_format": {"type": "text"},
        "safety_identifier": "safety-identifier-1234",
        "seed": 0,
        "service_tier": "auto",
        "stop": "\n",
        "store": True,
        "stream": False,
        "stream_options": {"include_obfuscation": True, "include_usage": True},
        "temperature": 1,
        "tool_choice": "none",
        "tools": [{"type": "function", "function": tool}],
        "top_logprobs": 0,
        "top_p": 1,
        "user": "user-1234",
        "verbosity": "low",
        "web_search_options": {"search_context_size": "low"},
    }
    answer, ignored = ask(http, **fields)
    assert answer.choices[0].finish_reason == "stop"
    (body,) = stack.api.bodies()
    assert body["metadata"] == {"user_id": "user-1234"}
    assert body["tool_choice"] == {"type": "none"}
    assert set(ignored) == {
        *(
            "audio",
            "frequency_penalty",
            "presence_penalty",
            "functions",
            "logit_bias",
            "logprobs",
            "max_tokens",
        ),
        *(
            "max_completion_tokens",
            "metadata.foo",
            "messages[0].name",
            "prediction",
            "prompt_cache_key",
            "seed",
        ),
        *("stop", "store", "stream_options", "verbosity", "web_search_options"),
    }


def test_the_client_takes_the_same_parameters(stack: Stack) -> None:
    stack.api.reset()
    with Client(stack.socket) as client:
        client.chat(
            "x",
            model=SAMPLING,
            temperature=0.5,
            max_tokens=50,
            stop=["END", "\n"],
            metadata={"user_id": "me"},
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
            extra={"top_k": 3},
        )
        (body,) = stack.api.bodies()
        wanted = {"temperature": 0.5, "max_tokens": 50, "stop_sequences": ["END"], "top_k": 3}
        assert {key: body[key] for key in wanted} == wanted
        assert body["output_config"]["format"]["schema"] == SCHEMA
        assert client.chat("x", stop="\n").ignored == ["stop"]
        for wrong in ({"stop": "\n"}, {"model": "sonnet", "temperature": 0.5}):
            with pytest.raises(RpcError) as caught:
                client.chat("x", strict=True, **wrong)  # type: ignore[arg-type]
            assert caught.value.code is Code.BAD_PARAMS
        thought = client.chat('[[offline: {"thinking": "hm"}]]', model="sonnet", reasoning_effort="high")
        assert thought.thinking == "hm"
        fallen = client.chat("x", model="claude-nonsense-9", fallback_model=SAMPLING)
        assert fallen.model == SAMPLING


def test_a_batch_on_the_command_line(stack: Stack) -> None:
    lines = [json.dumps({"prompt": f"question {number}", "id": f"q{number}"}) for number in range(8)]
    lines.append(json.dumps({"prompt": "x", "model": "claude-nonsense-9"}))
    done = stack.ccd("ask", "--batch", "-", "--model", SAMPLING, stdin="\n".join(lines))
    assert done.returncode == 1, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("id") for row in rows] == [f"q{number}" for number in range(8)] + [None]
    assert all(f"question {number}" in rows[number]["text"] for number in range(8))
    assert rows[8]["error"]["code"] == "model_not_found"
    assert "8 answered, 1 failed (model_not_found 1)" in done.stderr
