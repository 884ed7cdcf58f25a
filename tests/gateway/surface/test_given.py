"""Every parameter in every surface: it can be given under the name that the table says, and reaches the call."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ccd_client._calls.options import ChatOptions
from ccd_gateway.anthropic.request import Betas, to_params
from ccd_gateway.anthropic.schema import MessagesRequest
from ccd_gateway.anthropic.schema import decode as decode_message
from ccd_gateway.chat.schema import ChatBody, decode_chat
from ccd_gateway.chat.translate import to_call
from ccd_gateway.responses.items import own_items, to_messages
from ccd_gateway.responses.job import call_of
from ccd_gateway.responses.schema import ResponsesRequest
from ccd_gateway.responses.schema import decode as decode_response
from ccd_gateway.surface.given import end_user, given, in_words_of
from ccd_protocol.chat.parameters import PARAMETERS, Api, names_in

TYPES: dict[Api, type[msgspec.Struct]] = {
    Api.CHAT: ChatBody,
    Api.RESPONSES: ResponsesRequest,
    Api.MESSAGES: MessagesRequest,
}
HTTP = [(surface, name) for surface in TYPES for name in names_in(surface)]
USER = [{"role": "user", "content": "hi"}]
CHAT_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
#: A value for each parameter as the API writes it, and what must stand beside it.
VALUES: dict[str, Any] = {
    "max_tokens": 77,
    "temperature": 0.25,
    "top_p": 0.5,
    "top_k": 7,
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u-1"},
    "service_tier": "default",
    "effort": "low",
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "system": "be brief",
    "conversation_id": "c-1",
    "format": {"type": "json_object"},
}
OWN: dict[tuple[Api, str], Any] = {
    (Api.CHAT, "messages"): USER,
    (Api.CHAT, "metadata"): "u-1",
    (Api.CHAT, "tools"): [CHAT_TOOL],
    (Api.CHAT, "tool_choice"): "required",
    (Api.RESPONSES, "messages"): "hi",
    (Api.RESPONSES, "metadata"): "u-1",
    (Api.RESPONSES, "tools"): [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    (Api.RESPONSES, "tool_choice"): "required",
    (Api.MESSAGES, "messages"): USER,
    (Api.MESSAGES, "tools"): [{"name": "f", "input_schema": {"type": "object"}}],
    (Api.MESSAGES, "tool_choice"): {"type": "any"},
}


def value_of(surface: Api, name: str) -> Any:
    return OWN.get((surface, name), VALUES.get(name))


def body(surface: Api, *names: str) -> bytes:
    """A request with these parameters, each under the API's name."""
    fields: dict[str, Any] = {"model": "m"}
    for name in ("messages", *(("max_tokens",) if surface is Api.MESSAGES else ()), *names):
        *outer, last = (PARAMETERS[name].called(surface) or "").split(".")
        place = fields
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value_of(surface, name)
    return json.dumps(fields).encode()


def call(surface: Api, *names: str) -> dict[str, Any]:
    """The parameters of the call that a surface makes of a request."""
    sent = body(surface, *names)
    if surface is Api.CHAT:
        return dict(to_call(decode_chat(sent).request).params)
    if surface is Api.RESPONSES:
        request = decode_response(sent).request
        return dict(call_of(request, to_messages([], own_items(request.input or "", [])))[0].params)
    return to_params(decode_message(sent, MessagesRequest), Betas([], []))


@pytest.mark.parametrize(("surface", "name"), HTTP)
def test_it_has_a_field_in_the_request(surface: Api, name: str) -> None:
    first = (PARAMETERS[name].called(surface) or "").partition(".")[0]
    assert first in TYPES[surface].__struct_fields__


@pytest.mark.parametrize(("surface", "name"), [pair for pair in HTTP if pair[1] not in ("messages", "model")])
def test_it_reaches_the_call(surface: Api, name: str) -> None:
    beside = ("tools",) if name == "tool_choice" else ()
    before, after = call(surface, *beside), call(surface, *beside, name)
    assert name in after
    assert before.get(name) != after[name] or name == "max_tokens"
    assert after.keys() - before.keys() <= {name}
    if name in VALUES and name != "service_tier":
        assert after[name] == VALUES[name]


@pytest.mark.parametrize("surface", list(TYPES))
def test_what_a_surface_does_not_have_cannot_be_given_there(surface: Api) -> None:
    """Profile, strictness and the like come from headers; nothing else gets to the daemon from a body."""
    theirs = names_in(surface)
    reached = set(call(surface, *[name for name in theirs if name not in ("messages", "model", "thinking")]))
    assert reached <= theirs.keys() | {"exact"}


def test_the_clients_options_are_those_of_the_table() -> None:
    """And what OpenAI has besides, and what is about the call rather than the chat."""
    further = {"parallel_tool_calls", "reasoning_effort", "extra", "timeout_s"}
    assert set(ChatOptions.__annotations__) - further == set(names_in(Api.CLIENT).values())


def test_names() -> None:
    assert in_words_of(Api.CHAT, ["stop_sequences", "effort", "tools.strict", "effort"]) == [
        *("stop", "reasoning_effort", "tools.strict"),
    ]
    assert in_words_of(Api.RESPONSES, ["max_tokens", "metadata"]) == ["max_output_tokens", "user"]


def test_the_end_user() -> None:
    assert end_user(None, None, {"user_id": "m"}) == {"metadata": {"user_id": "m"}}
    assert end_user(None, "i", {"user_id": "m"}) == {"metadata": {"user_id": "i"}}
    assert end_user("u", "i", None) == {"metadata": {"user_id": "u"}}
    assert end_user(None, "", {}) == {"metadata": None}


def test_absent_is_not_given() -> None:
    request = decode_chat(body(Api.CHAT)).request
    assert given(Api.CHAT, request) == {}
