"""The body of `POST /v1/responses`: its fields, their types, and what becomes of each.

Strict about types and ranges. A value that asks for nothing is accepted; one that can never be honoured is
named in `X-CCD-Ignored` (refused with `X-CCD-Strict: true`); one that would change what the answer is made
of is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct

from ccd_gateway.errors import ApiError, bad_request, unsupported
from ccd_gateway.surface.body import Effort, StreamOptions, decode_object, read_as, unknown_names
from ccd_gateway.surface.values import changed

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Summary = Literal["auto", "concise", "detailed"]
_MAX_METADATA = 16
_DEFAULT_EFFORT = "medium"


class Reasoning(Struct):
    """How much to think, and whether to show it."""

    effort: Effort | None = None
    summary: Summary | None = None
    generate_summary: Summary | None = None  # its name before

    @property
    def wanted(self) -> Summary | None:
        """The summary asked for, under either name."""
        return self.summary or self.generate_summary


class Text(Struct):
    """The answer's form."""

    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponsesRequest(Struct, kw_only=True):
    """`POST /v1/responses`. Null and absent mean the same."""

    model: Annotated[str, Meta(max_length=512)]  # empty: that of the response before
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: Id | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    background: bool | None = None

    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=1000)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    metadata: dict[str, Annotated[str, Meta(max_length=512)]] | None = None
    user: Annotated[str, Meta(max_length=4096)] | None = None
    safety_identifier: Annotated[str, Meta(max_length=4096)] | None = None

    include: list[Annotated[str, Meta(max_length=256)]] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    service_tier: Annotated[str, Meta(max_length=64)] | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=1024)] | None = None
    prompt_cache_retention: Annotated[str, Meta(max_length=64)] | None = None

    conversation: Any = None
    prompt: Any = None

    @property
    def effort(self) -> str | None:
        """How much to think: what was asked, and OpenAI's default where only a summary was asked."""
        if self.reasoning is None:
            return None
        return self.reasoning.effort or (_DEFAULT_EFFORT if self.reasoning.wanted else None)


FIELDS = frozenset(ResponsesRequest.__struct_fields__)


class DecodedResponse(NamedTuple):
    """A request, the parameters in it that have no effect, and all fields as they came."""

    request: ResponsesRequest
    ignored: list[str]
    fields: dict[str, Any]


def decode(body: bytes, *, model_needed: bool = True) -> DecodedResponse:
    """The request in a body.

    Args:
        body: JSON.
        model_needed: whether the model must be named; counting tokens needs none.

    Raises:
        ApiError: 400, naming the field where there is one.
    """
    fields = decode_object(body)
    goes_on = fields.get("previous_response_id") is not None
    if fields.get("model") is None and (goes_on or not model_needed):
        fields = {**fields, "model": "" if goes_on else "default"}
    request = read_as(fields, ResponsesRequest)
    _refuse(request)
    without_effect = _ignored(request) + unknown_names(fields, ResponsesRequest)
    return DecodedResponse(request, without_effect + changed(body, fields), fields)


def _refuse(request: ResponsesRequest) -> None:
    if not request.model and request.previous_response_id is None:
        raise bad_request("'model': expected a text that is not empty.", "model")
    for name in ("conversation", "prompt"):
        if getattr(request, name) is not None:
            raise unsupported(name, f"'{name}'")
    if request.input is None or not request.input:
        raise bad_request("'input': expected a text or a list of items that is not empty.", "input")
    if request.stream_options is not None and not request.stream:
        raise bad_request("'stream_options' is only allowed when 'stream' is on.", "stream_options")
    if request.background and request.store is False:
        raise bad_request("'background' needs 'store'.", "store")
    if len(request.metadata or ()) > _MAX_METADATA:
        raise bad_request(f"'metadata': expected at most {_MAX_METADATA} keys.", "metadata")
    _check_format(request)
    for index, tool in enumerate(request.tools or ()):
        _check_tool(tool, f"tools[{index}]")


def _check_format(request: ResponsesRequest) -> None:
    wanted = request.text.format if request.text else None
    if wanted is None:
        return
    kind = wanted.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise bad_request(
            "'text.format.type': expected text, json_schema or json_object.", "text.format.type"
        )
    if kind == "json_schema":
        if not isinstance(wanted.get("name"), str) or not wanted["name"]:
            raise bad_request("Missing required parameter: 'text.format.name'.", "text.format.name")
        if not isinstance(wanted.get("schema"), dict):
            raise bad_request("'text.format.schema': expected a JSON schema object.", "text.format.schema")
        if not isinstance(wanted.get("description"), str | None):
            raise bad_request("'text.format.description': expected a text.", "text.format.description")


def _check_tool(tool: dict[str, Any], path: str) -> None:
    kind = tool.get("type")
    if not isinstance(kind, str):
        raise bad_request(f"Missing required parameter: '{path}.type'.", f"{path}.type")
    if kind != "function":
        raise ApiError(
            400,
            f"The built-in tool {kind[:60]!r} is not supported by this gateway; it runs function tools only.",
            param=f"{path}.type",
            code="unsupported_tool",
        )
    if not isinstance(tool.get("name"), str):
        raise bad_request(f"Missing required parameter: '{path}.name'.", f"{path}.name")
    if not isinstance(tool.get("parameters"), dict | None):
        raise bad_request(f"'{path}.parameters': expected a JSON schema object.", f"{path}.parameters")
    if not isinstance(tool.get("description"), str | None):
        raise bad_request(f"'{path}.description': expected a text.", f"{path}.description")


def _ignored(request: ResponsesRequest) -> list[str]:
    """The parameters that are given, ask for something, and have no effect."""
    names = [f"include[{name}]" for name in request.include or () if name not in _INCLUDED_ANYWAY]
    for name, inert in _INERT.items():
        value = getattr(request, name)
        if value is not None and value not in inert:
            names.append(name)
    if request.temperature is not None and request.temperature > 1:
        names.append("temperature")
    if request.text is not None and request.text.verbosity not in (None, "medium"):
        names.append("text.verbosity")
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        names.append("stream_options.include_obfuscation")
    return names


# Input items are always listed with their images, so asking for those changes nothing.
_INCLUDED_ANYWAY = frozenset({"message.input_image.image_url"})
# name -> values that ask for nothing. `max_tool_calls` limits built-in tools only, of which there are none.
_INERT: dict[str, tuple[object, ...]] = {
    "truncation": ("disabled",),
    "top_logprobs": (0,),
    "service_tier": ("auto", "default"),
    "prompt_cache_retention": (),
}
