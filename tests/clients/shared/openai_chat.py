"""Chat completions with OpenAI's SDK."""

import json
from typing import Any

import driver
import openai
from driver import MODEL, OSLO, PDF, PDF_URL, PNG, PNG_URL, ROME, contains, items, opened, raises, same, value
from openai_clients import NATIVE_TOOL, TOOL, Place, both, user


async def chat(case: driver.Case, prompt: Any, **fields: Any) -> Any:
    """The answer to one prompt."""
    fields = {"model": MODEL, "messages": user(prompt), **fields}
    return await value(case.client.chat.completions.create(**fields))


async def chunks(case: driver.Case, prompt: Any, **fields: Any) -> list[Any]:
    """The chunks of a streamed answer."""
    return [chunk async for chunk in items(await chat(case, prompt, stream=True, **fields))]


@both("chat", "plain")
async def _(case: Any) -> None:
    answer = await chat(case, case.says())
    contains(answer.choices[0].message.content, case.mark)
    same(answer.choices[0].finish_reason, "stop")


@both("chat", "stream")
async def _(case: Any) -> None:
    found = await chunks(case, case.says(deltas=5))
    same("".join(chunk.choices[0].delta.content or "" for chunk in found), "w1 w2 w3 w4 w5")
    async with opened(
        case.client.chat.completions.stream(model=MODEL, messages=user(case.says("hello")))
    ) as stream:
        final = await value(stream.get_final_completion())
    same((final.choices[0].message.content, final.choices[0].finish_reason), ("hello", "stop"))


@both("chat", "usage")
async def _(case: Any) -> None:
    counts = {"input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 7}
    usage = (await chat(case, case.says("x", usage=counts))).usage
    same((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (43, 7, 50))
    same(usage.prompt_tokens_details.cached_tokens, 40)
    found = await chunks(case, case.says("x", usage=counts), stream_options={"include_usage": True})
    same(([chunk.usage for chunk in found[:-1]], found[-1].choices), ([None] * (len(found) - 1), []))
    same(found[-1].usage, usage)


@both("chat", "system")
async def _(case: Any) -> None:
    system = "Be brief.\n  «Exactly» so. "
    await chat(case, None, messages=[{"role": "system", "content": system}, *user(case.says())])
    same([block["text"] for block in case.body()["system"]], [system])


@both("chat", "turns")
async def _(case: Any) -> None:
    history = [*user("one"), {"role": "assistant", "content": "two"}, *user(case.says())]
    await chat(case, None, messages=history)
    said = [(message["role"], message["content"]) for message in case.body()["messages"]]
    same([role for role, _ in said], ["user", "assistant", "user"])
    contains(said[1][1], "two")


@both("chat", "tool")
async def _(case: Any) -> None:
    answer = await chat(case, case.calls(ROME), tools=[TOOL])
    same(answer.choices[0].finish_reason, "tool_calls")
    (call,) = answer.choices[0].message.tool_calls
    same(
        (call.type, call.function.name, json.loads(call.function.arguments)),
        ("function", "get_weather", ROME),
    )
    same(case.body()["tools"], [NATIVE_TOOL])


@both("chat", "tools_parallel")
async def _(case: Any) -> None:
    answer = await chat(case, case.calls(ROME, OSLO), tools=[TOOL])
    found = [json.loads(call.function.arguments) for call in answer.choices[0].message.tool_calls]
    same(found, [ROME, OSLO])
    one = await chat(case, case.calls(ROME, OSLO), tools=[TOOL], parallel_tool_calls=False)
    same(len(one.choices[0].message.tool_calls), 1)


@both("chat", "tools_streamed")
async def _(case: Any) -> None:
    stream = case.client.chat.completions.stream(
        model=MODEL, messages=user(case.calls(ROME, OSLO, text="let me see")), tools=[TOOL]
    )
    async with opened(stream) as events:
        kinds = [event.type async for event in items(events)]
        final = (await value(events.get_final_completion())).choices[0]
    same(final.message.content, "let me see")
    same([call.function.parsed_arguments for call in final.message.tool_calls], [ROME, OSLO])
    same(kinds.count("tool_calls.function.arguments.done"), 2)


@both("chat", "tool_loop")
async def _(case: Any) -> None:
    first = (await chat(case, case.calls(ROME, OSLO), tools=[TOOL])).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"{call.function.arguments} is sunny"}
        for call in first.tool_calls
    ]
    history = [*user(case.calls(ROME, OSLO)), first.to_dict(), *results]
    last = await chat(case, None, messages=history, tools=[TOOL])
    contains(last.choices[0].message.content, "is sunny")
    content = case.bodies()[-1]["messages"][-1]["content"]
    same([block["type"] for block in content], ["tool_result"] * 2)
    same([block["tool_use_id"] for block in content], [call.id for call in first.tool_calls])


@both("chat", "tool_choice")
async def _(case: Any) -> None:
    for asked, received in (
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "get_weather"}}, {"type": "tool", "name": "get_weather"}),
    ):
        answer = await chat(case, case.says(), tools=[TOOL], tool_choice=asked)
        same(case.bodies()[-1]["tool_choice"], received)
        same(bool(answer.choices[0].message.tool_calls), asked != "none")


@both("chat", "json_schema")
async def _(case: Any) -> None:
    asked = {"model": MODEL, "messages": user(case.says('{"city": "Rome"}')), "response_format": Place}
    parsed = await value(case.client.chat.completions.parse(**asked))
    same(parsed.choices[0].message.parsed, Place(city="Rome"))
    async with opened(case.client.chat.completions.stream(**asked)) as stream:
        final = await value(stream.get_final_completion())
    same(final.choices[0].message.parsed, Place(city="Rome"))
    schema = case.bodies()[0]["output_config"]["format"]["schema"]
    same((schema["required"], schema["additionalProperties"]), (["city"], False))


@both("chat", "json_object")
async def _(case: Any) -> None:
    answer = await chat(case, case.says('{"a": 1}'), response_format={"type": "json_object"})
    same(json.loads(answer.choices[0].message.content), {"a": 1})


@both("chat", "reasoning")
async def _(case: Any) -> None:
    prompt = case.says("done", thinking="let me think")
    answer = await chat(case, prompt, reasoning_effort="low")
    same(answer.choices[0].message.model_extra["reasoning_content"], "let me think")
    found = await chunks(case, prompt, reasoning_effort="low")
    extras = [chunk.choices[0].delta.model_extra.get("reasoning_content") or "" for chunk in found]
    same("".join(extras), "let me think")
    same(["thinking" in body for body in case.bodies()], [True, True])


@both("chat", "images")
async def _(case: Any) -> None:
    urls = [PNG_URL, "https://example.org/a.png"]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    await chat(case, [*parts, {"type": "text", "text": case.says()}])
    sources = [block["source"] for block in case.body()["messages"][0]["content"][:2]]
    same(sources[0], {"type": "base64", "media_type": "image/png", "data": PNG})
    same(sources[1], {"type": "url", "url": urls[1]})


@both("chat", "files")
async def _(case: Any) -> None:
    part = {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF_URL}}
    await chat(case, [part, {"type": "text", "text": case.says()}])
    document = case.body()["messages"][0]["content"][0]
    same((document["type"], document["source"]["data"], document["title"]), ("document", PDF, "a.pdf"))


@both("chat", "choices")
async def _(case: Any) -> None:
    answer = await chat(case, case.says("hello"), n=2)
    same([(choice.index, choice.message.content) for choice in answer.choices], [(0, "hello"), (1, "hello")])
    same(len(case.bodies()), 2)


@both("chat", "sampling")
async def _(case: Any) -> None:
    await chat(case, case.says(), temperature=0.25, max_completion_tokens=77, user="u-1")
    body = case.body()
    same((body["temperature"], body["max_tokens"], body["metadata"]), (0.25, 77, {"user_id": "u-1"}))


@both("chat", "stop")
async def _(case: Any) -> None:
    answer = await chat(case, case.says("one END two"), stop=["END"])
    same((answer.choices[0].message.content, answer.choices[0].finish_reason), ("one ", "stop"))


@both("chat", "length")
async def _(case: Any) -> None:
    answer = await chat(case, case.says("word " * 100), max_tokens=16)
    same(answer.choices[0].finish_reason, "length")
    with raises(openai.LengthFinishReasonError):
        asked = {"model": MODEL, "messages": user(case.says("word " * 100)), "max_tokens": 16}
        await value(case.client.chat.completions.parse(response_format=Place, **asked))


@both("chat", "refusal")
async def _(case: Any) -> None:
    prompt = case.says("I will not.", stop_reason="refusal")
    choice = (await chat(case, prompt)).choices[0]
    same((choice.finish_reason, choice.message.content), ("content_filter", None))
    same(choice.message.refusal, "I will not.")
    found = await chunks(case, prompt)
    # That it is a refusal is known at the end only; what was said until then has been sent as the answer's text.
    same(any(chunk.choices[0].delta.refusal for chunk in found), True)
    same(found[-1].choices[0].finish_reason, "content_filter")


@both("chat", "broken")
async def _(case: Any) -> None:
    for fault in ({"error_after_deltas": 2}, {"cut_after_deltas": 2}):
        with raises(openai.APIError, "broke off"):
            await chunks(case, case.breaking(**fault))


@both("chat", "errors")
async def _(case: Any) -> None:
    with raises(openai.AuthenticationError):
        await chat(case, case.says(status=401))
    with raises(openai.NotFoundError, "claude-nonsense-9") as caught:
        await chat(case, case.says(), model="claude-nonsense-9")
    same(caught[0].code, "model_not_found")
    with raises(openai.RateLimitError) as caught:
        await chat(case, case.says(status=429, retry_after_s=20))
    same(20 <= int(caught[0].response.headers["retry-after"]) <= 30, True)  # the CLI adds some
    with raises(openai.BadRequestError) as caught:
        await chat(case, case.says(), temperature="hot")
    same(caught[0].param, "temperature")


@both("chat", "retry_after")
async def _(case: Any) -> None:
    patient = case.client.with_options(max_retries=1)
    asked = {"model": MODEL, "messages": user(case.later("at last"))}
    answer = await value(patient.chat.completions.create(**asked))
    same(answer.choices[0].message.content, f"{case.mark} at last")
    case.waited()


@both("chat", "cancel")
async def _(case: Any) -> None:
    stream = await chat(case, case.says("a b c d", deltas=4, hang_after_deltas=2), stream=True)
    async for chunk in items(stream):
        if chunk.choices[0].delta.content:
            break
    await value(stream.close())
    case.wait_interrupted()


@both("chat", "models")
async def _(case: Any) -> None:
    listed = [model.id async for model in items(case.client.models.list())]
    same("sonnet" in listed, True)
    same((await value(case.client.models.retrieve("sonnet"))).id, "sonnet")


@both("chat", "conversation")
async def _(case: Any) -> None:
    first = await chat(case, case.says("noted"), extra_body={"conversation_id": case.mark.strip("<>")})
    same(first.conversation_id, case.mark.strip("<>"))
    await chat(case, case.says(), extra_body={"conversation_id": first.conversation_id})
    same([message["role"] for message in case.bodies()[-1]["messages"]], ["user", "assistant", "user"])


@both("chat", "request_id")
async def _(case: Any) -> None:
    answer = await chat(case, case.says(), extra_headers={"X-Request-ID": "mine-1"})
    same(answer._request_id, "mine-1")
    with raises(openai.BadRequestError) as caught:
        await chat(case, case.says(), n=99)
    same(bool(caught[0].request_id), True)
