"""Pydantic AI: agents over its models for OpenAI's two APIs and for Anthropic's."""

import base64
from typing import Any

import driver
from driver import KEY, MODEL, PDF, PNG, ROME, contains, raises, same
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ImageUrl, NativeOutput, PromptedOutput, UsageLimits
from pydantic_ai.exceptions import ContentFilterError, ModelAPIError, ModelHTTPError
from pydantic_ai.messages import ThinkingPart
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Place(BaseModel):
    """Where something is."""

    city: str


def model(api: str, name: str = MODEL) -> Any:
    """The model for an API."""
    if api == "messages":
        return AnthropicModel(name, provider=AnthropicProvider(base_url=driver.ANTHROPIC_URL, api_key=KEY))
    provider = OpenAIProvider(base_url=driver.OPENAI_URL, api_key=KEY)
    return (OpenAIChatModel if api == "chat" else OpenAIResponsesModel)(name, provider=provider)


async def run(
    api: str, prompt: Any, *, name: str = MODEL, history: Any = None, limits: Any = None, **fields: Any
) -> Any:
    """One run of an agent."""
    async with Agent(model(api, name), retries=0, **fields) as agent:
        return await agent.run(prompt, message_history=history, usage_limits=limits)


each = driver.across("chat", "responses", "messages")


def get_weather(city: str) -> str:
    """Say how the weather is."""
    return f"it is sunny in {city}"


@each("plain")
async def _(case: Any, api: str) -> None:
    contains((await run(api, case.says())).output, case.mark)


@each("stream")
async def _(case: Any, api: str) -> None:
    async with Agent(model(api)) as agent, agent.run_stream(case.says(deltas=5)) as stream:
        texts = [text async for text in stream.stream_text(delta=True, debounce_by=None)]
    same("".join(texts), "w1 w2 w3 w4 w5")


@each("usage")
async def _(case: Any, api: str) -> None:
    counts = {"input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 7}
    usage = (await run(api, case.says("x", usage=counts))).usage
    same((usage.input_tokens, usage.cache_read_tokens, usage.output_tokens), (43, 40, 7))


@each("system")
async def _(case: Any, api: str) -> None:
    await run(api, case.says(), instructions="Be brief.\n  «Exactly» so.")
    # Pydantic AI puts a note of its own before it for Anthropic's API.
    same(case.body()["system"][-1]["text"], "Be brief.\n  «Exactly» so.")


@each("turns")
async def _(case: Any, api: str) -> None:
    first = await run(api, "one")
    await run(api, case.says(), history=first.all_messages())
    same([message["role"] for message in case.body()["messages"]], ["user", "assistant", "user"])


@each("tool")
async def _(case: Any, api: str) -> None:
    done = await run(api, case.calls(ROME), tools=[get_weather])
    contains(done.output, "it is sunny in Rome")
    (tool,) = case.bodies()[0]["tools"]
    same((tool["name"], tool["input_schema"]["required"]), ("get_weather", ["city"]))


@each("tool_loop")
@each("tools_parallel")
async def _(case: Any, api: str) -> None:
    done = await run(api, case.calls(ROME, {"city": "Oslo"}), tools=[get_weather])
    contains(done.output, "it is sunny in Rome")
    contains(done.output, "it is sunny in Oslo")
    same([block["type"] for block in case.bodies()[-1]["messages"][-1]["content"]], ["tool_result"] * 2)


@each("tools_streamed")
async def _(case: Any, api: str) -> None:
    async with Agent(model(api), tools=[get_weather]) as agent:
        async with agent.run_stream(case.calls(ROME, {"city": "Oslo"})) as stream:
            contains(await stream.get_output(), "it is sunny in Oslo")


@each("tool_choice")
async def _(case: Any, api: str) -> None:
    """An output type is a tool that must be called."""
    done = await run(api, case.calls(ROME, tool="final_result"), output_type=Place)
    same(done.output, Place(city="Rome"))
    same(case.body()["tool_choice"]["type"] in ("any", "tool"), True)


@each("json_schema")
async def _(case: Any, api: str) -> None:
    done = await run(api, case.says('{"city": "Rome"}'), output_type=NativeOutput(Place))
    same(done.output, Place(city="Rome"))
    same(case.body()["output_config"]["format"]["schema"]["required"], ["city"])


@each("json_object", "chat", "responses")
async def _(case: Any, api: str) -> None:
    done = await run(api, case.says('{"city": "Rome"}'), output_type=PromptedOutput(Place))
    same(done.output, Place(city="Rome"))


@each("reasoning")
async def _(case: Any, api: str) -> None:
    settings: dict[str, Any] = {
        "chat": {"openai_reasoning_effort": "low"},
        "responses": {"openai_reasoning_effort": "low", "openai_reasoning_summary": "auto"},
        "messages": {"anthropic_thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 3000},
    }
    done = await run(api, case.says("done", thinking="let me think"), model_settings=settings[api])
    parts = [part for message in done.all_messages() for part in message.parts]
    same([part.content for part in parts if isinstance(part, ThinkingPart)], ["let me think"])


@each("images")
async def _(case: Any, api: str) -> None:
    image = BinaryContent(base64.b64decode(PNG), media_type="image/png")
    await run(api, [image, ImageUrl("https://example.org/a.png"), case.says()])
    sources = [block["source"] for block in case.body()["messages"][0]["content"] if block["type"] == "image"]
    same((sources[0]["data"], sources[1]["url"]), (PNG, "https://example.org/a.png"))


@each("files")
async def _(case: Any, api: str) -> None:
    await run(api, [BinaryContent(base64.b64decode(PDF), media_type="application/pdf"), case.says()])
    same(case.body()["messages"][0]["content"][0]["source"]["data"], PDF)


@each("sampling")
async def _(case: Any, api: str) -> None:
    await run(api, case.says(), model_settings={"temperature": 0.25, "max_tokens": 77})
    same((case.body()["temperature"], case.body()["max_tokens"]), (0.25, 77))


@each("stop", "chat", "messages")
async def _(case: Any, api: str) -> None:
    same(
        (await run(api, case.says("one END two"), model_settings={"stop_sequences": ["END"]})).output, "one "
    )


@each("length")
async def _(case: Any, api: str) -> None:
    done = await run(api, case.says("word " * 100), model_settings={"max_tokens": 16})
    same(done.response.finish_reason, "length")


@each("refusal")
async def _(case: Any, api: str) -> None:
    with raises(ContentFilterError):
        await run(api, case.says("" if api == "messages" else "I will not.", stop_reason="refusal"))


@each("broken")
async def _(case: Any, api: str) -> None:
    with raises(ModelAPIError, "broke off"):
        async with Agent(model(api)) as agent:
            async with agent.run_stream(case.breaking()) as stream:
                await stream.get_output()


@each("errors")
async def _(case: Any, api: str) -> None:
    for status in (401, 404):
        with raises(ModelHTTPError) as caught:
            name, fault = (MODEL, {"status": 401}) if status == 401 else ("claude-nonsense-9", {"text": "x"})
            await run(api, case.says(**fault), name=name)
        same(caught[0].status_code, status)


@each("cancel")
async def _(case: Any, api: str) -> None:
    async with Agent(model(api)) as agent:
        async with agent.run_stream(case.says("a b c d", deltas=4, hang_after_deltas=2)) as stream:
            async for _text in stream.stream_text(delta=True, debounce_by=None):
                await stream.cancel()
                break
    case.wait_interrupted()


@each("stored", "responses")
async def _(case: Any, api: str) -> None:
    first = await run(api, case.says("noted"))
    settings = {"openai_previous_response_id": first.response.provider_response_id}
    await run(api, case.says(), model_settings=settings)
    same(len(case.bodies()[-1]["messages"]), 3)


@each("conversation", "chat")
async def _(case: Any, api: str) -> None:
    settings = {"extra_body": {"conversation_id": case.mark.strip("<>")}}
    await run(api, case.says("noted"), model_settings=settings)
    await run(api, case.says(), model_settings=settings)
    same(len(case.bodies()[-1]["messages"]), 3)


@each("counting", "messages")
async def _(case: Any, api: str) -> None:
    with raises(Exception, "input_tokens_limit"):
        await run(
            api, case.says(), limits=UsageLimits(input_tokens_limit=1, count_tokens_before_request=True)
        )
    same(case.bodies(), [])


driver.main("pydantic-ai-slim")
