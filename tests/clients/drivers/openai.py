"""OpenAI's Python SDK, blocking and async, in the mode in which it checks every answer against its types."""

import driver
import openai_chat  # noqa: F401 - importing it marks its features
import openai_responses  # noqa: F401
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase

driver.fact("chat parameters", [*CompletionCreateParamsBase.__annotations__, "stream"])
driver.fact("responses parameters", [*ResponseCreateParamsBase.__annotations__, "stream"])
driver.main("openai")
