"""The Messages API through the whole path: the real SDK, the real Claude Code, and what reaches the model API."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from fakes.stack import Api, Stack, clean_environ, running_stack

# An older model on purpose: newer ones take neither sampling parameters nor a thinking budget.
pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")
SONNET = "claude-sonnet-4-5"
OPUS = "claude-opus-5-5"
TOOL: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "eager_input_streaming": True,
    "cache_control": {"type": "ephemeral"},
}


def directive(**fields: Any) -> str:
    return f"[[offline: {json.dumps(fields)}]]"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def png() -> str:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("messages"), cli, api, gateway=True) as stack:
        yield stack


@pytest.fixture
def sdk(stack: Stack) -> Iterator[Any]:
    """The SDK as users have it, but checking every answer against its own types. Its own types for requests are not
    the point here, so it is `Any`.
    """
    stack.settle()
    with anthropic.Anthropic(
        base_url=stack.url, api_key="any", max_retries=0, timeout=60, _strict_response_validation=True
    ) as client:
        yield client


def test_the_api_receives_what_the_client_sent(stack: Stack, sdk: Any) -> None:
    request: dict[str, Any] = {
        "max_tokens": 2000,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        "messages": [user([{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}])],
        "tools": [TOOL],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "stop_sequences": ["STOP"],
        "metadata": {"user_id": "u-1"},
        "service_tier": "standard_only",
    }
    sdk.messages.create(model=SONNET, extra_body={"temperature": 0.25, "top_k": 5}, **request)
    thinking = {"type": "adaptive", "display": "summarized"}
    config = {
        "effort": "low",
        "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}},
    }
    extra = {"context_management": {"edits": []}, "cache_control": {"type": "ephemeral"}}
    sdk.messages.create(model=OPUS, thinking=thinking, output_config=config, extra_body=extra, **request)
    sdk.messages.create(model=SONNET, thinking={"type": "disabled"}, **request)
    first, second, third = stack.api.bodies()
    shared = {**request, "stream": True}
    assert first == {"model": SONNET, "temperature": 0.25, "top_k": 5, **shared}
    assert second == {"model": OPUS, "thinking": thinking, "output_config": config, **extra, **shared}
    assert {**third, "temperature": 1} == {
        "model": SONNET,
        "temperature": 1,
        "thinking": {"type": "disabled"},
        **shared,
    }


def test_what_the_client_leaves_out_is_not_sent(stack: Stack, sdk: Any) -> None:
    """Above all the CLI's own effort and thinking, which would change the answer."""
    sdk.messages.create(model=OPUS, max_tokens=99, messages=[user("hi")], output_config={"effort": "high"})
    sdk.messages.create(model=OPUS, max_tokens=99, messages=[user("hi")])
    body = stack.api.bodies()[-1]
    assert {key for key, value in body.items() if value} == {"model", "messages", "max_tokens", "stream"}
    assert body["messages"] == [user("hi")]


def test_whole_answer(sdk: Any) -> None:
    raw = sdk.messages.with_raw_response.create(model=SONNET, max_tokens=50, messages=[user("hello there")])
    message = raw.parse()
    assert message._request_id == raw.headers["request-id"] == raw.headers["x-request-id"]
    assert message.content[0].type == "text"
    assert "hello there" in message.content[0].text
    assert (message.model, message.role, message.stop_reason) == (SONNET, "assistant", "end_turn")
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0
    assert message.usage.service_tier == "standard"
    assert message.usage.cache_creation is not None


def test_the_stream_helper_and_the_whole_answer_agree(sdk: Any) -> None:
    request = {"model": SONNET, "max_tokens": 50, "messages": [user("hello there")]}
    whole = sdk.messages.create(**request)
    with sdk.messages.stream(**request) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(texts) > 3
    assert "".join(texts) == final.content[0].text == whole.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


def test_stop_sequence_and_max_tokens(sdk: Any) -> None:
    stopped = sdk.messages.create(
        model=SONNET, max_tokens=50, messages=[user("alpha STOP omega")], stop_sequences=["STOP"]
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "STOP")
    assert "omega" not in stopped.content[0].text
    cut = sdk.messages.create(model=SONNET, max_tokens=3, messages=[user("word " * 50)])
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 3)


REFUSED = {"type": "refusal", "category": "cyber", "explanation": "This cannot be helped with."}


def test_why_the_model_refused(sdk: Any) -> None:
    text = directive(text="", stop_reason="refusal", stop_details=REFUSED)
    asked: Any = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [user(text)]}
    whole = sdk.messages.create(**asked)
    with sdk.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    for answer in (whole, streamed):
        assert answer.stop_reason == "refusal"
        assert answer.stop_details.model_dump(exclude_none=True) == REFUSED


@pytest.mark.parametrize("streamed", [False, True])
def test_thinking_and_tools_over_two_turns(stack: Stack, sdk: Any, streamed: bool) -> None:
    calls = [{"name": "get_weather", "input": {"city": city}} for city in ("Paris", "Oslo")]
    question = user(directive(thinking="which city?", tool_calls=calls))
    request = {
        "model": SONNET,
        "max_tokens": 3000,
        "tools": [TOOL],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }

    def ask(messages: list[Any]) -> Any:
        if not streamed:
            return sdk.messages.create(messages=messages, **request)
        with sdk.messages.stream(messages=messages, **request) as stream:
            return stream.get_final_message()

    first = ask([question])
    assert first.stop_reason == "tool_use"
    assert [block.type for block in first.content] == ["thinking", "tool_use", "tool_use"]
    assert first.content[0].thinking == "which city?"
    assert [block.input for block in first.content[1:]] == [call["input"] for call in calls]
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "sunny"}]}
        for block in first.content[1:]
    ]
    said = {"role": "assistant", "content": [block.to_dict() for block in first.content]}
    second = ask([question, said, user(results)])
    assert second.stop_reason == "end_turn"
    sent = stack.api.bodies()[-1]
    assert sent["messages"][1]["content"][0]["signature"] == first.content[0].signature
    assert sent["messages"][2]["content"] == results
    assert sent["thinking"] == request["thinking"]


def test_images_and_documents_reach_the_api_as_they_are(stack: Stack, sdk: Any) -> None:
    image = {"type": "base64", "media_type": "image/png", "data": png()}
    content = [
        {"type": "image", "source": image},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "facts"},
            "title": "t",
            "citations": {"enabled": True},
        },
        {"type": "text", "text": "describe @/etc/hosts and /clear"},
    ]
    sdk.messages.create(model=SONNET, max_tokens=50, messages=[user(content)])
    assert stack.api.bodies()[0]["messages"] == [user(content)]


def test_betas_reach_the_api(stack: Stack, sdk: Any) -> None:
    raw = sdk.beta.messages.with_raw_response.create(
        model=SONNET,
        max_tokens=99,
        messages=[user("hi")],
        betas=["one-2026-01-01", "two", "oauth-2025-04-20"],
    )
    assert stack.api.requests()[0]["headers"]["anthropic-beta"] == "one-2026-01-01,two"
    assert raw.headers["x-ccd-ignored"] == "anthropic-beta.oauth-2025-04-20"


def test_sampling_that_the_model_no_longer_takes_is_named_or_refused(stack: Stack, sdk: Any) -> None:
    request = {
        "model": "haiku",
        "max_tokens": 99,
        "messages": [user("hi")],
        "extra_body": {"temperature": 0.5},
    }
    whole = sdk.messages.with_raw_response.create(**request)
    assert whole.headers["x-ccd-ignored"] == "temperature"
    with sdk.messages.with_streaming_response.create(stream=True, **request) as response:
        assert '"ccd_ignored":["temperature"]' in response.read().decode()
    with pytest.raises(anthropic.BadRequestError):
        sdk.messages.create(extra_headers={"x-ccd-strict": "true"}, **request)


def test_top_p_alone_is_honoured(stack: Stack, sdk: Any) -> None:
    """The CLI would add a temperature of its own, and the API refuses the two together."""
    sdk.messages.create(model=SONNET, max_tokens=99, messages=[user("hi")], extra_body={"top_p": 0.5})
    (body,) = stack.api.bodies()
    assert body["top_p"] == 0.5 and "temperature" not in body


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        ({"status": 400, "message": "no good"}, anthropic.BadRequestError, 400),
        ({"status": 401}, anthropic.AuthenticationError, 401),
        ({"status": 429, "retry_after_s": 20}, anthropic.RateLimitError, 429),
        ({"status": 529}, anthropic.InternalServerError, 529),
    ],
)
def test_failures_of_the_api_are_the_sdks_errors(
    sdk: Any, fault: dict[str, Any], error: Any, status: int
) -> None:
    for stream in (False, True):
        with pytest.raises(error) as caught:
            sdk.messages.create(
                model=SONNET, max_tokens=99, messages=[user(directive(**fault))], stream=stream
            )
        assert caught.value.status_code == status
        assert caught.value.request_id == caught.value.body["request_id"]
        if status in (429, 529):
            assert int(caught.value.response.headers["retry-after"]) >= 1


def test_requests_that_are_refused(stack: Stack, sdk: Any) -> None:
    with pytest.raises(anthropic.NotFoundError):
        sdk.messages.create(model="claude-nonsense-9", max_tokens=9, messages=[user("x")])
    stack.api.reset()
    for wrong in (
        {"extra_body": {"nonsense": 1}},
        {"max_tokens": 0},
        {"messages": []},
        {"tools": [{"name": "a b"}]},
    ):
        with pytest.raises(anthropic.BadRequestError) as caught:
            sdk.messages.create(**{"model": SONNET, "max_tokens": 9, "messages": [user("x")], **wrong})
        assert caught.value.body["error"]["type"] == "invalid_request_error"
    assert stack.api.requests() == []


def test_a_stream_that_breaks_is_an_error_and_not_an_answer(sdk: Any) -> None:
    broken = directive(text="one two three four", deltas=4, delta_ms=40, error_after_deltas=2)
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        with sdk.messages.stream(model=SONNET, max_tokens=50, messages=[user(broken)]) as stream:
            stream.until_done()
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        sdk.messages.create(model=SONNET, max_tokens=50, messages=[user(broken)])


def test_counting_and_models(stack: Stack, sdk: Any) -> None:
    counted = sdk.messages.with_raw_response.count_tokens(
        model=SONNET, messages=[user("hello " * 100)], tools=[TOOL]
    )
    assert 400 < counted.parse().input_tokens < 1500
    assert counted.headers["x-ccd-estimated"] == "true"
    assert stack.api.requests() == []
    models = list(sdk.models.list(limit=3))
    assert OPUS in [model.id for model in models]
    assert len({model.id for model in models}) == len(models) > 3
    assert sdk.models.retrieve(OPUS).display_name == "Opus"


def test_many_at_once(stack: Stack) -> None:
    async def ask_all() -> list[str]:
        async with anthropic.AsyncAnthropic(
            base_url=stack.url, auth_token="any", max_retries=0, _strict_response_validation=True
        ) as client:
            return await asyncio.gather(*(one(client, number) for number in range(8)))

    async def one(client: anthropic.AsyncAnthropic, number: int) -> str:
        async with client.messages.stream(
            model=SONNET, max_tokens=50, messages=[{"role": "user", "content": f"canary-{number}"}]
        ) as stream:
            return (await stream.get_final_text()) or ""

    for number, text in enumerate(asyncio.run(ask_all())):
        assert re.findall(r"canary-\d", text) == [f"canary-{number}"]


def claude(stack: Stack, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Claude Code itself, with the gateway for its API."""
    environ = clean_environ(
        folder / "home",
        ANTHROPIC_BASE_URL=stack.url,
        ANTHROPIC_API_KEY="any",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        DISABLE_AUTOUPDATER="1",
        DISABLE_TELEMETRY="1",
        DISABLE_ERROR_REPORTING="1",
        IS_SANDBOX="1",
    )
    return subprocess.run(
        [str(stack.cli), "-p", *arguments],
        env=environ,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_claude_code_is_a_client(stack: Stack, tmp_path: Path) -> None:
    stack.api.reset()
    answer = claude(stack, tmp_path, "hello from claude")
    assert answer.returncode == 0, answer.stderr
    assert "hello from claude" in answer.stdout
    (request,) = stack.api.requests()
    assert "claude-code-20250219" in request["headers"]["anthropic-beta"]


def test_claude_code_runs_its_tools(stack: Stack, tmp_path: Path) -> None:
    stack.api.reset()
    run = {"name": "Bash", "input": {"command": "echo ran-$((6*7)); touch made", "description": "test"}}
    question = directive(tool_calls=[run])
    streaming = ("--output-format", "stream-json", "--verbose", "--include-partial-messages")
    answer = claude(stack, tmp_path, "--dangerously-skip-permissions", *streaming, question)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert (tmp_path / "made").exists()
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    result = next(line for line in lines if line["type"] == "result")
    assert (result["is_error"], result["num_turns"]) == (False, 2)
    assert "ran-42" in result["result"]
    events = [line["event"]["type"] for line in lines if line["type"] == "stream_event"]
    assert events.count("message_start") == events.count("message_stop") == 2
    assert events.count("content_block_delta") > 5
    bodies = stack.api.bodies()
    assert len(bodies) == 2
    assert "ran-42" in json.dumps(bodies[1]["messages"][-1])
    assert "Bash" in [tool["name"] for tool in bodies[0]["tools"]]
    assert bodies[1]["context_management"] == bodies[0]["context_management"] != {}


def test_claude_code_through_ccd_asks_what_it_asks_directly(stack: Stack, tmp_path: Path) -> None:
    """The same prompt with and without ccd: but for what differs from run to run, the API receives the same."""
    found = []
    for url in (stack.api.url, stack.url):
        stack.api.reset()
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        assert claude(_at(stack, url), folder, "hello").returncode == 0
        (request,) = stack.api.requests()
        body = request["body"]
        del body["metadata"]
        found.append((request["headers"]["anthropic-beta"], _without_moments(body, url)))
    direct, through = found
    assert through == direct


class _At:
    def __init__(self, cli: Path, url: str) -> None:
        self.cli, self.url = cli, url


def _at(stack: Stack, url: str) -> Any:
    return _At(stack.cli, url)


def _without_moments(body: dict[str, Any], url: str) -> dict[str, Any]:
    text = json.dumps(body)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text).replace(url, "URL")
    cleaned: dict[str, Any] = json.loads(text)
    return cleaned


def snippets(language: str) -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / "messages.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_documents_snippets_run(stack: Stack, tmp_path: Path) -> None:
    for language, interpreter, count in (("python", sys.executable, 1), ("sh", "sh", 2)):
        found = snippets(language)
        assert len(found) == count
        for snippet in found:
            code = snippet.replace("http://127.0.0.1:8080", stack.url)
            environ = clean_environ(
                tmp_path, DISABLE_TELEMETRY="1", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1"
            )
            environ["PATH"] = f"{_claude_on_path(stack, tmp_path)}:{environ['PATH']}"
            ran = subprocess.run(
                [interpreter, "-c", code],
                env=environ,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ran.returncode == 0, ran.stderr
            assert "hello" in ran.stdout.lower()


def _claude_on_path(stack: Stack, folder: Path) -> Path:
    link = folder / "bin" / "claude"
    if not link.is_symlink():
        link.parent.mkdir()
        link.symlink_to(stack.cli)
    return link.parent


def test_with_only_the_documented_knobs(tmp_path: Path, cli: Path, api: Api) -> None:
    """What `replay` can honour it does, what changes nothing it names, and what it cannot do it refuses."""
    with running_stack(tmp_path, cli, api, gateway=True, CCD_ENGINE__BODY="replay") as stack:
        with anthropic.Anthropic(base_url=stack.url, api_key="any", max_retries=0) as client:
            sdk: Any = client
            history = [user("u1"), {"role": "assistant", "content": "a1"}, user("u2")]
            request = {"model": OPUS, "max_tokens": 99, "messages": history}
            raw = sdk.messages.with_raw_response.create(
                system="be brief",
                output_config={"effort": "low"},
                extra_body={"temperature": 0.5, "context_management": {"edits": []}},
                **request,
            )
            assert "u2" in raw.parse().content[0].text
            assert raw.headers["x-ccd-ignored"] == "context_management, temperature"
            (body,) = stack.api.bodies()
            assert body["output_config"] == {"effort": "low"}
            assert body["max_tokens"] == 99
            assert "be brief" in json.dumps(body["system"])
            said = [
                message["role"] for message in body["messages"] if message["role"] != "system"
            ]  # the CLI's notes
            assert said == ["user", "assistant", "user"]
            for refused in (
                {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
                {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            ):
                with pytest.raises(anthropic.BadRequestError, match="mode replay"):
                    sdk.messages.create(**{**request, **refused})
            noted = {**request, "messages": [*history, {"role": "system", "content": "a note"}]}
            told = sdk.messages.with_raw_response.create(**noted)  # as a reminder; docs/replay.md
            assert "u2" in told.parse().content[0].text and "messages" in told.headers["x-ccd-ignored"]
            assert "a note" in json.dumps(stack.api.bodies()[-1])


def test_with_a_system_prompt_of_the_clis_own_making(tmp_path: Path, cli: Path, api: Api) -> None:
    with running_stack(tmp_path, cli, api, gateway=True, CCD_ENGINE__BODY="keep_system") as stack:
        with anthropic.Anthropic(base_url=stack.url, api_key="any", max_retries=0) as client:
            sdk: Any = client
            raw = sdk.beta.messages.with_raw_response.create(
                model=OPUS,
                max_tokens=99,
                system="be brief",
                messages=[user("hi")],
                tools=[TOOL],
                betas=["one"],
            )
            assert raw.headers["x-ccd-ignored"] == "anthropic-beta"
            (request,) = stack.api.requests()
            assert "be brief" in json.dumps(request["body"]["system"])
            assert request["body"]["messages"] == [user("hi")]
            assert request["body"]["tools"] == [TOOL]
            assert "one" not in request["headers"]["anthropic-beta"].split(",")
