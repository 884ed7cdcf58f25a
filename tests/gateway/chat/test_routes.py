from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from ccd_protocol.errors import Code, RpcError
from fakes.gateway_daemon import RESULT, Call, Daemon, Gate, start, text, thinking, whole
from fakes.gateway_daemon import call as tool_call
from fakes.gateway_process import Gateway, events, read_until


def test_whole_answer(gateway: Gateway, daemon: Daemon) -> None:
    before = int(time.time())
    answer = gateway.chat(model="agent/sonnet")
    body = answer.json
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert body["id"].startswith("chatcmpl-") and before <= body["created"] <= time.time()
    assert (body["object"], body["model"]) == ("chat.completion", "agent/sonnet")
    assert body["choices"][0]["message"]["content"] == "whole"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == 17
    assert "x-ccd-ignored" not in answer.headers


def test_what_reaches_the_daemon(gateway: Gateway, daemon: Daemon) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "uno"},
        {"role": "developer", "content": [{"type": "text", "text": "in Spanish"}]},
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
    ]
    more = {"temperature": 0.5, "top_p": 0.9, "stop": ["x"], "max_completion_tokens": 9, "user": "u"}
    assert gateway.chat(messages=messages, **more).status == 200
    method, params = daemon.calls[0]
    assert method == "chat.complete"
    assert re.fullmatch("[0-9a-f]{64}", params.pop("cache")["key"])
    assert params == {
        "model": "sonnet",
        "system": "be brief\n\nin Spanish",
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "uno"},
            {"role": "user", "content": [{"type": "text", "text": "two"}]},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["x"],
        "max_tokens": 9,
        "metadata": {"user_id": "u"},
    }


def test_profile_from_model_or_header(gateway: Gateway, daemon: Daemon) -> None:
    gateway.chat(model="agent/opus")
    gateway.chat(model="opus", headers={"X-CCD-Profile": "agent"})
    assert [(p["profile"], p["model"]) for _, p in daemon.calls] == [("agent", "opus")] * 2
    assert gateway.chat(headers={"X-CCD-Profile": "a b"}).error["param"] == "X-CCD-Profile"


def test_stream(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start(), thinking("hm"), text("he") + text("llo"), text(" 😀\n"), stop_reason="max_tokens")
    answer = gateway.chat(stream=True)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    got = events(answer.body)
    assert got[-1] == "[DONE]"
    chunks = got[:-1]
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"reasoning_content": "hm", "reasoning": "hm"},
        {"content": "he"},
        {"content": "llo"},
        {"content": " 😀\n"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * 5 + ["length"]


def test_stream_usage(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start(), text("a"))
    *chunks, last, done = events(gateway.chat(stream=True, stream_options={"include_usage": True}).body)
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == [] and last["usage"]["prompt_tokens"] == 10
    whole = gateway.chat(stream_options={"include_usage": True})
    assert (whole.status, whole.headers["x-ccd-ignored"]) == (200, "stream_options")


def test_deltas_are_sent_as_they_come(gateway: Gateway, daemon: Daemon) -> None:
    """Each is seen by the client before the daemon sends the next."""
    steps = [Gate() for _ in range(3)]

    async def stepwise(call: Call) -> Any:
        for index, step in enumerate(steps):
            await call.send((start() if index == 0 else b"") + text(f"<{index}>"))
            await step.passed()
        return RESULT

    daemon.scripts["chat.stream"] = stepwise
    with gateway.open_chat(stream=True) as connection:
        for index, step in enumerate(steps):
            read_until(connection, f"<{index}>".encode())
            step.open()
        read_until(connection, b"data: [DONE]\n\n")


def test_several_lines_of_one_item_are_one_write(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start(), b"".join(text(f"{i},") for i in range(16)))
    with gateway.open_chat(stream=True) as connection:
        raw = read_until(connection, b"\r\n0\r\n\r\n")
    sizes = [line for line in raw.split(b"\r\n\r\n", 1)[1].split(b"\r\n") if b"data:" not in line and line]
    assert len(sizes) <= 4  # role, the deltas, the end, and the last chunk of size 0


def test_silence_is_filled_with_comments(gateway: Gateway, daemon: Daemon) -> None:
    gate = Gate()

    async def slow(call: Call) -> Any:
        await gate.passed()
        await call.send(start() + text("late"))
        return RESULT

    daemon.scripts["chat.stream"] = slow
    with gateway.open_chat(stream=True) as connection:
        seen = read_until(connection, b": keep-alive\n")
        assert b"200 OK" in seen and b'"role":"assistant"' in seen and b"late" not in seen
        gate.open()
        read_until(connection, b'"late"')
        read_until(connection, b"[DONE]")


def test_a_slow_reader_holds_the_daemon_back(gateway: Gateway, daemon: Daemon) -> None:
    sent: list[int] = []
    payload = text("x" * 60_000)

    async def flood(call: Call) -> Any:
        await call.send(start())
        for _ in range(400):
            await call.send(payload)
            sent.append(len(payload))
        return RESULT

    daemon.scripts["chat.stream"] = flood
    with gateway.open_chat(stream=True) as connection:
        read_until(connection, b"assistant")
        stalled = -1
        while stalled != len(sent):  # until nothing moves any more
            stalled = len(sent)
            time.sleep(0.5)
        assert 0 < stalled < 300
        assert gateway.request("GET", "/health").status == 200
        read_until(connection, b"[DONE]")
    assert len(sent) == 400


@pytest.mark.parametrize("stream", [False, True])
def test_failure_before_the_answer_has_a_status(gateway: Gateway, daemon: Daemon, stream: bool) -> None:
    async def retried(call: Call) -> Any:
        if stream:
            await call.send(b'{"type":"system","subtype":"api_retry","attempt":1}\n')
        raise RpcError(Code.UPSTREAM_LIMIT, "slow down", {"retry_after_ms": 2500})

    daemon.scripts["chat.stream"] = daemon.scripts["chat.complete"] = retried
    answer = gateway.chat(stream=stream)
    assert answer.status == 429
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("3", "2500")
    assert answer.error["message"] == "slow down"


def test_failure_in_the_middle_is_an_event(gateway: Gateway, daemon: Daemon) -> None:
    async def breaking(call: Call) -> Any:
        await call.send(start() + text("half"))
        raise RpcError(Code.UPSTREAM_ERROR, "upstream died", {"output_started": True})

    daemon.scripts["chat.stream"] = breaking
    answer = gateway.chat(stream=True)
    assert answer.status == 200
    got = events(answer.body)
    assert got[1]["choices"][0]["delta"] == {"content": "half"}
    assert got[-1] == {
        "error": {
            "message": "upstream died",
            "type": "server_error",
            "param": None,
            "code": "upstream_error",
        }
    }
    assert "[DONE]" not in got


def test_daemon_lost_in_the_middle_is_an_event(gateway: Gateway, daemon: Daemon) -> None:
    async def vanishing(call: Call) -> Any:
        await call.send(start() + text("half"))
        call.drop_connection()

    daemon.scripts["chat.stream"] = vanishing
    got = events(gateway.chat(stream=True).body)
    assert got[-1]["error"]["code"] == "daemon_unavailable"


def test_failed_after_output_is_not_to_be_repeated(gateway: Gateway, daemon: Daemon) -> None:
    daemon.fail(Code.WORKER_CRASHED, "exit status 9", output_started=True)
    answer = gateway.chat()
    assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
    assert answer.error["type"] == "claude_process_error"


def test_ignored_parameters(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(ignored=["top_k", "stop_sequences"])
    given = {"seed": 1, "temperature": 1.5, "wild\r\n": 1}
    answer = gateway.chat(**given)
    assert answer.headers["x-ccd-ignored"] == "seed, temperature, wild??, top_k, stop"
    assert daemon.calls[-1][1]["temperature"] == 1.0
    streamed = gateway.chat(stream=True, **given)
    assert streamed.headers["x-ccd-ignored"] == "seed, temperature, wild??"
    strict = gateway.chat(headers={"X-CCD-Strict": "true"}, **given)
    assert (strict.status, strict.error["param"]) == (400, "seed")
    assert gateway.chat(headers={"X-CCD-Strict": "true"}).status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"n": 9}, "n"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].image_url",
        ),
        ({"messages": []}, "messages"),
    ],
)
def test_refusals_name_the_parameter(
    gateway: Gateway, daemon: Daemon, fields: dict[str, Any], param: str
) -> None:
    answer = gateway.chat(**fields)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert daemon.calls == []


def test_form_content_type_is_read_as_json(gateway: Gateway, daemon: Daemon) -> None:
    """What curl sends when it is not told otherwise."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert gateway.request("POST", "/v1/chat/completions", body, headers).status == 200


def test_streamed_tool_calls(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(
        start(),
        text("wait") + tool_call(1, "toolu_a", "f", '{"a"', ":1}"),
        tool_call(2, "toolu_b", "g"),
        stop_reason="tool_use",
    )
    *chunks, done = events(gateway.chat(stream=True).body)
    assert done == "[DONE]"
    fragments = [chunk["choices"][0]["delta"].get("tool_calls") for chunk in chunks]
    assert [fragment for fragment in fragments if fragment] == [
        [{"index": 0, "id": "toolu_a", "type": "function", "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"a"'}}],
        [{"index": 0, "function": {"arguments": ":1}"}}],
        [{"index": 1, "id": "toolu_b", "type": "function", "function": {"name": "g", "arguments": ""}}],
        [{"index": 1, "function": {"arguments": "{}"}}],
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_message_that_comes_whole_is_streamed_too(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start("m1"), whole("m2", {"type": "text", "text": "late"}))
    chunks = events(gateway.chat(stream=True).body)[:-1]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "late"


def test_what_the_daemon_ignores_is_in_the_last_chunk_of_a_stream(gateway: Gateway, daemon: Daemon) -> None:
    daemon.chat(start(), text("a"), ignored=["temperature", "stop_sequences", "tools[0].input_schema"])
    for options in ({}, {"stream_options": {"include_usage": True}}):
        *chunks, last, done = events(gateway.chat(stream=True, **options).body)
        assert done == "[DONE]" and not any("ccd_ignored" in chunk for chunk in chunks)
        assert last["ccd_ignored"] == ["temperature", "stop", "tools[0].function.parameters"]
    daemon.chat(start(), text("a"), ignored=["temperature", "stop_sequences"])
    assert gateway.chat().headers["x-ccd-ignored"] == "temperature, stop"


def test_a_conversation_may_go_on_with_results_of_tool_calls(gateway: Gateway, daemon: Daemon) -> None:
    result = {"role": "tool", "tool_call_id": "toolu_a", "content": "done"}
    assert gateway.chat(messages=[result], conversation_id="c").status == 200
    block = {"type": "tool_result", "tool_use_id": "toolu_a", "content": "done"}
    assert daemon.calls[0][1]["messages"] == [{"role": "user", "content": [block]}]
    assert gateway.chat(messages=[result]).error["param"] == "messages[0].tool_call_id"


def test_strict_reaches_the_daemon(gateway: Gateway, daemon: Daemon) -> None:
    gateway.chat(headers={"X-CCD-Strict": "true"})
    gateway.chat()
    assert [params.get("strict") for _, params in daemon.calls] == [True, None]


def test_refusals_of_the_daemon_name_the_clients_parameter(gateway: Gateway, daemon: Daemon) -> None:
    daemon.fail(Code.BAD_PARAMS, "no", param="effort")
    for stream in (False, True):
        assert gateway.chat(stream=stream).error["param"] == "reasoning_effort"


# --- several answers ---


def numbered(daemon: Daemon, last: Any) -> list[Gate]:
    """Streams are told apart by the order in which they come; each waits for its gate, the last ends by `last`."""
    gates = [Gate() for _ in range(3)]
    seen: list[Call] = []

    async def one(call: Call) -> Any:
        number = len(seen)
        seen.append(call)
        await call.send(start() + text(f"<{number}>"))
        await gates[number].passed()
        if number == 2:
            return await last(call)
        await call.send(text(f"({number})"))
        return RESULT

    daemon.scripts["chat.stream"] = one
    return gates


async def fine(call: Call) -> Any:
    await call.send(text("(2)"))
    return RESULT


def test_several_streams_are_told_apart_by_index(gateway: Gateway, daemon: Daemon) -> None:
    gates = numbered(daemon, fine)
    with gateway.open_chat(stream=True, n=3, stream_options={"include_usage": True}) as connection:
        held = read_until(connection, b"<2>")
        for gate in reversed(gates):
            gate.open()
        held += read_until(connection, b"data: [DONE]")
    chunks = [json.loads(row[6:]) for row in held.decode().split("\n") if row.startswith("data: {")]
    texts = ["", "", ""]
    ends = []
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
            ends += [choice["index"]] if choice["finish_reason"] else []
    assert sorted(texts) == ["<0>(0)", "<1>(1)", "<2>(2)"]
    assert sorted(ends) == [0, 1, 2]
    assert chunks[-1]["usage"]["total_tokens"] == 3 * 17
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_one_of_several_streams_fails_before_any_output(gateway: Gateway, daemon: Daemon) -> None:
    calls: list[Call] = []

    async def one(call: Call) -> Any:
        calls.append(call)
        if len(calls) == 2:
            raise RpcError(Code.UPSTREAM_LIMIT, "slow down")
        await call.cancelled.wait()
        raise RpcError(Code.CANCELLED)

    daemon.scripts["chat.stream"] = daemon.scripts["chat.complete"] = one
    for stream in (True, False):
        calls.clear()
        answer = gateway.chat(stream=stream, n=3)
        assert (answer.status, answer.error["message"]) == (429, "slow down")
        assert all(daemon.cancellations.acquire(timeout=10) for _ in range(2))


def test_one_of_several_streams_fails_in_the_middle(gateway: Gateway, daemon: Daemon) -> None:
    async def dying(call: Call) -> Any:
        raise RpcError(Code.UPSTREAM_ERROR, "upstream died", {"output_started": True})

    gates = numbered(daemon, dying)
    with gateway.open_chat(stream=True, n=3) as connection:
        read_until(connection, b"<2>")
        gates[2].open()
        assert b"[DONE]" not in read_until(connection, b"upstream died")
    assert all(daemon.cancellations.acquire(timeout=10) for _ in range(2))
    for gate in gates:
        gate.open()


def test_a_client_that_leaves_cancels_every_answer(gateway: Gateway, daemon: Daemon) -> None:
    daemon.hang()
    for stream in (True, False):
        with gateway.open_chat(stream=stream, n=3):
            assert all(daemon.arrivals.acquire(timeout=10) for _ in range(3))
        assert all(daemon.cancellations.acquire(timeout=10) for _ in range(3))
