"""The body of a Messages request: which parameters there are, and what they may be.

Types and ranges of the parameters themselves are checked here; messages, tools and the like are only
looked at as far as ccd must understand them, because the model API is the one to judge them. Pure.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from ccd_gateway.errors import ApiError, bad_request
from ccd_gateway.surface.body import WrongField, decode_object, violation, whole_numbers
from ccd_gateway.surface.prompt import Blocks, Object, Prompt
from ccd_gateway.surface.values import changed


class MessagesRequest(Prompt, kw_only=True):
    """`POST /v1/messages`."""

    max_tokens: Annotated[int, Meta(ge=1)]
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    stop_sequences: list[str] | None = None
    metadata: Object | None = None
    service_tier: str | None = None
    container: str | Object | None = None
    inference_geo: str | None = None
    diagnostics: Object | None = None
    fallbacks: Any = None
    billing_policy: Object | None = None
    compaction: Object | None = None
    fallback_credit_token: Any = None
    thread: Object | None = None


class _RoleAndContent(Struct):
    role: str
    content: Blocks


_Request = TypeVar("_Request", bound=Prompt)
_ELSEWHERE = "POST /v1/chat/completions"
_OPENAIS = frozenset(
    ["image_url", "file", "input_text", "input_image", "input_file", "output_text", "refusal"]
)
_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")


def decode(body: bytes, kind: type[_Request]) -> _Request:
    """The request in a body.

    Raises:
        ApiError: 400, its message beginning with the parameter, as the Messages API's own do.
    """
    return _typed(decode_object(body), kind)


def decode_message(body: bytes) -> tuple[MessagesRequest, list[str]]:
    """Returns the request in a body, and the paths of values that the CLI changes on their way.

    Raises:
        ApiError: 400, likewise.
    """
    fields = decode_object(body)
    return _typed(fields, MessagesRequest), changed(body, fields)


def _typed(fields: Object, kind: type[_Request]) -> _Request:
    for name in fields:
        if name not in kind.__struct_fields__:
            raise bad_request(f"{name[:80]}: Extra inputs are not permitted")
    try:
        request = msgspec.convert(whole_numbers(fields), kind)
    except msgspec.ValidationError as error:
        raise _refusal(violation(error)) from error
    for index, message in enumerate(request.messages):
        _refuse_openais(message, index)
        _check_message(message, index)
    for index, tool in enumerate(request.tools or ()):
        if "function" in tool or tool.get("type") == "function":
            raise bad_request(f"tools.{index}: this is a tool in OpenAI's form; {_ELSEWHERE} takes it")
    return request


def _refuse_openais(message: Object, index: int) -> None:
    """What only OpenAI's API has is refused with the name of the route that takes it."""
    path = f"messages.{index}"
    if message.get("role") in ("tool", "developer", "function"):
        raise bad_request(f"{path}.role: {message['role']!r} is one of OpenAI's roles; {_ELSEWHERE} takes it")
    if message.get("tool_calls") or message.get("function_call"):
        raise bad_request(f"{path}.tool_calls: these are calls in OpenAI's form; {_ELSEWHERE} takes them")
    content = message.get("content")
    for number, block in enumerate(content if isinstance(content, list) else ()):
        if isinstance(block, dict) and block.get("type") in _OPENAIS:
            where = f"{path}.content.{number}.type"
            raise bad_request(f"{where}: {block['type']!r} is one of OpenAI's parts; {_ELSEWHERE} takes it")


def _check_message(message: Object, index: int) -> None:
    try:
        msgspec.convert(message, _RoleAndContent)
    except msgspec.ValidationError as error:
        raise _refusal(violation(error), f"messages.{index}") from error


def _refusal(wrong: WrongField, prefix: str = "") -> ApiError:
    what, path, missing = wrong
    if missing:
        path, what = f"{path}.{missing}".strip("."), "Field required"
    path = f"{prefix}.{_INDEX.sub(lambda number: '.' + number[1], path)}".strip(".")
    return bad_request(f"{path}: {what}" if path else what)
