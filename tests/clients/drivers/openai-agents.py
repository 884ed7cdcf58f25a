"""OpenAI's Agents SDK, over Responses and over chat completions."""

import json
from typing import Any

import driver
import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.exceptions import ModelRefusalError
from driver import MODEL, OSLO, PNG_URL, ROME, contains, raises, same
from openai.types.shared import Reasoning
from pydantic import BaseModel

set_tracing_disabled(True)
MODELS = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}


class Place(BaseModel):
    city: str


@function_tool
def get_weather(city: str) -> str:
    """Say how the weather is."""
    return f"it is sunny in {city}"


def agent(api: str, *, name: str = MODEL, **fields: Any) -> Any:
    """An agent with the model class for the API."""
    model = MODELS[api](model=name, openai_client=openai.AsyncOpenAI(max_retries=0, timeout=60))
    return Agent(name="tester", **{"model": model, **fields})


async def run(api: str, prompt: Any, **fields: Any) -> Any:
    """One run to its end."""
    return await Runner.run(agent(api, **fields), prompt, run_config=RunConfig(tracing_disabled=True))


async def stream(api: str, prompt: Any, **fields: Any) -> Any:
    """The events of a streamed run, and the run."""
    result = Runner.run_streamed(agent(api, **fields), prompt)
    return [event async for event in result.stream_events()], result


each = driver.across("chat", "responses")


@each("plain")
async def _(case: Any, api: str) -> None:
    contains((await run(api, case.says())).final_output, case.mark)


@each("stream")
async def _(case: Any, api: str) -> None:
    events, result = await stream(api, case.says(deltas=5))
    raw = [event.data for event in events if event.type == "raw_response_event"]
    texts = [event.delta for event in raw if event.type == "response.output_text.delta"]
    same(("".join(texts), result.final_output), ("w1 w2 w3 w4 w5",) * 2)


@each("usage")
async def _(case: Any, api: str) -> None:
    counts = {"input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 7}
    usage = (await run(api, case.says("x", usage=counts))).context_wrapper.usage
    same((usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens), (43, 40, 7))


@each("system")
async def _(case: Any, api: str) -> None:
    await run(api, case.says(), instructions="Be brief.\n  «Exactly» so. ")
    same([block["text"] for block in case.body()["system"]], ["Be brief.\n  «Exactly» so. "])


@each("turns")
async def _(case: Any, api: str) -> None:
    first = await run(api, "one")
    await run(api, [*first.to_input_list(), {"role": "user", "content": case.says()}])
    same([message["role"] for message in case.body()["messages"]], ["user", "assistant", "user"])


@each("tool")
async def _(case: Any, api: str) -> None:
    contains((await run(api, case.calls(ROME), tools=[get_weather])).final_output, "it is sunny in Rome")
    (tool,) = case.bodies()[0]["tools"]
    same((tool["name"], tool["input_schema"]["required"]), ("get_weather", ["city"]))


@each("tools_parallel")
@each("tool_loop")
async def _(case: Any, api: str) -> None:
    done = await run(api, case.calls(ROME, OSLO), tools=[get_weather])
    contains(done.final_output, "it is sunny in Rome")
    contains(done.final_output, "it is sunny in Oslo")
    same([block["type"] for block in case.bodies()[-1]["messages"][-1]["content"]], ["tool_result"] * 2)


@each("tools_streamed")
async def _(case: Any, api: str) -> None:
    _, result = await stream(api, case.calls(ROME, OSLO), tools=[get_weather])
    contains(result.final_output, "it is sunny in Oslo")


@each("tool_choice")
async def _(case: Any, api: str) -> None:
    settings = ModelSettings(tool_choice="get_weather", parallel_tool_calls=False)
    await run(api, case.calls(ROME), tools=[get_weather], model_settings=settings)
    wanted = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    same(case.bodies()[0]["tool_choice"], wanted)


@each("json_schema")
async def _(case: Any, api: str) -> None:
    done = await run(api, case.says(json.dumps(ROME)), output_type=Place)
    same(done.final_output, Place(city="Rome"))
    same(case.body()["output_config"]["format"]["schema"]["required"], ["city"])


@each("reasoning")
async def _(case: Any, api: str) -> None:
    settings = ModelSettings(
        reasoning=Reasoning(effort="low", summary="auto" if api == "responses" else None)
    )
    done = await run(api, case.says("done", thinking="let me think"), model_settings=settings)
    kinds = [item.type for item in done.new_items]
    same(kinds, ["reasoning_item", "message_output_item"])
    contains(done.new_items[0].raw_item, "let me think")


@each("images")
async def _(case: Any, api: str) -> None:
    image = {"type": "input_image", "image_url": PNG_URL, "detail": "auto"}
    await run(api, [{"role": "user", "content": [image, {"type": "input_text", "text": case.says()}]}])
    same(case.body()["messages"][0]["content"][0]["type"], "image")


@each("sampling")
async def _(case: Any, api: str) -> None:
    await run(api, case.says(), model_settings=ModelSettings(temperature=0.25, max_tokens=77))
    same((case.body()["temperature"], case.body()["max_tokens"]), (0.25, 77))


@each("refusal")
async def _(case: Any, api: str) -> None:
    with raises(ModelRefusalError):
        await run(api, case.says("" if api == "responses" else "I will not.", stop_reason="refusal"))


@each("broken")
async def _(case: Any, api: str) -> None:
    with raises(Exception, "broke off"):
        await stream(api, case.breaking())


@each("errors")
async def _(case: Any, api: str) -> None:
    with raises(openai.AuthenticationError):
        await run(api, case.says(status=401))
    with raises(openai.NotFoundError):
        await run(api, case.says(), name="claude-nonsense-9")
    with raises(openai.RateLimitError):
        await run(api, case.says(status=429, retry_after_s=20))


@each("stored", "responses")
async def _(case: Any, api: str) -> None:
    first = await run(api, case.says("noted"))
    await Runner.run(agent(api), case.says(), previous_response_id=first.last_response_id)
    same(len(case.bodies()[-1]["messages"]), 3)


@each("cancel")
async def _(case: Any, api: str) -> None:
    result = Runner.run_streamed(agent(api), case.says("a b c d", deltas=4, hang_after_deltas=2))
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            result.cancel()
    case.wait_interrupted()


driver.main("openai-agents")
