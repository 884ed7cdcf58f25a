"""The real OpenAI SDK against the Responses API, checking every answer against its own types."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import RESULT, Call, Daemon, line, start, text, thinking
from fakes.gateway_process import Gateway

TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture
def options(gateway: Gateway, daemon: Daemon) -> dict[str, Any]:
    return {
        "base_url": f"http://127.0.0.1:{gateway.port}/v1",
        "api_key": "not-needed",
        "max_retries": 0,
        "timeout": 20,
        "_strict_response_validation": True,
    }


@pytest.fixture
def sdk(options: dict[str, Any]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(**options) as client:
        yield client


def calling(daemon: Daemon) -> None:
    """Answers with thinking, a text and a call."""
    block = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
    pieces = [
        line(
            {
                "type": "content_block_delta",
                "index": 2,
                "delta": {"type": "input_json_delta", "partial_json": p},
            }
        )
        for p in ('{"city"', ': "Paris"}')
    ]
    begin = line({"type": "content_block_start", "index": 2, "content_block": block})
    daemon.chat(start(), thinking("hm"), text("let me see"), begin, *pieces, stop_reason="tool_use")


def test_create_and_go_on(sdk: openai.OpenAI) -> None:
    first = sdk.responses.create(model="sonnet", input="hi", instructions="be kind", metadata={"a": "b"})
    assert first.output_text == "whole" and first.usage is not None and first.usage.total_tokens == 17
    assert first._request_id
    second = sdk.responses.create(model="sonnet", input="more", previous_response_id=first.id)
    assert sdk.responses.retrieve(second.id).output_text == "whole"
    items = sdk.responses.input_items.list(second.id, order="asc")
    assert [item.type for item in items] == ["message", "message", "message"]
    assert sdk.responses.input_tokens.count(model="sonnet", input="hi").input_tokens > 0
    sdk.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(second.id)
    with pytest.raises(openai.BadRequestError) as missing:
        sdk.responses.create(model="sonnet", input="x", previous_response_id=second.id)
    assert missing.value.code == "previous_response_not_found"


def test_all_items_can_be_listed_again(sdk: openai.OpenAI, daemon: Daemon) -> None:
    """Pages, and every type of item that the SDK knows of."""
    calling(daemon)
    with sdk.responses.stream(model="m", input="x", tools=[TOOL], reasoning={"summary": "auto"}) as stream:
        first = stream.get_final_response()
    daemon.chat()
    output: Any = [
        {"type": "function_call_output", "call_id": "toolu_1", "output": "warm"},
        {
            "role": "user",
            "content": [{"type": "input_file", "file_data": "data:text/plain,x", "filename": "f"}],
        },
    ]
    second = sdk.responses.create(model="m", input=output, previous_response_id=first.id, tools=[TOOL])
    items = list(sdk.responses.input_items.list(second.id, order="asc", limit=2))
    assert [item.type for item in items] == [
        *("message", "reasoning", "message", "function_call", "function_call_output", "message"),
    ]


def test_stream(sdk: openai.OpenAI, daemon: Daemon) -> None:
    calling(daemon)
    stream = sdk.responses.create(
        model="m", input="x", stream=True, tools=[TOOL], reasoning={"effort": "low", "summary": "auto"}
    )
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert [item.type for item in events[-1].response.output] == ["reasoning", "message", "function_call"]


def test_stream_helper(sdk: openai.OpenAI, daemon: Daemon) -> None:
    calling(daemon)
    with sdk.responses.stream(model="m", input="x", tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created" and "response.function_call_arguments.delta" in kinds
    assert final.output[-1].type == "function_call" and final.output[-1].arguments == '{"city": "Paris"}'
    assert final.output_text == "let me see"


def test_parse(sdk: openai.OpenAI, daemon: Daemon) -> None:
    async def whole(call: Call) -> Any:
        assert call.params["format"]["schema"]["required"] == ["city", "degrees"]
        said = '{"city": "Paris", "degrees": 20}'
        return {**RESULT, "content": [{"type": "text", "text": said}], "text": said}

    daemon.scripts["chat.complete"] = whole
    parsed = sdk.responses.parse(model="m", input="x", text_format=Weather)
    assert parsed.output_parsed == Weather(city="Paris", degrees=20)
    daemon.chat(start(), text('{"city": "Rome",'), text(' "degrees": 1}'))
    with sdk.responses.stream(model="m", input="x", text_format=Weather) as stream:
        assert stream.get_final_response().output_parsed == Weather(city="Rome", degrees=1)


@pytest.mark.parametrize("stop_reason", ["max_tokens", "refusal"])
def test_answers_that_end_early(sdk: openai.OpenAI, daemon: Daemon, stop_reason: str) -> None:
    daemon.chat(start(), text("half"), stop_reason=stop_reason)
    events = list(sdk.responses.create(model="m", input="x", stream=True, max_output_tokens=20))
    whole = sdk.responses.create(model="m", input="x")
    if stop_reason == "max_tokens":
        assert events[-1].type == "response.incomplete"
        assert whole.status == "incomplete" and whole.incomplete_details is not None
        assert whole.incomplete_details.reason == "max_output_tokens"
    else:
        assert "response.refusal.done" in [event.type for event in events]
        message = whole.output[0]
        assert message.type == "message" and message.content[-1].type == "refusal"


def test_an_error_in_the_middle(sdk: openai.OpenAI, daemon: Daemon) -> None:
    async def breaking(call: Call) -> Any:
        await call.send(start() + text("half"))
        raise RpcError(Code.UPSTREAM_ERROR, "upstream died")

    daemon.scripts["chat.stream"] = breaking
    with pytest.raises(openai.APIError, match="upstream died"):
        list(sdk.responses.create(model="m", input="x", stream=True))
    with pytest.raises(openai.APIError, match="upstream died"):
        with sdk.responses.stream(model="m", input="x") as stream:
            stream.get_final_response()


def test_background(sdk: openai.OpenAI, daemon: Daemon) -> None:
    daemon.chat(start(), text("he"), text("llo"))
    stream = sdk.responses.create(model="m", input="x", background=True, stream=True)
    events = list(stream)
    final = events[-1]
    assert final.type == "response.completed" and final.response.background is True
    again = list(sdk.responses.retrieve(final.response.id, stream=True, starting_after=3))
    assert [event.sequence_number for event in again] == list(range(4, len(events)))
    daemon.hang()
    queued = sdk.responses.create(model="m", input="x", background=True)
    assert queued.status == "queued"
    assert sdk.responses.cancel(queued.id).status == "cancelled"


def test_async(options: dict[str, Any], daemon: Daemon) -> None:
    daemon.chat(start(), text("he"), text("llo"))

    async def many() -> None:
        async with openai.AsyncOpenAI(**options) as client:

            async def one() -> str:
                async with client.responses.stream(model="m", input="x") as stream:
                    async for _ in stream:
                        pass
                    return (await stream.get_final_response()).output_text

            assert await asyncio.gather(*(one() for _ in range(8))) == ["hello"] * 8
            assert (await client.responses.create(model="m", input="x")).output_text == "whole"

    asyncio.run(many())
