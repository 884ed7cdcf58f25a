"""What becomes of each request parameter that is not simply passed on: nothing is dropped in silence.

A value that changes nothing is accepted. One that cannot be honoured, but without which the answer is still
an answer, is named in `X-CCD-Ignored`, or refused where the client asked for that with `X-CCD-Strict: true`.
One without which the answer would be of no use is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ccd_gateway.chat.schema import ChatBody
from ccd_gateway.errors import unsupported

Inert = Callable[[Any], bool]


def _empty(value: Any) -> bool:
    return not value


def _never(value: Any) -> bool:
    return False


def _one_of(*values: object) -> Inert:
    return lambda value: value in values


# name -> whether a value asks for nothing
_NOT_SUPPORTED: dict[str, Inert] = {
    "modalities": lambda value: "audio" not in value,
}
_NEVER_HONOURED: dict[str, Inert] = {
    "seed": _never,
    "logprobs": _empty,
    "top_logprobs": _empty,
    "logit_bias": _empty,
    "frequency_penalty": _empty,
    "presence_penalty": _empty,
    "service_tier": _one_of("auto", "default"),
    "verbosity": _one_of("medium"),
    "store": _empty,
    "audio": _never,
    "prediction": _never,
    "web_search_options": _never,
}


def refuse_unsupported(request: ChatBody) -> None:
    """Refuse the first parameter that asks for something which this gateway does not do.

    Raises:
        ApiError: 400 with the parameter's name.
    """
    for name, inert in _NOT_SUPPORTED.items():
        value = getattr(request, name)
        if value is not None and not inert(value):
            raise unsupported(name, f"'{name}'")


def ignored_names(request: ChatBody, unknown: Iterable[str]) -> list[str]:
    """The parameters that are given, ask for something, and have no effect."""
    names = [
        name
        for name, inert in _NEVER_HONOURED.items()
        if (value := getattr(request, name)) is not None and not inert(value)
    ]
    names += ["functions"] if request.functions and not request.functions_form else []
    if request.function_call is not None and not request.functions_form:
        names += [] if request.function_call in ("none", "auto") else ["function_call"]
    if request.temperature is not None and request.temperature > 1:
        names.append("temperature")
    names += [name for name in ("max_tokens", "max_completion_tokens") if getattr(request, name) == 0]
    names += [f"metadata.{key}" for key in request.metadata or () if key != "user_id"]
    if request.stream_options is not None and not request.stream:
        names.append("stream_options")
    elif request.stream_options is not None and request.stream_options.include_obfuscation:
        names.append("stream_options.include_obfuscation")
    return names + list(unknown)
