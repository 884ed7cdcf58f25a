"""The order and fields of the events, and the response that they add up to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ccd_gateway.answer.lines import ARGUMENTS, CALL, END, REFUSED, TEXT, THINKING, Delta
from ccd_gateway.responses.events import ResponseEvents, complete
from ccd_gateway.responses.resource import new_response
from ccd_gateway.responses.schema import decode
from fakes.gateway_daemon import RESULT

ERROR = {"type": "server_error", "code": "upstream_error", "message": "upstream died", "param": None}
RESPONSE_KEYS = [
    *("id", "object", "created_at", "completed_at", "status", "background", "error", "incomplete_details"),
    *("instructions", "max_output_tokens", "max_tool_calls", "model", "output", "parallel_tool_calls"),
    *("previous_response_id", "prompt_cache_key", "reasoning", "safety_identifier", "service_tier", "store"),
    *("temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "presence_penalty"),
    *("frequency_penalty", "truncation", "usage", "metadata"),
]
MESSAGE_OPENS = ["output_item.added", "content_part.added"]
TEXT_CLOSES = ["output_text.done", "content_part.done"]


def text(piece: str) -> Delta:
    return Delta(TEXT, json.dumps(piece).encode(), 0)


def thinking(piece: str) -> Delta:
    return Delta(THINKING, json.dumps(piece).encode(), 0)


def call(name: str, call_id: str = "toolu_1") -> Delta:
    return Delta(CALL, b"", 0, 0, call_id, name)


def arguments(piece: str) -> Delta:
    return Delta(ARGUMENTS, json.dumps(piece).encode(), 0, 0)


def parsed(stream: bytes) -> list[dict[str, Any]]:
    """The events; the frame of each is checked."""
    assert b"\r" not in stream and stream.endswith(b"\n\n")
    found = []
    for block in stream[:-2].split(b"\n\n"):
        name, data = block.split(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def new_events(**fields: Any) -> ResponseEvents:
    request = decode(json.dumps({"model": "m", "input": "hi", **fields}).encode()).request
    response = new_response(request, created_at=1000, store=True)
    return ResponseEvents(response, with_summary=bool(request.reasoning and request.reasoning.summary))


def one_after_the_other(deltas: Sequence[Delta]) -> list[Delta]:
    """The pieces as of blocks that follow each other: each has its number, and each but the last its end."""
    found: list[Delta] = []
    number = 0
    for delta in deltas:
        last = found[-1].kind if found else delta.kind
        same = delta.kind == last != CALL or (delta.kind == ARGUMENTS and last == CALL)
        if found and not same:
            found.append(Delta(END, b"", number))
            number += 1
        found.append(delta._replace(block=number))
    return found


def run(*deltas: Delta, stop_reason: str = "end_turn", **fields: Any) -> list[dict[str, Any]]:
    return played(one_after_the_other(deltas), stop_reason=stop_reason, **fields)


def played(deltas: Sequence[Delta], *, stop_reason: str = "end_turn", **fields: Any) -> list[dict[str, Any]]:
    events = new_events(**fields)
    stream = events.begin() + b"".join(events.pieces([delta]) for delta in deltas)
    return parsed(stream + events.finish({**RESULT, "stop_reason": stop_reason}, 1001))  # type: ignore[typeddict-item]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_text() -> None:
    events = run(text("he"), text("llo “\n"))
    assert kinds(events) == [
        *("created", "in_progress", *MESSAGE_OPENS, "output_text.delta", "output_text.delta", *TEXT_CLOSES),
        *("output_item.done", "completed"),
    ]
    created, _, added, part, first, second, done, part_done, item_done, completed = events
    assert list(created["response"]) == RESPONSE_KEYS
    assert created["response"]["status"] == "in_progress"
    item_id = added["item"]["id"]
    assert added == {
        "type": "response.output_item.added",
        "sequence_number": 2,
        "output_index": 0,
        "item": {
            "id": item_id,
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        },
    }
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    assert all(place.items() <= event.items() for event in (part, first, second, done, part_done))
    assert part["part"] == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert (first["delta"], first["logprobs"], second["delta"]) == ("he", [], "llo “\n")
    whole = {"type": "output_text", "text": "hello “\n", "annotations": [], "logprobs": []}
    assert (done["text"], part_done["part"]) == ("hello “\n", whole)
    assert item_done["item"]["status"] == "completed" and item_done["item"]["content"] == [whole]
    response = completed["response"]
    assert list(response) == RESPONSE_KEYS
    assert (response["status"], response["completed_at"], response["output"]) == (
        "completed",
        1001,
        [item_done["item"]],
    )
    assert response["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 17,
    }


def test_blocks_may_take_turns() -> None:
    """The Messages API numbers its blocks, so that they could."""
    first, second = call("f", "a")._replace(block=1), call("g", "b")._replace(block=2, number=1)
    deltas = [
        text("he"),
        first,
        second,
        arguments('{"a"')._replace(block=1),
        text("llo"),
        arguments('{"b"')._replace(block=2, number=1),
        arguments(":1}")._replace(block=1),
        Delta(END, b"", 1),
        arguments(":2}")._replace(block=2, number=1),
        Delta(END, b"", 0),
        Delta(END, b"", 2),
        Delta(END, b"", 7),
    ]
    *events, completed = played(deltas, stop_reason="tool_use")
    message, one, two = completed["response"]["output"]
    assert message["content"][0]["text"] == "hello"
    assert [(item["name"], item["arguments"]) for item in (one, two)] == [("f", '{"a":1}'), ("g", '{"b":2}')]
    said: dict[str, str] = {}
    for event in events:
        if "delta" in event:
            said[event["item_id"]] = said.get(event["item_id"], "") + event["delta"]
            assert completed["response"]["output"][event["output_index"]]["id"] == event["item_id"]
    assert said == {message["id"]: "hello", one["id"]: '{"a":1}', two["id"]: '{"b":2}'}
    done = [event["item"]["id"] for event in events if event["type"] == "response.output_item.done"]
    assert sorted(done) == sorted(said)


def test_inputs_of_calls_stay_as_the_model_wrote_them() -> None:
    request = decode(json.dumps({"model": "m", "input": "hi"}).encode()).request
    content = [{"type": "tool_use", "id": "a", "name": "f", "input": {"n": 1}}]
    answer: Any = {**RESULT, "content": content, "text": "", "tool_inputs": ['{"n": 1.00}']}
    made = complete(
        new_response(request, created_at=1, store=True), answer, with_summary=False, completed_at=2
    )
    assert json.loads(msgspec.json.encode(made))["output"][0]["arguments"] == '{"n": 1.00}'


def test_reasoning_text_and_two_calls() -> None:
    events = run(
        *(thinking("h"), thinking("m"), text("so"), call("f"), arguments('{"a"'), arguments(": 1}")),
        *(call("g", "toolu_2"), arguments("{}")),
        reasoning={"summary": "auto"},
        stop_reason="tool_use",
    )
    assert kinds(events) == [
        *("created", "in_progress"),
        *("output_item.added", "reasoning_summary_part.added"),
        *("reasoning_summary_text.delta", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
        *(*MESSAGE_OPENS, "output_text.delta", *TEXT_CLOSES, "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done"),
        *("output_item.done", "completed"),
    ]
    reasoning, message, first, second = events[-1]["response"]["output"]
    assert reasoning == {
        "id": events[2]["item"]["id"],
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "content": [],
        "status": "completed",
    }
    assert message["content"][0]["text"] == "so"
    assert first == {
        "id": first["id"],
        "type": "function_call",
        "status": "completed",
        "call_id": "toolu_1",
        "name": "f",
        "arguments": '{"a": 1}',
    }
    assert second["arguments"] == "{}"
    assert [e["output_index"] for e in events if e["type"] == "response.output_item.done"] == [0, 1, 2, 3]
    done = next(e for e in events if e["type"] == "response.function_call_arguments.done")
    assert (done["name"], done["arguments"], done["item_id"]) == ("f", '{"a": 1}', first["id"])


def test_thinking_without_a_summary_asked_for_shows_nothing_of_it() -> None:
    events = run(thinking("secret"), text("so"), reasoning={"effort": "low"})
    assert kinds(events)[2:4] == ["output_item.added", "output_item.done"]
    assert "secret" not in json.dumps(events)
    assert events[-1]["response"]["output"][0]["summary"] == []


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert run(call("f"))[-1]["response"]["output"][0]["arguments"] == "{}"


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
def test_an_answer_that_is_cut_is_incomplete(reason: str) -> None:
    events = run(text("hal"), stop_reason=reason)
    assert kinds(events)[-2:] == ["output_item.done", "incomplete"]
    response = events[-1]["response"]
    assert response["status"] == "incomplete" and response["completed_at"] is None
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"
    assert response["usage"]["total_tokens"] == 17


def test_a_refusal_is_a_part_of_its_own() -> None:
    events = run(stop_reason="refusal")
    assert kinds(events)[2:] == [
        *(
            *MESSAGE_OPENS,
            "refusal.delta",
            "refusal.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ),
    ]
    assert events[3]["part"] == {"type": "refusal", "refusal": ""}
    assert (events[4]["delta"], events[5]["refusal"]) == (REFUSED, REFUSED)
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": REFUSED}]


def test_a_refusal_after_text_follows_it_in_the_same_message() -> None:
    events = run(text("well"), stop_reason="refusal")
    assert [part["type"] for part in events[-1]["response"]["output"][0]["content"]] == [
        "output_text",
        "refusal",
    ]
    delta = next(event for event in events if event["type"] == "response.refusal.delta")
    assert (delta["content_index"], delta["output_index"]) == (1, 0)
    assert kinds(events).count("output_item.added") == 1


def test_texts_around_a_call_are_messages_of_their_own() -> None:
    output = run(text("a"), call("f"), text("b"))[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "message"]
    assert output[2]["content"][0]["text"] == "b"


def test_an_error_has_both_forms() -> None:
    events = new_events()
    stream = events.begin() + events.pieces([text("half")]) + events.fail(ERROR)
    last = parsed(stream)[-1]
    assert last == {
        "type": "error",
        "sequence_number": 5,
        "code": "upstream_error",
        "message": "upstream died",
        "param": None,
        "error": ERROR,
    }


def test_a_whole_answer_is_the_response_of_its_stream() -> None:
    content = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "é\x00"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": [1]}},
    ]
    answer: Any = {**RESULT, "content": content, "text": "é", "stop_reason": "tool_use"}
    whole = complete(new_events().response, answer, with_summary=True, completed_at=1001)
    streamed = run(
        *(thinking("hm"), text("é"), text("\x00"), call("f"), arguments('{"a":[1]}')),
        reasoning={"summary": "auto"},
        stop_reason="tool_use",
    )[-1]["response"]

    from msgspec import json as fast

    plain = json.loads(fast.encode(whole))
    for item, other in zip(plain["output"], streamed["output"], strict=True):
        assert {**item, "id": ""} == {**other, "id": ""}
    assert plain["usage"] == streamed["usage"]


def test_what_was_asked_is_echoed() -> None:
    tool = {
        "type": "function",
        "name": "f",
        "parameters": {"type": "object"},
        "strict": False,
        "description": "d",
    }
    wanted = {
        "type": "json_schema",
        "name": "n",
        "schema": {"type": "object"},
        "strict": True,
        "description": None,
    }
    response = new_events(
        tools=[tool],
        text={"format": wanted, "verbosity": "low"},
        tool_choice={"type": "function", "name": "f"},
        user="u",
        metadata={"k": "v"},
        temperature=0.5,
        parallel_tool_calls=False,
        reasoning={"summary": "detailed"},
    ).response
    assert response["tools"] == [tool]
    assert response["text"] == {"format": wanted, "verbosity": "low"}
    assert response["tool_choice"] == {"type": "function", "name": "f"}
    assert (response["user"], response["metadata"], response["temperature"]) == ("u", {"k": "v"}, 0.5)
    assert response["parallel_tool_calls"] is False
    assert response["reasoning"] == {"effort": "medium", "summary": "detailed"}
    assert "user" not in new_events().response
