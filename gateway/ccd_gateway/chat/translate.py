"""Between the OpenAI API and the wire, without I/O: requests to call parameters, results to answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ccd_client.messages import ChatRequest as Call
from ccd_client.messages import chat_request
from ccd_client.tools import legacy_choice, legacy_tools
from ccd_gateway.answer.lines import REFUSED
from ccd_gateway.chat.schema import ChatBody
from ccd_gateway.errors import bad_request
from ccd_gateway.surface.given import end_user, given
from ccd_gateway.surface.refusals import renamed
from ccd_protocol.chat.parameters import Api, names_in
from ccd_protocol.errors import RpcError
from ccd_protocol.methods import ChatAnswer, Usage

_MAX_STOPS = 64

# The daemon's names for what is no parameter of a call of its own: the one that an OpenAI client used.
_FURTHER_NAMES = {"output_config": "response_format", "prefill": "messages"}
_CLIENTS_PATHS = [
    (re.compile(r"tools\[(\d+)\]\.input_schema"), r"tools[\1].function.parameters"),
    (re.compile(r"tools\[(\d+)\]\.(?=\w)(?!function)"), r"tools[\1].function."),
    (re.compile(r"format\.schema|output_config\.format\.schema"), "response_format.json_schema.schema"),
    (re.compile(r"metadata\b.*"), "user"),
    *(
        (re.compile(rf"{name}\b"), to)
        for name, to in {**names_in(Api.CHAT), **_FURTHER_NAMES}.items()
        if name != to
    ),
]
_FUNCTIONS_PATHS = [
    (re.compile(r"tools\[(\d+)\](?:\.function)?\.(name|parameters|input_schema)"), r"functions[\1].\2"),
    (re.compile(r"tools\b"), "functions"),
    (re.compile(r"tool_choice\b.*"), "function_call"),
    *_CLIENTS_PATHS,
]
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def to_call(request: ChatBody) -> Call:
    """The parameters of the call, but for profile and model.

    Raises:
        RpcError: BAD_PARAMS, naming what is wrong with messages or tools.
        ApiError: 400, naming another parameter.
    """
    tools, parallel = request.tools, request.parallel_tool_calls
    choice: Any = request.tool_choice
    if request.functions_form:
        tools, choice, parallel = legacy_tools(request.functions), legacy_choice(request.function_call), False
    return chat_request(
        request.messages,
        stop=_stops(request.stop),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=request.response_format,
        **{**given(Api.CHAT, request), **_fitted(request)},
    )


def _fitted(request: ChatBody) -> dict[str, Any]:
    """The parameters whose values mean something else here than in OpenAI's API."""
    return {
        "max_tokens": request.max_completion_tokens or request.max_tokens or None,
        "temperature": None if request.temperature is None else min(request.temperature, 1.0),
        "top_p": None if request.top_p == 1 else request.top_p,  # some models refuse it beside a temperature
        **end_user(request.user, request.safety_identifier, request.metadata),
        "conversation_id": request.conversation_id or None,
        "service_tier": "standard_only" if request.service_tier == "default" else None,
    }


def _stops(stop: str | list[str] | None) -> list[str] | None:
    stops = [stop] if isinstance(stop, str) else stop or []
    if len(stops) > _MAX_STOPS:
        raise bad_request(f"'stop': expected at most {_MAX_STOPS} texts.", "stop")
    return stops or None


def in_clients_words(
    error: RpcError, *, functions_form: bool = False, place: Callable[[str], str] = str
) -> RpcError:
    """A refusal of the daemon's, with the parameter under the name that an OpenAI client used.

    Args:
        error: its `param` is the daemon's name, and its message may begin with that, or with the model API's.
        functions_form: the client used `functions`.
        place: where the client finds what the daemon calls `messages[1]`.
    """
    return renamed(error, lambda param: _clients_name(place(param), functions_form=functions_form))


def _clients_name(param: str, *, functions_form: bool = False) -> str:
    for pattern, name in _FUNCTIONS_PATHS if functions_form else _CLIENTS_PATHS:
        if (found := pattern.match(param)) is not None:
            return found.expand(name) + param[found.end() :]
    return param


def finish_reason(result: Mapping[str, Any], *, functions_form: bool = False) -> str:
    """OpenAI's word for why the turn ended."""
    word = _FINISH.get(result.get("stop_reason") or "", "stop")
    return "function_call" if functions_form and word == "tool_calls" else word


def summed(results: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The token counts of several answers together."""
    counts: dict[str, int] = {}
    for result in results:
        for name, count in (result.get("usage") or {}).items():
            if isinstance(count, int):
                counts[name] = counts.get(name, 0) + count
    return counts


def usage(counts: Usage | Mapping[str, int]) -> dict[str, Any]:
    """OpenAI's usage; input that was read from or written to the cache counts as prompt."""
    cached = counts.get("cache_read_input_tokens") or 0
    written = counts.get("cache_creation_input_tokens") or 0
    prompt = (counts.get("input_tokens") or 0) + cached + written
    completion = counts.get("output_tokens") or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": counts.get("thinking_tokens") or 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def completion(
    answers: Sequence[ChatAnswer],
    *,
    completion_id: str,
    created: int,
    model: str,
    fingerprint: str,
    functions_form: bool = False,
) -> dict[str, Any]:
    """The body of an answer that is not streamed, one choice for each."""
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": fingerprint,
        "choices": [
            {
                "index": index,
                "message": _message(answer, functions_form=functions_form),
                "logprobs": None,
                "finish_reason": finish_reason(answer, functions_form=functions_form),
            }
            for index, answer in enumerate(answers)
        ],
        "usage": usage(summed(answers)),
    }


def _message(answer: ChatAnswer, *, functions_form: bool) -> dict[str, Any]:
    text, calls = answer["text"], _tool_calls(answer["content"], answer.get("tool_inputs", ()))
    refused = answer["stop_reason"] == "refusal"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused or (calls and not text) else text,
        "refusal": (text or REFUSED) if refused else None,
        "annotations": [],
    }
    if calls and functions_form:
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    thinking = "".join(
        block.get("thinking", "") for block in answer["content"] if block.get("type") == "thinking"
    )
    if thinking:
        message["reasoning_content"] = message["reasoning"] = thinking
    return message


def _tool_calls(content: Sequence[Mapping[str, Any]], inputs: Sequence[str]) -> list[dict[str, Any]]:
    written = iter(inputs)
    return [
        {
            "id": block["id"],
            "type": "function",
            "function": {
                "name": block["name"],
                "arguments": next(written, None) or msgspec.json.encode(block.get("input") or {}).decode(),
            },
        }
        for block in content
        if block.get("type") == "tool_use"
    ]


def ignored_by_daemon(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Parameters that the daemon could not honour, under the names that an OpenAI client used."""
    names = (name for result in results for name in result.get("ignored") or ())
    return list(dict.fromkeys(map(_clients_name, names)))
