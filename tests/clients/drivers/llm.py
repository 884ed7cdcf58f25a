"""The `llm` command's library, with its OpenAI model class pointed at another address."""

import base64
from typing import Any

import driver
import llm
from driver import KEY, MODEL, OPENAI_URL, PNG, ROME, contains, raises, same
from llm.default_plugins.openai_models import Chat


def model(name: str = MODEL) -> Any:
    """The model, with all that it can."""
    made = Chat(
        model_id=f"ccd/{name}",
        model_name=name,
        api_base=OPENAI_URL,
        supports_tools=True,
        supports_schema=True,
        vision=True,
    )
    made.key = KEY
    return made


@driver.feature("chat", "plain")
def _(case: Any) -> None:
    contains(model().prompt(case.says(), stream=False).text(), case.mark)


@driver.feature("chat", "stream")
def _(case: Any) -> None:
    same("".join(model().prompt(case.says(deltas=5))), "w1 w2 w3 w4 w5")


@driver.feature("chat", "usage")
def _(case: Any) -> None:
    for stream in (True, False):
        answer = model().prompt(case.says("x", usage={"input_tokens": 3, "output_tokens": 7}), stream=stream)
        answer.text()
        same((answer.usage().input, answer.usage().output), (3, 7))


@driver.feature("chat", "system")
def _(case: Any) -> None:
    model().prompt(case.says(), system="Be brief.", stream=False).text()
    same([block["text"] for block in case.body()["system"]], ["Be brief."])


@driver.feature("chat", "turns")
def _(case: Any) -> None:
    conversation = model().conversation()
    conversation.prompt(case.says("two"), stream=False).text()
    conversation.prompt(case.says(), stream=False).text()
    same(len(case.bodies()[-1]["messages"]), 3)


@driver.feature("chat", "tool_loop")
def _(case: Any) -> None:
    def get_weather(city: str) -> str:
        """Say how the weather is."""
        return f"it is sunny in {city}"

    for stream in (True, False):
        chain = model().chain(case.calls(ROME), tools=[get_weather], stream=stream)
        contains(chain.text(), "it is sunny in Rome")


@driver.feature("chat", "json_schema")
def _(case: Any) -> None:
    answer = model().prompt(case.says('{"city": "Rome"}'), schema=driver.CITY, stream=False)
    same(answer.text(), '{"city": "Rome"}')
    same(case.body()["output_config"]["format"]["schema"]["required"], ["city"])


@driver.feature("chat", "images")
def _(case: Any) -> None:
    image = llm.Attachment(type="image/png", content=base64.b64decode(PNG))
    model().prompt(case.says(), attachments=[image], stream=False).text()
    same([block["type"] for block in case.body()["messages"][0]["content"]], ["text", "image"])


@driver.feature("chat", "sampling")
def _(case: Any) -> None:
    model().prompt(case.says(), temperature=0.25, max_tokens=77, stream=False).text()
    same((case.body()["temperature"], case.body()["max_tokens"]), (0.25, 77))


@driver.feature("chat", "broken")
def _(case: Any) -> None:
    with raises(Exception, "broke off"):
        model().prompt(case.breaking()).text()


@driver.feature("chat", "errors")
def _(case: Any) -> None:
    with raises(Exception, "claude-nonsense-9"):
        model("claude-nonsense-9").prompt(case.says(), stream=False).text()


driver.main("llm")
