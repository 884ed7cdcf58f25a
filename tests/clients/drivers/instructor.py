"""Instructor: answers as Pydantic models, in each of its modes."""

from typing import Any

import driver
import instructor
import openai
from driver import MODEL, ROME, contains, raises, same
from instructor.core import InstructorRetryException
from pydantic import BaseModel


class Place(BaseModel):
    city: str


def fields(found: Any) -> dict[str, Any]:
    return dict(found.model_dump())


def ask(mode: Any, prompt: str) -> Any:
    """The answer to one prompt, as a `Place` (or a subclass that Instructor made of it)."""
    with openai.OpenAI(max_retries=0, timeout=60) as client:
        made = instructor.from_openai(client, mode=mode).chat.completions
        turn: Any = [{"role": "user", "content": prompt}]
        return made.create(model=MODEL, messages=turn, response_model=Place, max_retries=1)


@driver.feature("chat", "tool")
@driver.feature("chat", "tool_choice")
def _(case: Any) -> None:
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT):
        same(fields(ask(mode, case.calls(ROME, tool="Place"))), ROME)
        body = case.bodies()[-1]
        same(body["tool_choice"], {"type": "tool", "name": "Place"})
        same(body["tools"][0]["input_schema"]["required"], ["city"])


@driver.feature("chat", "json_schema")
def _(case: Any) -> None:
    same(fields(ask(instructor.Mode.JSON_SCHEMA, case.says('{"city": "Rome"}'))), ROME)
    same(case.body()["output_config"]["format"]["schema"]["required"], ["city"])


@driver.feature("chat", "json_object")
def _(case: Any) -> None:
    driver.script({"text": '{"city": "Rome"}'}, contains=case.mark)
    same(fields(ask(instructor.Mode.JSON, case.mark)), ROME)


@driver.feature("chat", "stream")
def _(case: Any) -> None:
    with openai.OpenAI(max_retries=0, timeout=60) as client:
        made = instructor.from_openai(client, mode=instructor.Mode.TOOLS).chat.completions
        turn: Any = [{"role": "user", "content": case.calls(ROME, tool="PartialPlace")}]
        partial = list(made.create_partial(model=MODEL, messages=turn, response_model=Place))
    same(partial[-1].city, "Rome")


@driver.feature("chat", "errors")
def _(case: Any) -> None:
    with raises((InstructorRetryException, openai.AuthenticationError)) as caught:
        ask(instructor.Mode.TOOLS, case.says(status=401))
    contains(caught[0], "401")


driver.main("instructor")
