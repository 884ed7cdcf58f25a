"""The Responses API with OpenAI's SDK."""

import json
from typing import Any

import driver
import openai
from driver import MODEL, OSLO, PDF, PDF_URL, PNG_URL, ROME, contains, items, opened, raises, same, value
from openai_clients import FLAT_TOOL, NATIVE_TOOL, Place, both, user


async def respond(case: driver.Case, prompt: Any, **fields: Any) -> Any:
    """The response to one input."""
    return await value(case.client.responses.create(**{"model": MODEL, "input": prompt, **fields}))


async def events(case: driver.Case, prompt: Any, **fields: Any) -> list[Any]:
    """The events of a streamed response, which must be numbered."""
    found = [event async for event in items(await respond(case, prompt, stream=True, **fields))]
    same([event.sequence_number for event in found], list(range(len(found))))
    return found


@both("responses", "plain")
async def _(case: Any) -> None:
    answer = await respond(case, case.says())
    contains(answer.output_text, case.mark)
    same(answer.status, "completed")


@both("responses", "stream")
async def _(case: Any) -> None:
    found = await events(case, case.says(deltas=5))
    same(
        "".join(event.delta for event in found if event.type == "response.output_text.delta"),
        "w1 w2 w3 w4 w5",
    )
    async with opened(case.client.responses.stream(model=MODEL, input=case.says("hello"))) as stream:
        same((await value(stream.get_final_response())).output_text, "hello")


@both("responses", "usage")
async def _(case: Any) -> None:
    counts = {"input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 7}
    usage = (await respond(case, case.says("x", usage=counts))).usage
    same((usage.input_tokens, usage.output_tokens, usage.total_tokens), (43, 7, 50))
    same(usage.input_tokens_details.cached_tokens, 40)


@both("responses", "system")
async def _(case: Any) -> None:
    await respond(case, case.says(), instructions="Be brief.\n  «Exactly» so. ")
    same([block["text"] for block in case.body()["system"]], ["Be brief.\n  «Exactly» so. "])


@both("responses", "turns")
async def _(case: Any) -> None:
    await respond(case, [*user("one"), {"role": "assistant", "content": "two"}, *user(case.says())])
    same([message["role"] for message in case.body()["messages"]], ["user", "assistant", "user"])


@both("responses", "tool")
async def _(case: Any) -> None:
    (call,) = (await respond(case, case.calls(ROME), tools=[FLAT_TOOL])).output
    same((call.type, call.name, json.loads(call.arguments)), ("function_call", "get_weather", ROME))
    same(case.body()["tools"], [NATIVE_TOOL])


@both("responses", "tools_parallel")
async def _(case: Any) -> None:
    found = (await respond(case, case.calls(ROME, OSLO), tools=[FLAT_TOOL])).output
    same([json.loads(call.arguments) for call in found], [ROME, OSLO])
    one = await respond(case, case.calls(ROME, OSLO), tools=[FLAT_TOOL], parallel_tool_calls=False)
    same(len(one.output), 1)


@both("responses", "tools_streamed")
async def _(case: Any) -> None:
    prompt = case.calls(ROME, OSLO, text="let me see")
    async with opened(case.client.responses.stream(model=MODEL, input=prompt, tools=[FLAT_TOOL])) as stream:
        kinds = [event.type async for event in items(stream)]
        final = await value(stream.get_final_response())
    same(final.output_text, "let me see")
    same([json.loads(call.arguments) for call in final.output[1:]], [ROME, OSLO])
    same(kinds.count("response.function_call_arguments.done"), 2)


@both("responses", "tool_loop")
async def _(case: Any) -> None:
    history: list[Any] = user(case.calls(ROME, OSLO))
    first = await respond(case, history, tools=[FLAT_TOOL])
    history += [item.to_dict() for item in first.output]
    history += [
        {"type": "function_call_output", "call_id": call.call_id, "output": "it is sunny"}
        for call in first.output
    ]
    contains((await respond(case, history, tools=[FLAT_TOOL])).output_text, "it is sunny")
    results = case.bodies()[-1]["messages"][-1]["content"]
    same([block["tool_use_id"] for block in results], [call.call_id for call in first.output])


@both("responses", "tool_choice")
async def _(case: Any) -> None:
    for asked, received in (
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "name": "get_weather"}, {"type": "tool", "name": "get_weather"}),
    ):
        await respond(case, case.says(), tools=[FLAT_TOOL], tool_choice=asked)
        same(case.bodies()[-1]["tool_choice"], received)


@both("responses", "json_schema")
async def _(case: Any) -> None:
    asked = {"model": MODEL, "input": case.says('{"city": "Rome"}'), "text_format": Place}
    same((await value(case.client.responses.parse(**asked))).output_parsed, Place(city="Rome"))
    async with opened(case.client.responses.stream(**asked)) as stream:
        same((await value(stream.get_final_response())).output_parsed, Place(city="Rome"))
    same(case.bodies()[0]["output_config"]["format"]["schema"]["required"], ["city"])


@both("responses", "json_object")
async def _(case: Any) -> None:
    answer = await respond(case, case.says('{"a": 1}'), text={"format": {"type": "json_object"}})
    same(json.loads(answer.output_text), {"a": 1})


@both("responses", "reasoning")
async def _(case: Any) -> None:
    prompt = case.says("done", thinking="let me think")
    answer = await respond(case, prompt, reasoning={"effort": "low", "summary": "auto"})
    same([item.type for item in answer.output], ["reasoning", "message"])
    same(answer.output[0].summary[0].text, "let me think")


@both("responses", "images")
async def _(case: Any) -> None:
    parts = [
        {"type": "input_image", "image_url": url, "detail": "auto"}
        for url in (PNG_URL, "https://example.org/a.png")
    ]
    await respond(case, user([*parts, {"type": "input_text", "text": case.says()}]))
    content = case.body()["messages"][0]["content"]
    same([block["source"]["type"] for block in content[:2]], ["base64", "url"])


@both("responses", "files")
async def _(case: Any) -> None:
    part = {"type": "input_file", "filename": "a.pdf", "file_data": PDF_URL}
    await respond(case, user([part, {"type": "input_text", "text": case.says()}]))
    document = case.body()["messages"][0]["content"][0]
    same((document["type"], document["source"]["data"]), ("document", PDF))


@both("responses", "sampling")
async def _(case: Any) -> None:
    await respond(case, case.says(), temperature=0.25, max_output_tokens=77, safety_identifier="u-1")
    body = case.body()
    same((body["temperature"], body["max_tokens"], body["metadata"]), (0.25, 77, {"user_id": "u-1"}))


@both("responses", "length")
async def _(case: Any) -> None:
    answer = await respond(case, case.says("word " * 100), max_output_tokens=16)
    same((answer.status, answer.incomplete_details.reason), ("incomplete", "max_output_tokens"))


@both("responses", "refusal")
async def _(case: Any) -> None:
    answer = await respond(case, case.says("I will not.", stop_reason="refusal"))
    same(bool(answer.output[0].content[-1].refusal), True)


@both("responses", "broken")
async def _(case: Any) -> None:
    for fault in ({"error_after_deltas": 2}, {"cut_after_deltas": 2}):
        with raises(openai.APIError, "broke off"):
            await events(case, case.breaking(**fault))


@both("responses", "errors")
async def _(case: Any) -> None:
    with raises(openai.AuthenticationError):
        await respond(case, case.says(status=401))
    with raises(openai.NotFoundError) as caught:
        await respond(case, case.says(), model="claude-nonsense-9")
    same(caught[0].code, "model_not_found")
    with raises(openai.RateLimitError):
        await respond(case, case.says(status=429, retry_after_s=20))


@both("responses", "retry_after")
async def _(case: Any) -> None:
    patient = case.client.with_options(max_retries=1)
    prompt = case.later("at last")
    same(
        (await value(patient.responses.create(model=MODEL, input=prompt))).output_text, f"{case.mark} at last"
    )
    case.waited()


@both("responses", "cancel")
async def _(case: Any) -> None:
    stream = await respond(case, case.says("a b c d", deltas=4, hang_after_deltas=2), stream=True)
    async for event in items(stream):
        if event.type == "response.output_text.delta":
            break
    await value(stream.close())
    case.wait_interrupted()


@both("responses", "stored")
async def _(case: Any) -> None:
    first = await respond(case, case.says("noted"), metadata={"a": "b"})
    second = await respond(case, case.says(), previous_response_id=first.id)
    same([message["role"] for message in case.bodies()[-1]["messages"]], ["user", "assistant", "user"])
    responses = case.client.responses
    same((await value(responses.retrieve(first.id))).metadata, {"a": "b"})
    listed = [item.type async for item in items(responses.input_items.list(second.id))]
    same(listed, ["message"] * 3)
    await value(responses.delete(second.id))
    with raises(openai.NotFoundError):
        await value(responses.retrieve(second.id))
    with raises(openai.BadRequestError) as caught:
        await respond(case, case.says(), previous_response_id=second.id)
    same(caught[0].code, "previous_response_not_found")
    forgotten = await respond(case, case.says(), store=False)
    with raises(openai.NotFoundError):
        await value(responses.retrieve(forgotten.id))


@both("responses", "background")
async def _(case: Any) -> None:
    responses = case.client.responses
    found = await respond(case, case.says(deltas=5), background=True)
    same(found.status, "queued")
    while found.status in ("queued", "in_progress"):
        found = await value(responses.retrieve(found.id))
    same(found.output_text, "w1 w2 w3 w4 w5")
    again = [
        event
        async for event in items(await value(responses.retrieve(found.id, stream=True, starting_after=2)))
    ]
    same((again[0].sequence_number, again[-1].type), (3, "response.completed"))
    hanging = await respond(case, case.says(hang=True), background=True)
    same((await value(responses.cancel(hanging.id))).status, "cancelled")


@both("responses", "counting")
async def _(case: Any) -> None:
    counted = await value(case.client.responses.input_tokens.count(model=MODEL, input="hello " * 100))
    same(50 < counted.input_tokens < 1000, True)
    same(case.bodies(), [])


@both("responses", "request_id")
async def _(case: Any) -> None:
    answer = await respond(case, case.says(), extra_headers={"X-Request-ID": "mine-2"})
    same(answer._request_id, "mine-2")
