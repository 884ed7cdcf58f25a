"""The real OpenAI SDK, checking every answer against its own types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import Call, Daemon, start, text, thinking
from fakes.gateway_process import Gateway

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture
def sdk(gateway: Gateway, daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{gateway.port}/v1",
        api_key="not-needed",
        max_retries=0,
        timeout=20,
        _strict_response_validation=True,
    ) as client:
        yield client


def test_create(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="sonnet", messages=HELLO)
    assert answer.choices[0].message.content == "whole"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.total_tokens == 17
    assert answer._request_id


def test_stream(sdk: openai.OpenAI, daemon: Daemon) -> None:
    daemon.chat(start(), thinking("hm"), text("he"), text("llo"))
    chunks = list(
        sdk.chat.completions.create(
            model="sonnet", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 7
    assert chunks[1].choices[0].delta.model_extra == {"reasoning_content": "hm", "reasoning": "hm"}


def test_stream_helper(sdk: openai.OpenAI, daemon: Daemon) -> None:
    daemon.chat(start(), text("he"), text("llo"), stop_reason="stop_sequence")
    with sdk.chat.completions.stream(model="sonnet", messages=HELLO) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "hello"
    assert final.choices[0].finish_reason == "stop"


def test_leaving_a_stream_cancels_it(sdk: openai.OpenAI, daemon: Daemon) -> None:
    daemon.hang()
    with sdk.chat.completions.create(model="sonnet", messages=HELLO, stream=True) as stream:
        next(iter(stream))  # the role, sent after a silence
    assert daemon.cancellations.acquire(timeout=20)


def test_models(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()][:2] == ["claude-sonnet-5-20260115", "sonnet"]
    assert sdk.models.retrieve("agent/sonnet").id == "agent/sonnet"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.BAD_PARAMS, openai.BadRequestError),
        (Code.UPSTREAM_AUTH, openai.AuthenticationError),
        (Code.FORBIDDEN, openai.PermissionDeniedError),
        (Code.MODEL_NOT_FOUND, openai.NotFoundError),
        (Code.CONFLICT, openai.ConflictError),
        (Code.BUSY, openai.RateLimitError),
        (Code.WORKER_CRASHED, openai.InternalServerError),
        (Code.DRAINING, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors(
    sdk: openai.OpenAI, daemon: Daemon, code: Code, kind: type[openai.APIStatusError], stream: bool
) -> None:
    daemon.fail(code, "what happened", output_started=True)
    with pytest.raises(kind, match="what happened") as caught:
        sdk.chat.completions.create(model="sonnet", messages=HELLO, stream=stream)
    assert caught.value.request_id


def test_retries(sdk: openai.OpenAI, daemon: Daemon) -> None:
    """The SDK repeats what may succeed, and nothing else."""
    again = sdk.with_options(max_retries=1)
    daemon.fail(Code.BUSY, retry_after_ms=10)
    with pytest.raises(openai.RateLimitError):
        again.chat.completions.create(model="sonnet", messages=HELLO)
    assert len(daemon.calls) == 2
    for code in (Code.UPSTREAM_AUTH, Code.BUDGET, Code.WORKER_STUCK):
        daemon.calls.clear()
        daemon.fail(code)
        with pytest.raises(openai.APIStatusError):
            again.chat.completions.create(model="sonnet", messages=HELLO)
        assert len(daemon.calls) == 1, code


def test_error_in_the_middle_of_a_stream(sdk: openai.OpenAI, daemon: Daemon) -> None:
    async def breaking(call: Call) -> Any:
        await call.send(start() + text("half"))
        raise RpcError(Code.UPSTREAM_ERROR, "upstream died")

    daemon.scripts["chat.stream"] = breaking
    stream = sdk.chat.completions.create(model="sonnet", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="upstream died"):
        list(stream)
