"""LiteLLM, the library: chat completions, Responses, and the Messages API under its own names."""

import asyncio
import json
from typing import Any

import driver
import litellm
import openai
from driver import CITY, KEY, MODEL, OSLO, PDF, PDF_URL, PNG_URL, ROME, contains, raises, same
from pydantic import BaseModel

litellm.telemetry = False
litellm.suppress_debug_info = True
litellm.drop_params = False
WHERE = {
    "chat": {"model": f"openai/{MODEL}", "api_base": driver.OPENAI_URL, "api_key": KEY},
    "messages": {"model": f"anthropic/{MODEL}", "api_base": driver.ANTHROPIC_URL, "api_key": KEY},
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "now", "parameters": CITY},
}
FLAT_TOOL: Any = {"type": "function", **TOOL["function"]}
NATIVE = {"name": "get_weather", "description": "now", "input_schema": CITY}


class Place(BaseModel):
    city: str


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


def ask(api: str, prompt: Any, **fields: Any) -> Any:
    """What LiteLLM makes of the answer: always a chat completion."""
    fields = {"max_retries": 0, "timeout": 60, "messages": user(prompt), **WHERE[api], **fields}
    return litellm.completion(**fields)


def stream(api: str, prompt: Any, **fields: Any) -> Any:
    """The chunks, and the completion that LiteLLM puts together from them."""
    chunks = list(ask(api, prompt, stream=True, **fields))
    return chunks, litellm.stream_chunk_builder(chunks)


each = driver.across("chat", "messages")


def arguments(message: Any) -> list[Any]:
    return [json.loads(call.function.arguments) for call in message.tool_calls]


@each("plain")
def _(case: Any, api: str) -> None:
    contains(ask(api, case.says()).choices[0].message.content, case.mark)


@each("stream")
def _(case: Any, api: str) -> None:
    _, whole = stream(api, case.says(deltas=5))
    same(whole.choices[0].message.content, "w1 w2 w3 w4 w5")


@each("usage")
def _(case: Any, api: str) -> None:
    counts = {"input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 7}
    usage = ask(api, case.says("x", usage=counts)).usage
    same((usage.prompt_tokens, usage.completion_tokens), (43, 7))
    chunks, _ = stream(api, case.says("x", usage=counts), stream_options={"include_usage": True})
    same(chunks[-1].usage.completion_tokens, 7)


@each("system")
def _(case: Any, api: str) -> None:
    system = "Be brief.\n  «Exactly» so."
    ask(api, None, messages=[{"role": "system", "content": system}, *user(case.says())])
    same([block["text"] for block in case.body()["system"]], [system])


@each("turns")
def _(case: Any, api: str) -> None:
    ask(api, None, messages=[*user("one"), {"role": "assistant", "content": "two"}, *user(case.says())])
    same([message["role"] for message in case.body()["messages"]], ["user", "assistant", "user"])


@each("tool")
def _(case: Any, api: str) -> None:
    choice = ask(api, case.calls(ROME), tools=[TOOL]).choices[0]
    same((arguments(choice.message), choice.finish_reason), ([ROME], "tool_calls"))
    (tool,) = case.body()["tools"]
    same({name: tool[name] for name in NATIVE}, NATIVE)


@each("tools_parallel")
def _(case: Any, api: str) -> None:
    same(arguments(ask(api, case.calls(ROME, OSLO), tools=[TOOL]).choices[0].message), [ROME, OSLO])


@each("tools_streamed")
def _(case: Any, api: str) -> None:
    _, whole = stream(api, case.calls(ROME, OSLO), tools=[TOOL])
    same(arguments(whole.choices[0].message), [ROME, OSLO])


@each("tool_loop")
def _(case: Any, api: str) -> None:
    history = user(case.calls(ROME, OSLO))
    said = ask(api, None, messages=history, tools=[TOOL]).choices[0].message
    history.append(said)
    for call in said.tool_calls:
        history.append({"role": "tool", "tool_call_id": call.id, "content": "it is sunny"})
    contains(ask(api, None, messages=history, tools=[TOOL]).choices[0].message.content, "it is sunny")
    same([block["type"] for block in case.bodies()[-1]["messages"][-1]["content"]], ["tool_result"] * 2)


@each("tool_choice")
def _(case: Any, api: str) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    for asked, received in (("required", "any"), (named, "tool")):
        ask(api, case.says(), tools=[TOOL], tool_choice=asked)
        same(case.bodies()[-1]["tool_choice"]["type"], received)


@each("json_schema")
def _(case: Any, api: str) -> None:
    answer = ask(api, case.says('{"city": "Rome"}'), response_format=Place)
    same(Place.model_validate_json(answer.choices[0].message.content), Place(city="Rome"))
    contains(case.body(), "json_schema")


@each("json_object", "chat")
def _(case: Any, api: str) -> None:
    answer = ask(api, case.says('{"a": 1}'), response_format={"type": "json_object"})
    same(json.loads(answer.choices[0].message.content), {"a": 1})


@each("reasoning")
def _(case: Any, api: str) -> None:
    asked: Any = {"reasoning_effort": "low", "allowed_openai_params": ["reasoning_effort"]}
    if api == "messages":
        asked = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 3000}
    prompt = case.says("done", thinking="let me think")
    same(ask(api, prompt, **asked).choices[0].message.reasoning_content, "let me think")
    same(stream(api, prompt, **asked)[1].choices[0].message.reasoning_content, "let me think")


@each("images")
def _(case: Any, api: str) -> None:
    image = {"type": "image_url", "image_url": {"url": PNG_URL}}
    ask(api, [image, {"type": "text", "text": case.says()}])
    same(case.body()["messages"][0]["content"][0]["type"], "image")


@each("files")
def _(case: Any, api: str) -> None:
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF_URL}}
    ask(api, [file, {"type": "text", "text": case.says()}])
    document = case.body()["messages"][0]["content"][0]
    same((document["type"], document["source"]["data"]), ("document", PDF))


@each("sampling")
def _(case: Any, api: str) -> None:
    ask(api, case.says(), temperature=0.25, max_tokens=77)
    same((case.body()["temperature"], case.body()["max_tokens"]), (0.25, 77))


@each("stop")
def _(case: Any, api: str) -> None:
    choice = ask(api, case.says("one END two"), stop=["END"]).choices[0]
    same((choice.message.content, choice.finish_reason), ("one ", "stop"))


@each("length")
def _(case: Any, api: str) -> None:
    same(ask(api, case.says("word " * 100), max_tokens=16).choices[0].finish_reason, "length")


@each("refusal")
def _(case: Any, api: str) -> None:
    choice = ask(api, case.says("I will not.", stop_reason="refusal")).choices[0]
    same(choice.finish_reason, "content_filter")


@each("broken")
def _(case: Any, api: str) -> None:
    with raises(openai.APIError, "broke off"):
        stream(api, case.breaking())


@each("errors")
def _(case: Any, api: str) -> None:
    with raises(litellm.AuthenticationError):
        ask(api, case.says(status=401))
    with raises(litellm.RateLimitError):
        ask(api, case.says(status=429, retry_after_s=20))
    with raises(litellm.NotFoundError):
        ask(api, case.says(), model=WHERE[api]["model"].replace(MODEL, "claude-nonsense-9"))


@each("cancel", "chat")  # of the Messages API's streams it leaves the connection open
def _(case: Any, api: str) -> None:
    async def leave() -> None:
        found = await litellm.acompletion(
            **WHERE[api], messages=user(case.says("a b c d", deltas=4, hang_after_deltas=2)), stream=True
        )
        async for chunk in found:
            if chunk.choices[0].delta.content:
                break
        await found.aclose()
        await asyncio.to_thread(case.wait_interrupted)

    asyncio.run(leave())


@driver.feature("chat", "conversation")
def _(case: Any) -> None:
    name = case.mark.strip("<>")
    ask("chat", case.says("noted"), extra_body={"conversation_id": name})
    ask("chat", case.says(), extra_body={"conversation_id": name})
    same(len(case.bodies()[-1]["messages"]), 3)


def respond(prompt: Any, **fields: Any) -> Any:
    """A response, by LiteLLM's own function for them."""
    return litellm.responses(**{**WHERE["chat"], "input": prompt, "timeout": 60, **fields})


def text_of(response: Any) -> str:
    return "".join(part.text for item in response.output if item.type == "message" for part in item.content)


@driver.feature("responses", "plain")
def _(case: Any) -> None:
    contains(text_of(respond(case.says())), case.mark)


@driver.feature("responses", "stream")
def _(case: Any) -> None:
    events = list(respond(case.says(deltas=5), stream=True))
    same("".join(e.delta for e in events if e.type == "response.output_text.delta"), "w1 w2 w3 w4 w5")
    same(events[-1].type, "response.completed")


@driver.feature("responses", "usage")
def _(case: Any) -> None:
    usage = respond(case.says("x", usage={"input_tokens": 3, "output_tokens": 7})).usage
    same((usage.input_tokens, usage.output_tokens), (3, 7))


@driver.feature("responses", "system")
def _(case: Any) -> None:
    respond(case.says(), instructions="Be brief.")
    same([block["text"] for block in case.body()["system"]], ["Be brief."])


@driver.feature("responses", "turns")
def _(case: Any) -> None:
    respond([*user("one"), {"role": "assistant", "content": "two"}, *user(case.says())])
    same(len(case.body()["messages"]), 3)


@driver.feature("responses", "tool")
def _(case: Any) -> None:
    (call,) = respond(case.calls(ROME), tools=[FLAT_TOOL]).output
    same((call.type, json.loads(call.arguments)), ("function_call", ROME))


@driver.feature("responses", "tools_parallel")
def _(case: Any) -> None:
    found = respond(case.calls(ROME, OSLO), tools=[FLAT_TOOL]).output
    same([json.loads(call.arguments) for call in found], [ROME, OSLO])


@driver.feature("responses", "tool_choice")
def _(case: Any) -> None:
    respond(case.says(), tools=[FLAT_TOOL], tool_choice="required")
    same(case.body()["tool_choice"], {"type": "any"})


@driver.feature("responses", "json_schema")
def _(case: Any) -> None:
    answer = respond(case.says('{"city": "Rome"}'), text_format=Place)
    same(Place.model_validate_json(text_of(answer)), Place(city="Rome"))


@driver.feature("responses", "reasoning")
def _(case: Any) -> None:
    answer = respond(
        case.says("done", thinking="let me think"), reasoning={"effort": "low", "summary": "auto"}
    )
    same(answer.output[0].summary[0].text, "let me think")


@driver.feature("responses", "sampling")
def _(case: Any) -> None:
    respond(case.says(), temperature=0.25, max_output_tokens=77)
    same((case.body()["temperature"], case.body()["max_tokens"]), (0.25, 77))


@driver.feature("responses", "errors")
def _(case: Any) -> None:
    with raises(litellm.AuthenticationError):
        respond(case.says(status=401))
    with raises(litellm.NotFoundError):
        respond(case.says(), model="openai/claude-nonsense-9")


@driver.feature("responses", "stored")
def _(case: Any) -> None:
    first = respond(case.says("noted"))
    respond(case.says(), previous_response_id=first.id)
    same(len(case.bodies()[-1]["messages"]), 3)


driver.main("litellm")
