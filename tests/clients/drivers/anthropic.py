"""Anthropic's Python SDK, blocking and async, in the mode in which it checks every answer against its types."""

from typing import Any

import anthropic
import driver
from anthropic.types.message_create_params import MessageCreateParamsBase
from driver import CITY, MODEL, OSLO, PDF, PNG, ROME, contains, items, opened, raises, same, value
from pydantic import BaseModel

OPTIONS: Any = {"timeout": 60, "max_retries": 0, "_strict_response_validation": True}
both = driver.variants(
    sync=lambda: anthropic.Anthropic(**OPTIONS), asynchronous=lambda: anthropic.AsyncAnthropic(**OPTIONS)
)
TOOL: Any = {"name": "get_weather", "description": "now", "input_schema": CITY}
SYSTEM = "Be brief.\n  «Exactly» so. "


class Place(BaseModel):
    city: str


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


def asked(prompt: Any, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 500, "messages": user(prompt), **fields}


async def say(case: driver.Case, prompt: Any, **fields: Any) -> Any:
    """The message that answers one prompt."""
    return await value(case.client.messages.create(**asked(prompt, **fields)))


async def streamed(case: driver.Case, prompt: Any, **fields: Any) -> Any:
    """The message that the SDK makes of a stream."""
    async with opened(case.client.messages.stream(**asked(prompt, **fields))) as stream:
        return await value(stream.get_final_message())


@both("messages", "plain")
async def _(case: Any) -> None:
    answer = await say(case, case.says())
    contains(answer.content[0].text, case.mark)
    same((answer.stop_reason, answer.role), ("end_turn", "assistant"))


@both("messages", "stream")
async def _(case: Any) -> None:
    async with opened(case.client.messages.stream(**asked(case.says(deltas=5)))) as stream:
        texts = [text async for text in items(stream.text_stream)]
    same("".join(texts), "w1 w2 w3 w4 w5")
    events = [event.type async for event in items(await say(case, case.says(deltas=2), stream=True))]
    same((events[0], events[-2:]), ("message_start", ["message_delta", "message_stop"]))


@both("messages", "usage")
async def _(case: Any) -> None:
    counts = {"input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 7}
    for ask in (say, streamed):
        usage = (await ask(case, case.says("x", usage=counts))).usage
        same({name: getattr(usage, name) for name in counts}, counts)


@both("messages", "system")
async def _(case: Any) -> None:
    await say(case, case.says(), system=SYSTEM)
    same(case.body()["system"], [{"type": "text", "text": SYSTEM}])


@both("messages", "turns")
async def _(case: Any) -> None:
    history = [*user("one"), {"role": "assistant", "content": "two"}, *user(case.says())]
    await say(case, None, messages=history)
    same(case.body()["messages"], history)


@both("messages", "tool")
async def _(case: Any) -> None:
    answer = await say(case, case.calls(ROME), tools=[TOOL])
    (call,) = answer.content
    same(
        (call.type, call.name, call.input, answer.stop_reason), ("tool_use", "get_weather", ROME, "tool_use")
    )
    same(case.body()["tools"], [TOOL])


@both("messages", "tools_parallel")
async def _(case: Any) -> None:
    answer = await say(case, case.calls(ROME, OSLO), tools=[TOOL])
    same([call.input for call in answer.content], [ROME, OSLO])
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    one = await say(case, case.calls(ROME, OSLO), tools=[TOOL], tool_choice=choice)
    same(len(one.content), 1)


@both("messages", "tools_streamed")
async def _(case: Any) -> None:
    answer = await streamed(case, case.calls(ROME, OSLO, text="let me see"), tools=[TOOL])
    same(answer.content[0].text, "let me see")
    same([call.input for call in answer.content[1:]], [ROME, OSLO])


@both("messages", "tool_loop")
async def _(case: Any) -> None:
    history = user(case.calls(ROME, OSLO))
    first = await say(case, None, messages=history, tools=[TOOL])
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": "it is sunny"} for call in first.content
    ]
    history += [
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        *user(results),
    ]
    contains((await say(case, None, messages=history, tools=[TOOL])).content[0].text, "it is sunny")
    same(case.bodies()[-1]["messages"], history)


@both("messages", "tool_choice")
async def _(case: Any) -> None:
    for choice in ({"type": "none"}, {"type": "any"}, {"type": "tool", "name": "get_weather"}):
        answer = await say(case, case.says(), tools=[TOOL], tool_choice=choice)
        same(case.bodies()[-1]["tool_choice"], choice)
        same(answer.stop_reason == "tool_use", choice["type"] != "none")


@both("messages", "json_schema")
async def _(case: Any) -> None:
    fields = asked(case.says('{"city": "Rome"}'), output_format=Place)
    same((await value(case.client.messages.parse(**fields))).parsed_output, Place(city="Rome"))
    sent = case.body().get("output_config", {}).get("format") or case.body()["output_format"]
    same(sent["schema"]["required"], ["city"])


@both("messages", "reasoning")
async def _(case: Any) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    for ask in (say, streamed):
        answer = await ask(
            case, case.says("done", thinking="let me think"), thinking=thinking, max_tokens=2000
        )
        same([block.type for block in answer.content], ["thinking", "text"])
        same((answer.content[0].thinking, bool(answer.content[0].signature)), ("let me think", True))
    same([body["thinking"] for body in case.bodies()], [thinking] * 2)


@both("messages", "images")
async def _(case: Any) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    content = [image, linked, {"type": "text", "text": case.says()}]
    await say(case, content)
    same(case.body()["messages"], user(content))


@both("messages", "files")
async def _(case: Any) -> None:
    document = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
    }
    content = [document, {"type": "text", "text": case.says()}]
    await say(case, content)
    same(case.body()["messages"], user(content))


@both("messages", "sampling")
async def _(case: Any) -> None:
    await say(case, case.says(), extra_body={"temperature": 0.25}, max_tokens=77, metadata={"user_id": "u-1"})
    body = case.body()
    same((body["temperature"], body["max_tokens"], body["metadata"]), (0.25, 77, {"user_id": "u-1"}))


@both("messages", "stop")
async def _(case: Any) -> None:
    answer = await say(case, case.says("one END two"), stop_sequences=["END"])
    same((answer.content[0].text, answer.stop_reason, answer.stop_sequence), ("one ", "stop_sequence", "END"))


@both("messages", "length")
async def _(case: Any) -> None:
    for ask in (say, streamed):
        same((await ask(case, case.says("word " * 100), max_tokens=16)).stop_reason, "max_tokens")


@both("messages", "refusal")
async def _(case: Any) -> None:
    for ask in (say, streamed):
        answer = await ask(case, case.says("I will not.", stop_reason="refusal"))
        same((answer.stop_reason, answer.content[0].text), ("refusal", "I will not."))


@both("messages", "broken")
async def _(case: Any) -> None:
    for fault in ({"error_after_deltas": 2}, {"cut_after_deltas": 2}):
        with raises(anthropic.APIStatusError, "broke off"):
            await streamed(case, case.breaking(**fault))


@both("messages", "errors")
async def _(case: Any) -> None:
    with raises(anthropic.AuthenticationError):
        await say(case, case.says(status=401))
    with raises(anthropic.NotFoundError, "claude-nonsense-9"):
        await say(case, case.says(), model="claude-nonsense-9")
    with raises(anthropic.RateLimitError) as caught:
        await say(case, case.says(status=429, retry_after_s=20))
    same(20 <= int(caught[0].response.headers["retry-after"]) <= 30, True)  # the CLI adds some
    with raises(anthropic.BadRequestError, "max_tokens"):
        await say(case, case.says(), max_tokens=0)
    with raises(anthropic.InternalServerError) as caught:
        await say(case, case.says(status=529))
    same(caught[0].status_code, 529)


@both("messages", "retry_after")
async def _(case: Any) -> None:
    patient = case.client.with_options(max_retries=1)
    answer = await value(patient.messages.create(**asked(case.later("at last"))))
    same(answer.content[0].text, f"{case.mark} at last")
    case.waited()


@both("messages", "cancel")
async def _(case: Any) -> None:
    async with opened(
        case.client.messages.stream(**asked(case.says("a b c d", deltas=4, hang_after_deltas=2)))
    ) as stream:
        async for _text in items(stream.text_stream):
            break
    case.wait_interrupted()


@both("messages", "counting")
async def _(case: Any) -> None:
    counted = await value(
        case.client.messages.count_tokens(model=MODEL, messages=user("hello " * 100), tools=[TOOL])
    )
    same(100 < counted.input_tokens < 1500, True)


@both("messages", "models")
async def _(case: Any) -> None:
    listed = [model.id async for model in items(case.client.models.list())]
    same("sonnet" in listed, True)
    same((await value(case.client.models.retrieve("sonnet"))).id, "sonnet")


@both("messages", "request_id")
async def _(case: Any) -> None:
    answer = await say(case, case.says(), extra_headers={"X-Request-ID": "mine-3"})
    same(answer._request_id, "mine-3")
    with raises(anthropic.BadRequestError) as caught:
        await say(case, case.says(), max_tokens=0)
    same(caught[0].body["request_id"], caught[0].request_id)


driver.fact("messages parameters", [*sorted(MessageCreateParamsBase.__annotations__), "stream"])
driver.main("anthropic")
