"""The Responses API through the whole path: real gunicorn, real CLI, scripted model API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from fakes.stack import Api, Stack, running_stack, wait_until

TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "the weather somewhere",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUB"
    "AScY42YAAAAASUVORK5CYII="
)
MODEL = "claude-haiku-4-5"


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cli: Path, api: Api) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("responses")
    settings = {"CCD_DATA__DIR": str(folder / "data"), "CCD_GATEWAY__MODEL_MAP": json.dumps({"gpt-*": MODEL})}
    with running_stack(folder, cli, api, gateway=True, **settings) as stack:
        yield stack


@pytest.fixture
def sdk(stack: Stack) -> Iterator[openai.OpenAI]:
    stack.settle()
    with openai.OpenAI(
        base_url=f"{stack.url}/v1", api_key="x", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def script(**fields: Any) -> str:
    return f"[[offline: {json.dumps(fields)}]]"


def test_a_chain_over_both_gateway_workers(stack: Stack, sdk: openai.OpenAI) -> None:
    previous: str | None = None
    for number in range(4):
        answer = sdk.responses.create(
            model=MODEL, input=script(text=f"a{number}"), previous_response_id=previous
        )
        assert answer.output_text == f"a{number}"
        previous = answer.id
    last = stack.api.bodies()[-1]
    assert [message["role"] for message in last["messages"]] == ["user", "assistant"] * 3 + ["user"]
    assert "a2" in json.dumps(last["messages"][-2])


def test_the_api_receives_what_was_asked(stack: Stack, sdk: openai.OpenAI) -> None:
    sdk.responses.create(
        model=MODEL,
        instructions="be brief",
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "what is this?"},
                    {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
                    {"type": "input_file", "file_data": "data:text/plain,hello", "filename": "a.txt"},
                ],
            }
        ],
        tools=[TOOL],
        tool_choice="none",
        max_output_tokens=77,
        temperature=0.25,
        user="u1",
    )
    (body,) = stack.api.bodies()
    assert [block["type"] for block in body["messages"][0]["content"]] == ["text", "image", "document"]
    assert body["system"][0]["text"] == "be brief"
    assert (body["max_tokens"], body["temperature"], body["metadata"]) == (77, 0.25, {"user_id": "u1"})
    assert body["tool_choice"] == {"type": "none"} and body["tools"][0]["name"] == "get_weather"


def test_reasoning_and_a_tool_loop(stack: Stack, sdk: openai.OpenAI) -> None:
    call = {"name": "get_weather", "input": {"city": "Paris"}}
    first_text = script(thinking="hm, the weather", text="let me see", tool_calls=[call])
    with sdk.responses.stream(
        model=MODEL, input=first_text, tools=[TOOL], reasoning={"effort": "low", "summary": "auto"}
    ) as stream:
        events = list(stream)
        first = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
    reasoning, _, asked = first.output
    assert reasoning.type == "reasoning" and reasoning.summary[0].text == "hm, the weather"
    assert asked.type == "function_call" and json.loads(asked.arguments) == {"city": "Paris"}
    second = sdk.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": asked.call_id, "output": "20 degrees"}],
        tools=[TOOL],
        reasoning={"effort": "low", "summary": "auto"},
    )
    assert second.status == "completed"
    history = stack.api.bodies()[-1]["messages"]
    kinds = [block["type"] for block in history[1]["content"]]
    assert kinds == ["thinking", "text", "tool_use"]  # the signed thinking came back from the daemon
    assert history[2]["content"][0]["type"] == "tool_result"


def test_structured_output(sdk: openai.OpenAI) -> None:
    said = script(text='{"city": "Rome", "degrees": 20}')
    parsed = sdk.responses.parse(model=MODEL, input=said, text_format=Weather)
    assert parsed.output_parsed == Weather(city="Rome", degrees=20)


def test_too_few_tokens(sdk: openai.OpenAI) -> None:
    events = list(sdk.responses.create(model=MODEL, input="word " * 50, max_output_tokens=16, stream=True))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.incomplete_details is not None
    assert events[-1].response.incomplete_details.reason == "max_output_tokens"


def test_a_refusal(sdk: openai.OpenAI) -> None:
    events = list(
        sdk.responses.create(model=MODEL, input=script(text="", stop_reason="refusal"), stream=True)
    )
    assert "response.refusal.done" in [event.type for event in events]
    assert events[-1].type == "response.completed"


def test_an_upstream_error_in_the_middle(sdk: openai.OpenAI) -> None:
    breaking = script(text="one two three four", deltas=4, error_after_deltas=2)
    with pytest.raises(openai.APIError):
        list(sdk.responses.create(model=MODEL, input=breaking, stream=True))


def test_background(stack: Stack, sdk: openai.OpenAI) -> None:
    queued = sdk.responses.create(
        model=MODEL, input=script(text="one two three", deltas=3, delta_ms=50), background=True
    )
    assert queued.status == "queued"

    def done() -> Any:
        found = sdk.responses.retrieve(queued.id)
        return found if found.status == "completed" else None

    assert wait_until(done, what="the background response").output_text == "one two three"
    events = list(sdk.responses.retrieve(queued.id, stream=True, starting_after=2))
    assert events[0].sequence_number == 3 and events[-1].type == "response.completed"
    hanging = sdk.responses.create(model=MODEL, input=script(hang=True), background=True)
    wait_until(lambda: len(stack.api.requests()) == 2, what="the request to reach the API")
    assert sdk.responses.cancel(hanging.id).status == "cancelled"
    wait_until(
        lambda: stack.api.requests()[1]["outcome"] == "disconnected", what="the turn to be interrupted"
    )


def test_responses_outlive_the_gateway(stack: Stack, sdk: openai.OpenAI) -> None:
    made = sdk.responses.create(model=MODEL, input=script(text="remember"))
    assert stack.gateway is not None
    stack.gateway.stop()
    stack.start_gateway()
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="x", max_retries=0) as again:
        assert again.responses.retrieve(made.id).output_text == "remember"
        again.responses.create(model=MODEL, input="go on", previous_response_id=made.id)
    assert "remember" in json.dumps(stack.api.bodies()[-1]["messages"])
