"""OpenAI's SDK as both of its APIs' proofs use it: blocking and async, checking every answer against its types."""

from typing import Any

import driver
import openai
from driver import CITY
from pydantic import BaseModel

OPTIONS: Any = {"timeout": 60, "max_retries": 0, "_strict_response_validation": True}
both = driver.variants(
    sync=lambda: openai.OpenAI(**OPTIONS), asynchronous=lambda: openai.AsyncOpenAI(**OPTIONS)
)
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "now", "parameters": CITY, "strict": True},
}
FLAT_TOOL: Any = {"type": "function", **TOOL["function"]}
NATIVE_TOOL = {"name": "get_weather", "description": "now", "input_schema": CITY, "strict": True}


class Place(BaseModel):
    city: str


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]
