"""Random histories with every oddity that clients are known for, over all surfaces, in the modes `full` and `replay`:
the model API gets a valid request that says the same, or the client a 400 that names the place.

Nothing runs here but what decides: from a request's bytes to the body that the API would get (`full`), or to the turns
that a process would be told (`replay`), and the offline API's rules as the judge.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccd_client.messages import chat_request
from ccd_daemon.claude.login import Mode
from ccd_daemon.request import body as request_body
from ccd_daemon.request import exact, replay, wish
from ccd_daemon.request.wish import GO_ON
from ccd_gateway.anthropic.request import Betas, to_params
from ccd_gateway.anthropic.schema import decode_message
from ccd_gateway.chat.schema import decode_chat
from ccd_gateway.chat.translate import to_call
from ccd_gateway.errors import ApiError
from ccd_gateway.responses.items import own_items, to_messages
from ccd_gateway.responses.job import call_of
from ccd_gateway.responses.schema import decode
from ccd_offline.errors import RefusedError
from ccd_offline.rules import validation
from ccd_protocol.chat.history import MISSING_RESULT, OPENING
from ccd_protocol.errors import Code, RpcError

Json = dict[str, Any]
OLD, NEW = "claude-sonnet-4-5", "claude-opus-5-5"
MODELS = [
    {"value": NEW, "resolvedModel": NEW, "supportsAdaptiveThinking": True, "supportedEffortLevels": ["low"]}
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
PNG = "data:image/png;base64,iVBORw0KGgo="
REPEATING = ["call_0", "call:0", "call.0", "call_0--2"]


# --- what is said, and how clients write it ---


@dataclass
class Call:
    id: str
    arguments: Any
    result: str | None = None


@dataclass
class Turn:
    """What one side says: texts, an image, calls; and how it is written."""

    role: str
    text: str
    form: str = "text"
    calls: list[Call] = field(default_factory=list)
    image: bool = False


NOTHING = st.sampled_from(["", " ", "\n\t"])
ARGUMENTS = st.sampled_from(
    [
        '{"a": 1}',
        "",
        "{}",
        '{"cut": "of',
        "null",
        "[1, 2]",
        '"x"',
        "7",
        '{"n": 9007199254740993}',
        '{"x": -0.0}',
    ]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Turn]:
    """Turns in any order of roles, calls with results in any order, or without; each text is said once."""
    found: list[Turn] = []
    for number in range(draw(st.integers(1, 6))):
        role = draw(st.sampled_from(["user", "assistant", "user"]))
        says_nothing = draw(st.integers(0, 3)) == 0
        text = draw(NOTHING) if says_nothing else f"say-{number}"
        turn = Turn(role, text, draw(st.sampled_from(["text", "parts", "other", "null"])))
        if role == "user":
            turn.image = draw(st.integers(0, 4)) == 0
        elif draw(st.booleans()):
            for index in range(draw(st.integers(1, 3))):
                unique = draw(st.booleans())
                call_id = f"toolu_{number}_{index}" if unique else draw(st.sampled_from(REPEATING))
                answered = draw(st.integers(0, 3)) > 0
                turn.calls.append(
                    Call(call_id, draw(ARGUMENTS), f"result-{number}-{index}" if answered else None)
                )
        for call in turn.calls:  # which of two with one id has a result nobody could tell
            if call.result is None and any(other.id == call.id and other.result for other in turn.calls):
                call.result = f"result-{number}-{turn.calls.index(call)}"
        found.append(turn)
    return found


def messages_of(draw_order: Any, turns: list[Turn], write: Any) -> list[Json]:
    """The turns as a client's messages: results after their calls, in any order, with whatever between them."""
    found: list[Json] = []
    for turn in turns:
        found += write(turn)
        results = [call for call in turn.calls if call.result is not None]
        same = {call.id for call in results if [c.id for c in turn.calls].count(call.id) > 1}
        if not same:  # the results of calls with one id are told apart by their order alone
            results = draw_order(results)
        for call in results:
            found.append({"role": "tool", "tool_call_id": call.id, "content": call.result})
        if turn.calls:
            found.append({"role": "user", "content": f"after-{id(turn)}"})
    return found


def chat_turn(turn: Turn) -> list[Json]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": "f", "arguments": call.arguments}}
        for call in turn.calls
    ]
    content: Any = turn.text
    if turn.form == "null" and not turn.text.strip():
        content = None
    elif turn.form in ("parts", "null"):
        content = [{"type": "text", "text": turn.text}]
    elif turn.form == "other":
        kind = "output_text" if turn.role == "assistant" else "input_text"
        content = [{"type": kind, "text": turn.text}]
    if turn.image:
        parts = content if isinstance(content, list) else [{"type": "text", "text": turn.text}]
        content = [*parts, {"type": "image_url", "image_url": {"url": PNG}}]
    return [{"role": turn.role, "content": content, **({"tool_calls": calls} if calls else {})}]


def item_turn(turn: Turn) -> list[Json]:
    """As the Responses API has it: calls are items of their own."""
    [message] = chat_turn(turn)
    message.pop("tool_calls", None)
    calls = [
        {"type": "function_call", "call_id": call.id, "name": "f", "arguments": call.arguments}
        for call in turn.calls
    ]
    return [message, *calls] if message["content"] is not None else calls or [{**message, "content": []}]


# --- to the call of each surface ---


def from_chat(messages: list[Json], model: str) -> tuple[Any, list[str]]:
    decoded = decode_chat(json.dumps({"model": model, "messages": messages, "tools": TOOLS}).encode())
    call = to_call(decoded.request)
    return call.params, call.ignored


def from_responses(messages: list[Json], model: str) -> tuple[Any, list[str]]:
    tools = [{"type": "function", **TOOLS[0]["function"]}]
    request = decode(json.dumps({"model": model, "input": messages, "tools": tools}).encode()).request
    ignored: list[str] = []
    own = own_items(request.input or "", ignored)
    call, named = call_of(request, to_messages([], own))
    return call.params, ignored + named


def from_client(messages: list[Json], model: str) -> tuple[Any, list[str]]:
    call = chat_request(messages, tools=TOOLS)
    return call.params, call.ignored


SURFACES = {"chat": from_chat, "responses": from_responses, "client": from_client}


# --- to what the API gets ---


def sent(params: Any, model: str, mode: Mode) -> tuple[Json, list[str]]:
    """The body of the API request, and what the daemon names."""
    chat = request_body.validate(params)
    exact.check(chat)
    chat, named = wish.understood(chat, "tenant")
    able = wish.abilities(MODELS, model)
    asked = wish.make(chat, model, able, mode=mode, thoughtless=False)
    if mode is Mode.REPLAY:
        turns = replay.talk(asked, "scope").turns
        messages = [{"role": turn.role, "content": turn.blocks} for turn in turns]
        found = {"messages": messages, "tools": asked.chat.get("tools", [])}
    else:
        found = json.loads(request_body.engine_body(asked.chat, asked.extra))
    return {"max_tokens": 1000, **found, "model": model}, [*named, *asked.ignored]


def texts(messages: list[Json], role: str) -> list[str]:
    """Every text that a side says, in order, without what ccd adds."""
    added = {OPENING, GO_ON}
    found = []
    for message in messages:
        if message["role"] == role:
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            found += [
                block["text"] for block in blocks if block["type"] == "text" and block["text"] not in added
            ]
    return [text for text in found if text.startswith("say-")]


def calls_and_results(messages: list[Json]) -> list[tuple[Any, str]]:
    """Of each call, in order, its input and what its result says."""
    blocks = [
        block
        for message in messages
        if not isinstance(message["content"], str)
        for block in message["content"]
    ]
    results = {
        block["tool_use_id"]: block.get("content") for block in blocks if block["type"] == "tool_result"
    }
    return [
        (block["input"], said_in(results[block["id"]])) for block in blocks if block["type"] == "tool_use"
    ]


def said_in(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content or ())


def wanted_input(arguments: str) -> Any:
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = arguments
    return value if isinstance(value, dict) else {} if value is None else {"arguments": value}


@pytest.mark.parametrize("mode", [Mode.FULL, Mode.REPLAY])
@pytest.mark.parametrize("model", [OLD, NEW])
@pytest.mark.parametrize("surface", SURFACES)
@settings(max_examples=60)
@given(data=st.data(), turns=conversations())
def test_the_api_gets_a_valid_request_that_says_the_same(
    surface: str, model: str, mode: Mode, data: st.DataObject, turns: list[Turn]
) -> None:
    write = item_turn if surface == "responses" else chat_turn
    messages = messages_of(lambda results: data.draw(st.permutations(results)), turns, write)
    root = "input" if surface == "responses" else "messages"
    try:
        params, ignored = SURFACES[surface](messages, model)
        body, named = sent(params, model, mode)
    except (RpcError, ApiError) as error:
        # Only what the user says last can be without sense, and they can say something else.
        param = error.data["param"] if isinstance(error, RpcError) else error.error["param"]
        assert str(param).startswith(root) and not turns[-1].text.strip(), (error, messages)
        return
    validation.check(body)
    for role in ("user", "assistant"):
        assert texts(body["messages"], role) == [t.text for t in turns if t.role == role and t.text.strip()]
    wanted = [
        (wanted_input(call.arguments), call.result or MISSING_RESULT) for turn in turns for call in turn.calls
    ]
    assert calls_and_results(body["messages"]) == wanted
    odd = [call for turn in turns for call in turn.calls if call.result is None]
    assert not odd or ignored, "what was made up is named"
    empty = [t for t in turns if t.role == "assistant" and not t.text.strip() and not t.calls]
    assert len([name for name in ignored if name.startswith(root)]) >= bool(empty)
    ends = [t for t in turns if t.text.strip() or t.calls or t.image][-1:]
    if ends and ends[0].role == "assistant" and not ends[0].calls and body["messages"][-1]["role"] == "user":
        assert "prefill" in named


@pytest.mark.parametrize("surface", SURFACES)
@settings(max_examples=60)
@given(data=st.data(), turns=conversations())
def test_what_was_changed_is_refused_by_strict_calls(
    surface: str, data: st.DataObject, turns: list[Turn]
) -> None:
    write = item_turn if surface == "responses" else chat_turn
    messages = messages_of(lambda results: data.draw(st.permutations(results)), turns, write)
    try:
        params, ignored = SURFACES[surface](messages, OLD)
    except (RpcError, ApiError):
        return
    if ignored and surface == "client":
        with pytest.raises(RpcError) as caught:
            chat_request(messages, tools=TOOLS, strict=True)
        assert caught.value.code is Code.BAD_PARAMS and caught.value.data["param"] == ignored[0]
    again, named = sent({**params, "strict": True}, OLD, Mode.FULL) if not ignored else ({}, [])
    assert not named and (ignored or again)


# --- exact calls ---


block = st.one_of(
    st.sampled_from(["", "hi"]).map(lambda text: {"type": "text", "text": text}),
    st.just({"type": "tool_use", "id": "t1", "name": "f", "input": {"n": 1}}),
    st.just({"type": "tool_result", "tool_use_id": "t1", "content": "done"}),
    st.just({"type": "thinking", "thinking": "hm", "signature": "c2ln"}),
    st.just({"type": "image_url", "image_url": {"url": PNG}}),
)
message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool"]),
        "content": st.sampled_from(["", "hi"]) | st.lists(block, max_size=3),
    }
)


@given(st.lists(message, min_size=1, max_size=5))
def test_exact_calls_are_never_touched(messages: list[Json]) -> None:
    """They reach the API as they came, which judges them itself, or are refused with their place."""
    given_ = {"model": OLD, "max_tokens": 100, "messages": messages}
    try:
        request, ignored = decode_message(json.dumps(given_).encode())
        body, named = sent(to_params(request, Betas([], [])), OLD, Mode.FULL)
    except (RpcError, ApiError) as error:
        text = error.message if isinstance(error, RpcError) else str(error.error["message"])
        assert text.startswith("messages") or "content" in text
        return
    assert (ignored, named) == ([], [])
    assert body["messages"] == messages
    try:
        validation.check(body)
    except RefusedError as refused:
        assert refused.status == 400
