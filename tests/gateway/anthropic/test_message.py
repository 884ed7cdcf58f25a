from __future__ import annotations

import json
from typing import Any

import msgspec

from ccd_gateway.anthropic.events import MessageEvent, event
from ccd_gateway.anthropic.message import Collector, opening, whole_usage
from ccd_gateway.anthropic.sse import PING, EventWriter

USAGE_KEYS = {
    *("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"),
    *("cache_creation", "output_tokens_details", "server_tool_use", "inference_geo", "service_tier"),
}
MESSAGE_KEYS = {
    *("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "stop_details", "container"),
    "usage",
}


def delta(index: int, **fields: Any) -> MessageEvent:
    return event("content_block_delta", index=index, delta=fields)


def block(index: int, **fields: Any) -> MessageEvent:
    return event("content_block_start", index=index, content_block=fields)


ANSWER = [
    event(
        "message_start",
        message={"id": "msg_1", "model": "real", "usage": {"input_tokens": 5, "cache_read_input_tokens": 2}},
    ),
    block(0, type="thinking", thinking="", signature=""),
    delta(0, type="thinking_delta", thinking="h"),
    delta(0, type="thinking_delta", thinking="m"),
    delta(0, type="signature_delta", signature="sig"),
    block(1, type="text", text=""),
    delta(1, type="text_delta", text="hel"),
    delta(1, type="text_delta", text="lo"),
    delta(1, type="citations_delta", citation={"type": "char_location"}),
    block(2, type="tool_use", id="t", name="n", input={}),
    delta(2, type="input_json_delta", partial_json=""),
    delta(2, type="input_json_delta", partial_json='{"a":'),
    delta(2, type="input_json_delta", partial_json="1}"),
    block(3, type="tool_use", id="t2", name="n", input={}),
    delta(3, type="input_json_delta", partial_json='{"cut'),
    delta(9, type="text_delta", text="of no block"),
    event(
        "message_delta",
        delta={"stop_reason": "stop_sequence", "stop_sequence": "x"},
        usage={"output_tokens": 7, "input_tokens": None},
        context_management={"applied_edits": []},
    ),
    event("message_stop"),
]


def test_a_message_is_put_together_from_its_events() -> None:
    collector = Collector("asked")
    collector.add(ANSWER[:4])
    collector.add(ANSWER[4:])
    message = json.loads(msgspec.json.encode(collector.message()))
    assert set(message) == MESSAGE_KEYS | {"context_management"}
    assert (message["id"], message["model"]) == ("msg_1", "asked")
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "text", "text": "hello", "citations": [{"type": "char_location"}]},
        {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}, "caller": {"type": "direct"}},
        {"type": "tool_use", "id": "t2", "name": "n", "input": {}, "caller": {"type": "direct"}},
    ]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "x")
    usage = message["usage"]
    assert set(usage) == USAGE_KEYS
    assert (usage["input_tokens"], usage["output_tokens"], usage["cache_read_input_tokens"]) == (5, 7, 2)


def test_inputs_stay_as_the_model_wrote_them_and_citations_are_a_list() -> None:
    collector = Collector("asked")
    text = '{"n": 18446744073709551617, "x": 1.50, "y": 1e400}'
    collector.add([block(0, type="tool_use", id="t", name="n", input={})])
    collector.add(
        [delta(0, type="input_json_delta", partial_json=text[at : at + 5]) for at in range(0, 60, 5)]
    )
    collector.add([block(1, type="text", text="a")])
    written = msgspec.json.encode(collector.message()).decode()
    assert f'"input":{text}' in written
    assert '"citations":[]' in written


def test_usage_is_whole() -> None:
    usage = whole_usage({"cache_creation_input_tokens": 4, "service_tier": None})
    assert set(usage) == USAGE_KEYS
    assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 0}
    assert usage["service_tier"] == "standard"
    assert whole_usage({"cache_creation": {"x": 1}, "new": 2})["new"] == 2


def test_every_message_has_an_id_of_its_own() -> None:
    assert set(opening({}, "m")) == MESSAGE_KEYS
    assert opening({}, "m")["id"] != opening({}, "m")["id"]


def sent(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    frames = data.decode().removesuffix("\n\n").split("\n\n")
    pairs = [frame.split("\n") for frame in frames]
    for name, body in pairs:
        assert name == f"event: {json.loads(body.removeprefix('data: '))['type']}"
    return [(name.removeprefix("event: "), json.loads(body.removeprefix("data: "))) for name, body in pairs]


def test_the_stream() -> None:
    writer = EventWriter("asked")
    got = sent(b"".join(writer.write([each]) for each in ANSWER))
    names = [each.type for each in ANSWER]
    assert [name for name, _ in got] == [
        *names[:2],
        "ping",
        *names[2:],
    ]  # one ping, after the first block's start
    assert got[0][1]["message"]["model"] == "asked"
    assert set(got[0][1]["message"]) == MESSAGE_KEYS
    assert set(got[0][1]["message"]["usage"]) == USAGE_KEYS
    assert got[6][1]["content_block"] == {"type": "text", "text": "", "citations": None}
    end = got[-2][1]
    assert end["delta"] == {
        "stop_reason": "stop_sequence",
        "stop_sequence": "x",
        "stop_details": None,
        "container": None,
    }
    assert end["usage"]["output_tokens"] == 7
    assert "context_management" in end


def test_deltas_are_not_touched() -> None:
    raw = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\u00e9 \xc3\xa9"}, "new":1}'
    assert (
        EventWriter("m").write([MessageEvent("content_block_delta", raw)])
        == b"event: content_block_delta\ndata: " + raw + b"\n\n"
    )


def test_comment_and_ping() -> None:
    assert sent(PING) == [("ping", {"type": "ping"})]
