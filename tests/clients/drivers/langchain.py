"""LangChain: its chat models for OpenAI's two APIs and for Anthropic's."""

from typing import Any

import anthropic
import driver
import openai
from driver import CITY, KEY, MODEL, OSLO, PDF, PNG, ROME, contains, raises, same
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Place(BaseModel):
    """Where something is."""

    city: str


@tool
def get_weather(city: str) -> str:
    """Say how the weather is."""
    return f"it is sunny in {city}"


def model(api: str, **fields: Any) -> Any:
    """The chat model for an API."""
    fields = {"model": MODEL, "max_retries": 0, "timeout": 60, **fields}
    if api == "messages":
        return ChatAnthropic(base_url=driver.ANTHROPIC_URL, api_key=KEY, **{"max_tokens": 500, **fields})
    return ChatOpenAI(base_url=driver.OPENAI_URL, api_key=KEY, use_responses_api=api == "responses", **fields)


each = driver.across("chat", "responses", "messages")


@each("plain")
def _(case: Any, api: str) -> None:
    contains(model(api).invoke(case.says()).text, case.mark)


@each("stream")
def _(case: Any, api: str) -> None:
    chunks = list(model(api).stream(case.says(deltas=5)))
    same("".join(chunk.text for chunk in chunks), "w1 w2 w3 w4 w5")


@each("usage")
def _(case: Any, api: str) -> None:
    counts = {"input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 7}
    usage = model(api).invoke(case.says("x", usage=counts)).usage_metadata
    same((usage["input_tokens"], usage["output_tokens"]), (43, 7))
    same(usage["input_token_details"]["cache_read"], 40)
    extra = {"stream_usage": True} if api == "chat" else {}
    whole = None
    for chunk in model(api, **extra).stream(case.says("x", usage=counts)):
        whole = chunk if whole is None else whole + chunk
    same(whole.usage_metadata["output_tokens"], 7)


@each("system")
def _(case: Any, api: str) -> None:
    model(api).invoke([SystemMessage("Be brief.\n  «Exactly» so."), HumanMessage(case.says())])
    system = case.body()["system"]
    same([block["text"] for block in system], ["Be brief.\n  «Exactly» so."])


@each("turns")
def _(case: Any, api: str) -> None:
    model(api).invoke([HumanMessage("one"), AIMessage("two"), HumanMessage(case.says())])
    same([message["role"] for message in case.body()["messages"]], ["user", "assistant", "user"])


@each("tool")
def _(case: Any, api: str) -> None:
    answer = model(api).bind_tools([get_weather]).invoke(case.calls(ROME))
    same([(call["name"], call["args"]) for call in answer.tool_calls], [("get_weather", ROME)])
    (sent,) = case.body()["tools"]
    same((sent["name"], sent["input_schema"]["required"]), ("get_weather", ["city"]))


@each("tools_parallel")
def _(case: Any, api: str) -> None:
    answer = model(api).bind_tools([get_weather]).invoke(case.calls(ROME, OSLO))
    same([call["args"] for call in answer.tool_calls], [ROME, OSLO])


@each("tools_streamed")
def _(case: Any, api: str) -> None:
    whole = None
    for chunk in model(api).bind_tools([get_weather]).stream(case.calls(ROME, OSLO)):
        whole = chunk if whole is None else whole + chunk
    same([call["args"] for call in whole.tool_calls], [ROME, OSLO])


@each("tool_loop")
def _(case: Any, api: str) -> None:
    bound = model(api).bind_tools([get_weather])
    history: list[Any] = [HumanMessage(case.calls(ROME, OSLO))]
    history.append(bound.invoke(history))
    for call in history[-1].tool_calls:
        history.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))
    contains(bound.invoke(history).text, "it is sunny in Oslo")
    same([block["type"] for block in case.bodies()[-1]["messages"][-1]["content"]], ["tool_result"] * 2)


@each("tool_choice")
def _(case: Any, api: str) -> None:
    for choice, received in (("any", "any"), ("get_weather", "tool")):
        model(api).bind_tools([get_weather], tool_choice=choice).invoke(case.says())
        same(case.bodies()[-1]["tool_choice"]["type"], received)


@each("json_schema")
def _(case: Any, api: str) -> None:
    structured = model(api).with_structured_output(Place, method="json_schema")
    same(structured.invoke(case.says('{"city": "Rome"}')), Place(city="Rome"))
    same(case.body()["output_config"]["format"]["schema"]["required"], ["city"])


@each("json_object", "chat", "responses")
def _(case: Any, api: str) -> None:
    structured = model(api).with_structured_output(CITY, method="json_mode")
    same(structured.invoke(case.says('{"city": "Rome"}')), ROME)


@each("reasoning", "responses", "messages")
def _(case: Any, api: str) -> None:
    asked: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 3000}
    if api == "responses":
        asked = {"reasoning": {"effort": "low", "summary": "auto"}}
    answer = model(api, **asked).invoke(case.says("done", thinking="let me think"))
    same(
        [block["reasoning"] for block in answer.content_blocks if block["type"] == "reasoning"],
        ["let me think"],
    )


@each("images")
def _(case: Any, api: str) -> None:
    image = {"type": "image", "base64": PNG, "mime_type": "image/png"}
    model(api).invoke([HumanMessage(content_blocks=[image, {"type": "text", "text": case.says()}])])
    same(case.body()["messages"][0]["content"][0]["source"]["data"], PNG)


@each("files")
def _(case: Any, api: str) -> None:
    file = {"type": "file", "base64": PDF, "mime_type": "application/pdf", "extras": {"filename": "a.pdf"}}
    if api == "messages":
        del file["extras"]
    model(api).invoke([HumanMessage(content_blocks=[file, {"type": "text", "text": case.says()}])])
    same(case.body()["messages"][0]["content"][0]["source"]["data"], PDF)


@each("sampling")
def _(case: Any, api: str) -> None:
    model(api, temperature=0.25, max_tokens=77).invoke(case.says())
    same((case.body()["temperature"], case.body()["max_tokens"]), (0.25, 77))


@each("stop", "chat", "messages")
def _(case: Any, api: str) -> None:
    same(model(api).invoke(case.says("one END two"), stop=["END"]).text, "one ")


@each("length")
def _(case: Any, api: str) -> None:
    answer = model(api, max_tokens=16).invoke(case.says("word " * 100))
    contains(answer.response_metadata, "length" if api == "chat" else "max_")


@each("refusal")
def _(case: Any, api: str) -> None:
    answer = model(api).invoke(case.says("I will not.", stop_reason="refusal"))
    contains((answer.additional_kwargs, answer.content, answer.response_metadata), "refusal")


@each("broken")
def _(case: Any, api: str) -> None:
    kind = anthropic.APIError if api == "messages" else openai.APIError
    with raises(kind, "broke off"):
        list(model(api).stream(case.breaking()))


@each("errors")
def _(case: Any, api: str) -> None:
    kinds: Any = anthropic if api == "messages" else openai
    with raises(kinds.AuthenticationError):
        model(api).invoke(case.says(status=401))
    with raises(kinds.NotFoundError):
        model(api, model="claude-nonsense-9").invoke(case.says())
    with raises(kinds.RateLimitError):
        model(api).invoke(case.says(status=429, retry_after_s=20))


@each("cancel")
def _(case: Any, api: str) -> None:
    stream = model(api).stream(case.says("a b c d", deltas=4, hang_after_deltas=2))
    for chunk in stream:
        if chunk.text:
            break
    stream.close()
    case.wait_interrupted()


@each("conversation", "chat")
def _(case: Any, api: str) -> None:
    bound = model(api, extra_body={"conversation_id": case.mark.strip("<>")})
    bound.invoke(case.says("noted"))
    bound.invoke(case.says())
    same(len(case.bodies()[-1]["messages"]), 3)


@each("stored", "responses")
def _(case: Any, api: str) -> None:
    first = model(api).invoke(case.says("noted"))
    model(api).invoke(case.says(), previous_response_id=first.response_metadata["id"])
    same(len(case.bodies()[-1]["messages"]), 3)


@each("counting", "messages")
def _(case: Any, api: str) -> None:
    same(model(api).get_num_tokens_from_messages([HumanMessage("hello " * 100)]) > 50, True)


@each("retry_after", "chat")
def _(case: Any, api: str) -> None:
    same(model(api, max_retries=1).invoke(case.later("at last")).text, f"{case.mark} at last")
    case.waited()


driver.main("langchain-openai", "langchain-anthropic", "langchain-core")
