"""The body of a chat completion request: its fields and their types.

Strict about types and ranges; what becomes of each value is decided in `parameters` and `translate`.
Fields that are only ever refused or ignored are typed too, as far as the difference between "absent"
and "wrong" needs it.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from ccd_gateway.surface.body import Effort, StreamOptions, decode_object, read_as, unknown_names
from ccd_gateway.surface.values import changed

Penalty = Annotated[float, Meta(ge=-2, le=2)]


class ChatBody(Struct, kw_only=True):
    """`POST /v1/chat/completions`. Null and absent mean the same."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    user: Annotated[str, Meta(max_length=4096)] | None = None
    safety_identifier: Annotated[str, Meta(max_length=4096)] | None = None
    metadata: dict[str, str] | None = None

    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    thinking: dict[str, Any] | None = None
    store: bool | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Effort | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    conversation_id: str | None = None

    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, float] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    service_tier: str | None = None
    verbosity: str | None = None

    @property
    def functions_form(self) -> bool:
        """Whether it uses the deprecated `functions`, which count only where there are no `tools`."""
        return bool(self.functions) and not self.tools


FIELDS = frozenset(ChatBody.__struct_fields__)


class DecodedChat(NamedTuple):
    """A request, the names of the fields in it that the API does not have, and all fields as they came."""

    request: ChatBody
    unknown: list[str]
    fields: dict[str, Any]


def decode_chat(body: bytes) -> DecodedChat:
    """The request in a body.

    Raises:
        ApiError: 400, naming the field where there is one.
    """
    fields = decode_object(body)
    request = read_as(fields, ChatBody)
    return DecodedChat(request, unknown_names(fields, ChatBody) + changed(body, fields), fields)
