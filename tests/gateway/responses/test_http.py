"""`/v1/responses` over HTTP, with a stand-in for the daemon."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import Call, Daemon, Gate, line, start, text, thinking
from fakes.gateway_process import Answer, Gateway, read_until
from fakes.stack import wait_until

FIXTURE_KEYS = {
    *("id", "object", "created_at", "completed_at", "status", "background", "error", "incomplete_details"),
    *("instructions", "max_output_tokens", "max_tool_calls", "model", "output", "parallel_tool_calls"),
    *("previous_response_id", "prompt_cache_key", "reasoning", "safety_identifier", "service_tier", "store"),
    *("temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "presence_penalty"),
    *("frequency_penalty", "truncation", "usage", "metadata"),
}
FILE = "responses.sqlite3"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUB"
    "AScY42YAAAAASUVORK5CYII="
)
TOOL = {
    "type": "function",
    "name": "f",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


def ask(gateway: Gateway, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    return gateway.request("POST", "/v1/responses", {"model": "sonnet", "input": "hi", **fields}, headers)


def sse(body: bytes) -> list[dict[str, Any]]:
    assert b"\r" not in body
    blocks = [block for block in body.split(b"\n\n") if block and not block.startswith(b":")]
    events = [json.loads(block.split(b"\ndata: ", 1)[1]) for block in blocks]
    assert [block.split(b"\n")[0] for block in blocks] == [b"event: " + e["type"].encode() for e in events]
    return events


def tool_use(name: str = "f", *pieces: str, call_id: str = "toolu_1", index: int = 1) -> bytes:
    block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    lines = line({"type": "content_block_start", "index": index, "content_block": block})
    for piece in pieces:
        delta = {"type": "input_json_delta", "partial_json": piece}
        lines += line({"type": "content_block_delta", "index": index, "delta": delta})
    return lines + line({"type": "content_block_stop", "index": index})


# --- what is asked of the daemon ---


def sent(daemon: Daemon) -> dict[str, Any]:
    return daemon.calls[-1][1]


def test_the_whole_request_reaches_the_daemon(gateway: Gateway, daemon: Daemon) -> None:
    answer = ask(
        gateway,
        instructions="be brief",
        input=[
            {"role": "developer", "content": "and kind"},
            {"role": "user", "content": [{"type": "input_text", "text": "u1"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "t"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a1"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
            {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_image", "image_url": PIXEL}],
            },
            {"role": "user", "content": [{"type": "input_image", "image_url": PIXEL, "detail": "auto"}]},
        ],
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=99,
        temperature=0.5,
        top_p=0.9,
        reasoning={"effort": "high"},
        user="u",
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    )
    assert answer.status == 200 and "x-ccd-ignored" not in answer.headers
    params = sent(daemon)
    image = params["messages"][2]["content"][2]
    assert image["type"] == "image" and image["source"]["media_type"] == "image/png"
    assert params["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "u1"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "a1"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "c2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "c2", "content": [image]},
                image,
            ],
        },
    ]
    assert params["system"] == "be brief\n\nand kind"
    assert params["tools"][0]["name"] == "f" and params["tools"][0]["input_schema"] == TOOL["parameters"]
    assert params["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert params["format"] == {"type": "json_schema", "schema": {"type": "object"}}
    assert (params["max_tokens"], params["temperature"], params["top_p"]) == (99, 0.5, 0.9)
    assert (params["effort"], params["metadata"]) == ("high", {"user_id": "u"})


def test_the_assistant_may_speak_first(gateway: Gateway, daemon: Daemon) -> None:
    items = [{"role": "system", "content": "s"}, {"role": "assistant", "content": "hello"}]
    assert ask(gateway, input=[*items, {"role": "user", "content": "hi"}]).status == 200
    assert [message["role"] for message in sent(daemon)["messages"]] == ["user", "assistant", "user"]
    wrong = ask(gateway, input=[*items, {"role": "user", "content": [{"type": "input_text", "text": " "}]}])
    assert wrong.error["param"] == "input[2].content"


def test_a_file_and_an_image_by_url(gateway: Gateway, daemon: Daemon) -> None:
    parts = [
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8="},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
    ]
    answer = ask(gateway, input=[{"role": "user", "content": parts}])
    assert answer.status == 200
    document, remote, image = sent(daemon)["messages"][0]["content"]
    assert document["source"]["data"] == "hello" and document["title"] == "a.txt"
    assert remote["source"] == {"type": "url", "url": "https://example.com/a.pdf"}
    assert image["source"] == {"type": "url", "url": "https://example.com/a.png"}
    assert answer.headers["x-ccd-ignored"].startswith("input[0].content[2].image_url")


def test_ignored_parameters_are_named(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(ignored=["effort", "max_tokens"])
    fields = {
        "include": ["reasoning.encrypted_content", "message.input_image.image_url"],
        "truncation": "auto",
    }
    answer = ask(gateway, **fields, temperature=1.5, text={"verbosity": "high"}, made_up=1, nothing=None)
    assert answer.headers["x-ccd-ignored"].split(", ") == [
        *("include[reasoning.encrypted_content]", "truncation", "temperature", "text.verbosity", "made_up"),
        *("reasoning.effort", "max_output_tokens"),
    ]
    strict = ask(gateway, {"x-ccd-strict": "true"}, **fields)
    assert strict.status == 400 and strict.error["param"] == "include[reasoning.encrypted_content]"
    ask(gateway, {"x-ccd-strict": "true"})
    assert sent(daemon)["strict"] is True


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"model": None}, "model"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"type": ["x"]}]}, "input[0].type"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [5]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": ""}]}, "input[0].content"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "input[0].call_id",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_gone"}]}, "input[0].id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}, "tools": [TOOL]}, "tool_choice.type"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"stream_options": {}}, "stream_options"),
        ({"background": True, "store": False}, "store"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"previous_response_id": "resp_gone"}, "previous_response_id"),
    ],
)
def test_refusals_name_the_parameter(
    gateway: Gateway, daemon: Daemon, fields: dict[str, Any], param: str
) -> None:
    answer = ask(gateway, **fields)
    assert answer.status == 400, answer.body
    assert answer.error["param"] == param
    assert "messages[" not in answer.error["message"]
    assert not daemon.calls


def test_builtin_tools_are_refused_by_name(gateway: Gateway) -> None:
    error = ask(gateway, tools=[TOOL, {"type": "web_search_preview"}]).error
    assert "web_search_preview" in error["message"] and error["param"] == "tools[1].type"


# --- what comes back ---


def test_a_whole_response(gateway: Gateway, daemon: Daemon) -> None:
    answer = ask(gateway)
    assert answer.status == 200
    body = answer.json
    assert set(body) == FIXTURE_KEYS
    assert len(body["id"]) == len("resp_") + 32
    assert body["output"][0]["content"] == [
        {"type": "output_text", "text": "whole", "annotations": [], "logprobs": []}
    ]
    assert (body["status"], body["store"], body["usage"]["total_tokens"]) == ("completed", True, 17)


def test_a_stream(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start(), thinking("hm"), text("he") + text("llo"), tool_use("f", '{"a"', ":1}"))
    answer = ask(gateway, stream=True, reasoning={"summary": "auto"}, tools=[TOOL])
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = sse(answer.body)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    final = events[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["reasoning", "message", "function_call"]
    assert final["output"][2]["arguments"] == '{"a":1}'
    stored = gateway.request("GET", f"/v1/responses/{final['id']}")
    assert stored.json == final


def test_an_error_before_the_answer_has_its_status(gateway: Gateway, daemon: Daemon) -> None:
    daemon.fail(Code.UPSTREAM_LIMIT, "slow down", retry_after_ms=2000)
    for stream in (False, True):
        answer = ask(gateway, stream=stream)
        assert answer.status == 429 and answer.headers["retry-after"] == "2"


def test_an_error_in_the_middle_is_the_last_event(gateway: Gateway, daemon: Daemon) -> None:
    async def breaking(call: Call) -> Any:
        await call.send(start() + text("half"))
        raise RpcError(Code.UPSTREAM_ERROR, "upstream died")

    daemon.scripts["chat.stream"] = breaking
    events = sse(ask(gateway, stream=True).body)
    last = events[-1]
    assert last["type"] == "error" and last["message"] == last["error"]["message"] == "upstream died"
    assert last["sequence_number"] == len(events) - 1
    stored = gateway.request("GET", f"/v1/responses/{events[0]['response']['id']}").json
    assert (stored["status"], stored["error"]["code"]) == ("failed", "server_error")


def test_silence_is_filled_with_comments(gateway: Gateway, daemon: Daemon) -> None:
    gate = Gate()

    async def slow(call: Call) -> Any:
        await gate.passed()
        raise RpcError(Code.UPSTREAM_ERROR, "late")

    daemon.scripts["chat.stream"] = slow
    connection = gateway.connect()
    body = json.dumps({"model": "m", "input": "x", "stream": True}).encode()
    head = f"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    got = b""
    while b": keep-alive" not in got:
        got += connection.recv(65536)
    gate.open()
    while b'"error":{' not in got:
        got += connection.recv(65536)
    connection.close()


def test_leaving_a_stream_cancels_it(gateway: Gateway, daemon: Daemon) -> None:
    daemon.hang()
    connection = gateway.connect()
    body = json.dumps({"model": "m", "input": "x", "stream": True}).encode()
    head = f"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    assert daemon.arrivals.acquire(timeout=20)
    connection.close()
    assert daemon.cancellations.acquire(timeout=20)


# --- stored responses ---


def test_a_chain(gateway: Gateway, daemon: Daemon) -> None:
    first = ask(gateway, input="one", instructions="only now").json
    second = ask(gateway, input="two", previous_response_id=first["id"]).json
    assert second["previous_response_id"] == first["id"]
    ask(gateway, input="three", previous_response_id=second["id"])
    said = [(m["role"], m["content"][0]["text"]) for m in sent(daemon)["messages"]]
    assert said == [
        *(
            ("user", "one"),
            ("assistant", "whole"),
            ("user", "two"),
            ("assistant", "whole"),
            ("user", "three"),
        ),
    ]
    assert "system" not in sent(daemon)
    gateway.request("DELETE", f"/v1/responses/{first['id']}")
    broken = ask(gateway, previous_response_id=second["id"])
    assert broken.error["code"] == "previous_response_not_found" and first["id"] in broken.error["message"]


def test_a_chain_with_a_call(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start(), tool_use("f", '{"a": 1}'), stop_reason="tool_use")
    first = sse(ask(gateway, stream=True, tools=[TOOL]).body)[-1]["response"]
    daemon.chat()
    output = {"type": "function_call_output", "call_id": "toolu_1", "output": "2"}
    assert ask(gateway, input=[output], previous_response_id=first["id"], tools=[TOOL]).status == 200
    assert sent(daemon)["messages"][1:] == [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "2"}]},
    ]


def test_chat_completions_words_are_taken(gateway: Gateway, daemon: Daemon) -> None:
    call = {
        "id": "c:1",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a": 1}'},
        "extra": True,
    }
    items = [
        {"role": "user", "content": ["look", {"type": "image_url", "image_url": {"url": PIXEL}}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c:1", "content": "done"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t2", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t2", "content": "ok"}, "go on"]},
    ]
    answer = ask(gateway, input=items)
    assert answer.status == 200, answer.body
    assert answer.headers["x-ccd-ignored"] == "input[1].tool_calls[0].extra"
    roles = [[block["type"] for block in message["content"]] for message in sent(daemon)["messages"]]
    assert roles == [["text", "image"], ["tool_use"], ["tool_result"], ["tool_use"], ["tool_result", "text"]]
    listed = gateway.request("GET", f"/v1/responses/{answer.json['id']}/input_items?order=asc").json["data"]
    assert [item["type"] for item in listed] == [
        *(
            "message",
            "function_call",
            "function_call_output",
            "function_call",
            "function_call_output",
            "message",
        ),
    ]


def test_item_references(gateway: Gateway, daemon: Daemon) -> None:
    first = ask(gateway, input="one").json
    items = [
        {"role": "user", "content": "again"},
        {"type": "item_reference", "id": first["output"][0]["id"]},
        {"id": first["output"][0]["id"]},
        {"role": "user", "content": "two"},
    ]
    assert ask(gateway, input=items).status == 200
    said = {"role": "assistant", "content": [{"type": "text", "text": "whole"}]}
    assert sent(daemon)["messages"][1:3] == [said, said]


def test_get_and_delete(gateway: Gateway, daemon: Daemon) -> None:
    made = ask(gateway).json
    path = f"/v1/responses/{made['id']}"
    assert gateway.request("GET", path).json == made
    assert gateway.request("GET", f"{path}?stream=true").error["param"] == "stream"
    gone = gateway.request("DELETE", path)
    assert gone.json == {"id": made["id"], "object": "response", "deleted": True}
    for method, where in (
        ("GET", path),
        ("DELETE", path),
        ("POST", f"{path}/cancel"),
        ("GET", f"{path}/input_items"),
    ):
        assert gateway.request(method, where).status == 404


def test_what_is_not_to_be_stored_is_not(gateway: Gateway, daemon: Daemon) -> None:
    made = ask(gateway, store=False).json
    assert made["store"] is False
    assert gateway.request("GET", f"/v1/responses/{made['id']}").status == 404
    assert ask(gateway, previous_response_id=made["id"]).error["code"] == "previous_response_not_found"


def test_cancelling_a_synchronous_response_is_refused(gateway: Gateway, daemon: Daemon) -> None:
    made = ask(gateway).json
    assert gateway.request("POST", f"/v1/responses/{made['id']}/cancel").status == 400


def test_input_items_in_pages(gateway: Gateway, daemon: Daemon) -> None:
    first = ask(gateway, input="one").json
    second = ask(gateway, input=[{"role": "user", "content": "two"}], previous_response_id=first["id"]).json
    path = f"/v1/responses/{second['id']}/input_items"
    whole = gateway.request("GET", f"{path}?order=asc").json
    assert whole["object"] == "list" and whole["has_more"] is False
    texts = [item["content"][0]["text"] for item in whole["data"]]
    assert texts == ["one", "whole", "two"]
    assert (whole["first_id"], whole["last_id"]) == (whole["data"][0]["id"], whole["data"][2]["id"])
    page = gateway.request("GET", f"{path}?limit=2").json
    assert [item["content"][0]["text"] for item in page["data"]] == ["two", "whole"]
    assert page["has_more"] is True
    rest = gateway.request("GET", f"{path}?limit=2&after={page['last_id']}").json
    assert [item["content"][0]["text"] for item in rest["data"]] == ["one"]
    for query in ("limit=0", "limit=x", "after=msg_gone", "order=up"):
        assert gateway.request("GET", f"{path}?{query}").status == 400


def test_input_tokens(gateway: Gateway, daemon: Daemon) -> None:
    def count(**fields: Any) -> int:
        answer = gateway.request("POST", "/v1/responses/input_tokens", fields)
        assert answer.status == 200 and answer.headers["x-ccd-estimated"] == "true"
        assert answer.json["object"] == "response.input_tokens"
        return int(answer.json["input_tokens"])

    alone = count(input="hello there")
    previous = ask(gateway, input="what came before, at some length").json["id"]
    assert 0 < alone < count(input="hello there", previous_response_id=previous)
    assert (
        alone < count(input="hello there", instructions="be brief") < count(input="hello there", tools=[TOOL])
    )
    assert gateway.request("POST", "/v1/responses/input_tokens", {}).error["param"] == "input"


def test_compact_does_not_exist(gateway: Gateway) -> None:
    assert gateway.request("POST", "/v1/responses/compact", {"model": "m", "input": "x"}).status == 404


# --- in the background ---


def poll(gateway: Gateway, response_id: str, *ends: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = gateway.request("GET", f"/v1/responses/{response_id}").json
        return found if found["status"] in ends else None

    found: dict[str, Any] = wait_until(ended, what=f"{response_id} to be {ends}")
    return found


def test_background_polled_and_replayed(gateway: Gateway, daemon: Daemon) -> None:
    gate = Gate()

    async def slow(call: Call) -> Any:
        await call.send(start() + text("he"))
        await gate.passed()
        await call.send(text("llo"))
        return {**_result(), "stop_reason": "end_turn"}

    daemon.scripts["chat.stream"] = slow
    queued = ask(gateway, background=True).json
    assert (queued["status"], queued["background"], queued["output"]) == ("queued", True, [])
    poll(gateway, queued["id"], "in_progress")
    path = f"/v1/responses/{queued['id']}?stream=true"
    gateway_stream = gateway.connect()
    gateway_stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    got = b""
    while b'"delta":"he"' not in got:
        got += gateway_stream.recv(65536)
    gate.open()
    while b"event: response.completed" not in got:  # replayed while it was running, to its end
        got += gateway_stream.recv(65536)
    gateway_stream.close()
    done = poll(gateway, queued["id"], "completed")
    assert done["output"][0]["content"][0]["text"] == "hello"
    events = sse(gateway.request("GET", path).body)
    assert [event["type"] for event in events[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert [event["response"]["status"] for event in events[:3]] == ["queued", "queued", "in_progress"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"] == done
    for after in range(-1, len(events)):
        assert sse(gateway.request("GET", f"{path}&starting_after={after}").body) == events[after + 1 :]
    assert gateway.request("GET", f"{path}&starting_after={2**70}").status == 400
    assert ask(gateway, previous_response_id=queued["id"]).status == 200


def _result() -> dict[str, Any]:
    from fakes.gateway_daemon import RESULT

    return RESULT


def test_what_a_background_response_ignored_is_told_where_it_is_read(
    gateway: Gateway, daemon: Daemon
) -> None:
    daemon.chat(start() + text("x"), ignored=["temperature"])
    created = ask(gateway, background=True, truncation="auto", temperature=0.5)
    assert created.headers["x-ccd-ignored"] == "truncation"
    assert created.json["ccd_ignored"] == ["truncation"]
    done = poll(gateway, created.json["id"], "completed")
    assert done["ccd_ignored"] == ["truncation", "temperature"]
    path = f"/v1/responses/{done['id']}"
    for query in ("", "?stream=true"):
        answer = gateway.request("GET", path + query)
        assert answer.headers["x-ccd-ignored"] == "truncation, temperature"
    assert sse(answer.body)[-1]["response"] == done
    plain = ask(gateway, background=True).json
    assert "ccd_ignored" not in plain
    daemon.chat(start() + text("x"))
    other = ask(gateway, background=True).json
    poll(gateway, other["id"], "completed")
    assert "x-ccd-ignored" not in gateway.request("GET", f"/v1/responses/{other['id']}").headers


def test_replayed_streams_count_as_open_requests(daemon: Daemon) -> None:
    gate = Gate()

    async def slow(call: Call) -> Any:
        await call.send(start() + text("x"))
        await gate.passed()
        return {**_result(), "stop_reason": "end_turn"}

    daemon.scripts["chat.stream"] = slow
    with Gateway(daemon.path, max_streams=2) as gateway:
        response_id = ask(gateway, background=True).json["id"]
        replays = [gateway.connect() for _ in range(2)]
        for replay in replays:
            replay.sendall(
                f"GET /v1/responses/{response_id}?stream=true HTTP/1.1\r\nHost: a.localhost\r\n\r\n".encode()
            )
            read_until(replay, b"event: response.created")
        third = gateway.request("GET", f"/v1/responses/{response_id}?stream=true")
        assert (third.status, third.error["code"]) == (503, "overloaded")
        assert gateway.request("GET", f"/v1/responses/{response_id}").status == 200
        replays[0].close()  # whoever leaves makes room, though nothing is being sent

        def room() -> bool:
            status = ask(gateway, background=True).status
            assert status in (200, 503)
            return status == 200

        wait_until(room, what="room for another request")
        gate.open()
        read_until(replays[1], b"event: response.completed")
        replays[1].close()


def test_background_streamed_at_once(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start(), text("hello"))
    events = sse(ask(gateway, background=True, stream=True).body)
    assert events[1]["type"] == "response.queued" and events[-1]["type"] == "response.completed"


def test_leaving_a_background_stream_does_not_end_it(gateway: Gateway, daemon: Daemon) -> None:
    gate = Gate()

    async def slow(call: Call) -> Any:
        await gate.passed()
        await call.send(start() + text("on my own"))
        return _result()

    daemon.scripts["chat.stream"] = slow
    body = json.dumps({"model": "m", "input": "x", "stream": True, "background": True}).encode()
    connection = gateway.connect()
    head = f"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    got = b""
    while b"response.in_progress" not in got:
        got += connection.recv(65536)
    connection.close()
    response_id = json.loads(got.split(b"data: ")[1].split(b"\n\n")[0])["response"]["id"]
    gate.open()
    assert poll(gateway, response_id, "completed")["output"][0]["content"][0]["text"] == "on my own"


def test_background_failure(gateway: Gateway, daemon: Daemon) -> None:
    daemon.fail(Code.UPSTREAM_LIMIT, "slow down")
    queued = ask(gateway, background=True).json
    failed = poll(gateway, queued["id"], "failed")
    assert failed["error"] == {"code": "rate_limit_exceeded", "message": "slow down"}
    events = sse(gateway.request("GET", f"/v1/responses/{queued['id']}?stream=true").body)
    assert events[-1]["type"] == "error" and events[-1]["error"]["message"] == "slow down"
    refused = ask(gateway, previous_response_id=queued["id"])
    assert refused.status == 400 and "failed" in refused.error["message"]


def test_background_cancelled(gateway: Gateway, daemon: Daemon) -> None:
    daemon.hang()
    queued = ask(gateway, background=True).json
    assert daemon.arrivals.acquire(timeout=20)
    path = f"/v1/responses/{queued['id']}/cancel"
    assert gateway.request("POST", path).json["status"] == "cancelled"
    assert daemon.cancellations.acquire(timeout=20)
    assert gateway.request("POST", path, b"").json["status"] == "cancelled"
    assert gateway.request("GET", f"/v1/responses/{queued['id']}").json["status"] == "cancelled"


def test_deleting_a_background_response_stops_it(gateway: Gateway, daemon: Daemon) -> None:
    daemon.hang()
    queued = ask(gateway, background=True).json
    assert daemon.arrivals.acquire(timeout=20)
    assert gateway.request("DELETE", f"/v1/responses/{queued['id']}").json["deleted"] is True
    assert daemon.cancellations.acquire(timeout=20)


# --- several processes, and their ends ---


@pytest.fixture
def folder(daemon: Daemon) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ccd-") as folder:
        yield Path(folder)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_two_workers_share_everything(daemon: Daemon, folder: Path) -> None:
    """Every request is a new connection, so both workers see some of them."""
    daemon.chat(start(), text("hello"))
    with Gateway(daemon.path, workers=2, responses_file=folder / FILE, keepalive_s=0.2) as gateway:
        previous: str | None = None
        for _ in range(12):
            previous = ask(gateway, previous_response_id=previous).json["id"]
        assert len(sent(daemon)["messages"]) == 23
        queued = [ask(gateway, background=True).json["id"] for _ in range(8)]
        for response_id in queued:
            poll(gateway, response_id, "completed")
            events = sse(gateway.request("GET", f"/v1/responses/{response_id}?stream=true").body)
            assert events[-1]["type"] == "response.completed"
        daemon.hang()
        running = [ask(gateway, background=True).json["id"] for _ in range(4)]
        for _ in running:
            assert daemon.arrivals.acquire(timeout=20)
        for response_id in running:
            cancelled = gateway.request("POST", f"/v1/responses/{response_id}/cancel").json
            assert cancelled["status"] == "cancelled"
            assert daemon.cancellations.acquire(timeout=20)  # whichever worker ran it
    mode = stat.S_IMODE((folder / FILE).stat().st_mode)
    assert mode == 0o600


def test_a_response_whose_worker_was_killed_fails(daemon: Daemon, folder: Path) -> None:
    daemon.hang()
    with Gateway(daemon.path, workers=1, responses_file=folder / FILE) as gateway:
        queued = ask(gateway, background=True).json
        assert daemon.arrivals.acquire(timeout=20)
        (worker,) = children(gateway.process.pid)
        os.kill(worker, 9)
        with sqlite3.connect(folder / FILE) as db:  # rather than wait until it is stale
            db.execute("UPDATE responses SET beat_s = beat_s - 1000")
        db.close()
        failed = poll(gateway, queued["id"], "failed")
        assert failed["error"]["code"] == "server_error"
        events = sse(gateway.request("GET", f"/v1/responses/{queued['id']}?stream=true").body)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["type"] == "error"


def test_stopping_the_gateway_fails_what_runs_and_keeps_the_rest(daemon: Daemon, folder: Path) -> None:
    with Gateway(daemon.path, responses_file=folder / FILE) as gateway:
        made = ask(gateway).json
        daemon.hang()
        queued = ask(gateway, background=True).json
        assert daemon.arrivals.acquire(timeout=20)
        poll(gateway, queued["id"], "in_progress")
        gateway.stop()
        assert gateway.log == gateway.greeting
    daemon.chat()
    with Gateway(daemon.path, responses_file=folder / FILE) as gateway:
        failed = gateway.request("GET", f"/v1/responses/{queued['id']}").json
        assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
        assert gateway.request("GET", f"/v1/responses/{made['id']}").json == made
        assert ask(gateway, previous_response_id=made["id"]).status == 200


def test_without_a_usable_store_answers_still_come(daemon: Daemon, folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / FILE)) as db:
        db.execute("PRAGMA user_version = 99")  # a newer ccd's
    with Gateway(daemon.path, responses_file=folder / FILE) as gateway:
        answer = ask(gateway)
        assert answer.json["store"] is False and answer.headers["x-ccd-ignored"] == "store"
        for fields in ({"store": True}, {"background": True}, {"previous_response_id": "resp_1"}):
            refused = ask(gateway, **fields)
            assert refused.status == 507 and "responses" in refused.error["message"]
        assert ask(gateway, store=False).status == 200


def test_a_broken_store_is_set_aside_and_begun_anew(daemon: Daemon, folder: Path) -> None:
    (folder / FILE).write_bytes(b"not a database, but long enough to be looked at" * 10)
    with Gateway(daemon.path, responses_file=folder / FILE) as gateway:
        made = ask(gateway, store=True)
        assert made.json["store"] is True
        assert ask(gateway, previous_response_id=made.json["id"]).status == 200
    assert [file.read_bytes()[:14] for file in folder.glob("*.broken-*")] == [b"not a database"]
