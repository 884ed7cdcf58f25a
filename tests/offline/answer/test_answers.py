"""Answers and their streams: what a request and its directive make of each other, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccd_offline.answer import answers, directives, stream
from ccd_offline.answer.caching import PromptCache, Split
from ccd_offline.answer.directives import Directive, Match, Queued, ScriptedCall, Scripts
from ccd_offline.errors import RefusedError
from ccd_offline.rules import signature

TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"n": {"const": 3}}, "required": ["n"]}}


def request(text: Any = "hello there", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "claude-haiku-4-5", "max_tokens": 1000, "messages": messages, **fields}


def answer(body: dict[str, Any], directive: Directive | None = None) -> answers.ScriptedAnswer:
    return answers.compose(body, directive or Directive(), answers.last_user_text(body))


def events(data: bytes) -> list[dict[str, Any]]:
    """Server-sent events, each checked to name its type twice."""
    found = []
    for chunk in data.decode().split("\n\n")[:-1]:
        name, payload = chunk.split("\n")
        event = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def played(body: dict[str, Any], directive: Directive | None = None) -> list[dict[str, Any]]:
    directive = directive or Directive()
    return events(b"".join(step.data for step in stream.steps(answer(body, directive), directive, "req_1")))


def text_of(answer: answers.ScriptedAnswer) -> str:
    return "".join(block.get("text", "") for block in answer.blocks)


def test_echoes_visibly() -> None:
    echoed = answer(request())
    assert text_of(echoed) == "[ccd offline echo] No model was asked. You said: hello there"
    assert (echoed.stop_reason, echoed.usage["output_tokens"]) == ("end_turn", 15)
    assert echoed.usage["input_tokens"] == 7


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "b"),
        ([{"type": "text", "text": "<system-reminder>x"}, {"type": "text", "text": "b"}], "b"),
        ([{"type": "text", "text": "b"}, {"type": "text", "text": "<system-reminder>x"}], "b"),
        (
            [{"type": "tool_result", "tool_use_id": "i", "content": [{"type": "text", "text": "sunny"}]}],
            "sunny",
        ),
        ([{"type": "tool_result", "tool_use_id": "i"}, {"type": "text", "text": "so?"}], "so?"),
    ],
)
def test_what_the_user_said_last(content: list[dict[str, Any]], expected: str) -> None:
    body = request(content)
    body["messages"].append({"role": "system", "content": []})
    assert answers.last_user_text(body) == expected


def test_a_streamed_answer_has_the_events_of_the_real_api() -> None:
    found = played(request("hi"))
    assert [event["type"] for event in found] == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * 10,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert found[0]["message"]["content"] == []
    assert found[0]["message"]["stop_reason"] is None
    assert "".join(event["delta"]["text"] for event in found[3:-3]) == text_of(answer(request("hi")))
    assert found[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert found[-2]["usage"]["output_tokens"] == answer(request("hi")).usage["output_tokens"]


def test_thinking_is_counted_apart_at_the_end() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    body = request(thinking=thinking, max_tokens=2000)
    found = played(body, Directive(thinking="a thought of some words", text="done"))
    assert "output_tokens_details" not in found[0]["message"]["usage"]
    usage = found[-2]["usage"]
    assert 0 < usage["output_tokens_details"]["thinking_tokens"] < usage["output_tokens"]


def test_a_tool_call_streams_its_input_in_pieces() -> None:
    given = {"city": "Paris", "days": list(range(20))}
    directive = Directive(text="I look.", tool_calls=[ScriptedCall("f", given, "toolu_1"), ScriptedCall("f")])
    found = played(request(tools=[TOOL]), directive)
    starts = [event["content_block"] for event in found if event["type"] == "content_block_start"]
    assert [block["type"] for block in starts] == ["text", "tool_use", "tool_use"]
    assert starts[1] == {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    pieces: dict[int, list[str]] = {}
    for event in found:
        if event["type"] == "content_block_delta" and event["delta"]["type"] == "input_json_delta":
            pieces.setdefault(event["index"], []).append(event["delta"]["partial_json"])
    assert pieces[1][0] == ""
    assert len(pieces[1]) > 3
    assert json.loads("".join(pieces[1])) == given
    assert json.loads("".join(pieces[2])) == {"n": 3}
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize("display", ["summarized", "omitted"])
def test_thinking_is_signed_and_only_said_where_it_is_on(display: str) -> None:
    directive = Directive(text="ok", thinking="let me see")
    body = request(thinking={"type": "enabled", "budget_tokens": 1024, "display": display})
    found = played(body, directive)
    deltas = [
        event["delta"] for event in found if event["type"] == "content_block_delta" and event["index"] == 0
    ]
    said = "".join(delta.get("thinking", "") for delta in deltas)
    assert said == ("let me see" if display == "summarized" else "")
    assert deltas[-1]["type"] == "signature_delta"
    assert signature.fits(deltas[-1]["signature"], said, "claude-haiku-4-5")
    assert [block["type"] for block in answer(request(), directive).blocks] == ["text"]


@pytest.mark.parametrize(
    ("fields", "expected", "reason", "sequence"),
    [
        ({"max_tokens": 3}, "[ccd offline", "max_tokens", None),
        (
            {"stop_sequences": ["zzz", " You"]},
            "[ccd offline echo] No model was asked.",
            "stop_sequence",
            " You",
        ),
        ({"stop_sequences": ["["]}, "", "stop_sequence", "["),
        ({"stop_sequences": [" You"], "max_tokens": 3}, "[ccd offline", "max_tokens", None),
    ],
)
def test_limits_really_cut_the_text(
    fields: dict[str, Any], expected: str, reason: str, sequence: str | None
) -> None:
    cut = answer(request(**fields))
    assert (text_of(cut), cut.stop_reason, cut.stop_sequence) == (expected, reason, sequence)
    assert cut.usage["output_tokens"] <= fields.get("max_tokens", 1000)


@pytest.mark.parametrize(
    ("choice", "scripted", "called"),
    [
        ({"type": "any"}, [], ["f"]),
        ({"type": "tool", "name": "g"}, [], ["g"]),
        ({"type": "tool", "name": "g"}, [ScriptedCall("f"), ScriptedCall("g")], ["g"]),
        ({"type": "none"}, [ScriptedCall("f")], []),
        ({"type": "auto"}, [], []),
        ({"type": "auto"}, [ScriptedCall("f"), ScriptedCall("g")], ["f", "g"]),
        ({"type": "auto", "disable_parallel_tool_use": True}, [ScriptedCall("f"), ScriptedCall("g")], ["f"]),
    ],
)
def test_tool_choice_is_obeyed(
    choice: dict[str, Any], scripted: list[ScriptedCall], called: list[str]
) -> None:
    body = request(tools=[TOOL, {**TOOL, "name": "g"}], tool_choice=choice)
    got = answer(body, Directive(tool_calls=scripted))
    assert [block["name"] for block in got.blocks if block["type"] == "tool_use"] == called
    assert got.stop_reason == ("tool_use" if called else "end_turn")


def test_an_output_format_is_kept() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    body = request(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(text_of(answer(body))) == {"n": 1}


@pytest.mark.parametrize(
    ("directive", "expected"),
    [
        (Directive(deltas=3), ["w1", " w2", " w3"]),
        (Directive(text="abcdefg", deltas=3), ["ab", "cd", "efg"]),
        (Directive(text="ab", deltas=5), ["a", "b"]),
        (Directive(text="x ", repeat=3), ["x", " x", " x", " "]),
        (Directive(text=""), []),
    ],
)
def test_a_script_decides_the_deltas(directive: Directive, expected: list[str]) -> None:
    deltas = [
        event["delta"]["text"]
        for event in played(request(), directive)
        if "delta" in event and "index" in event
    ]
    assert deltas == expected


def test_an_instant_answer_is_two_writes_and_the_first_ends_with_the_first_delta() -> None:
    directive = Directive(deltas=40)
    steps = list(stream.steps(answer(request(), directive), directive, "req_1"))
    assert [step.delay_ms for step in steps] == [0, 0]
    assert events(steps[0].data)[-1]["delta"]["text"] == "w1"


def test_delays_fall_where_they_were_asked_for() -> None:
    directive = Directive(deltas=3, first_ms=70, delta_ms=50)
    steps = list(stream.steps(answer(request(), directive), directive, "req_1"))
    assert [step.delay_ms for step in steps] == [0, 70, 50, 50]
    assert [event["type"] for event in events(steps[0].data)] == ["message_start"]


@pytest.mark.parametrize(("field", "then"), [("cut_after_deltas", "cut"), ("hang_after_deltas", "hang")])
@pytest.mark.parametrize("count", [0, 2, 5, 9])
def test_faults_strike_after_so_many_deltas(field: str, then: str, count: int) -> None:
    directive = Directive(deltas=5, **{field: count})
    steps = list(stream.steps(answer(request(), directive), directive, "req_1"))
    found = events(b"".join(step.data for step in steps))
    assert [event["type"] for event in found].count("content_block_delta") == min(count, 5)
    assert [step.then for step in steps if step.then != "go on"] == [then]
    assert "message_stop" not in [event["type"] for event in found]


def test_an_error_event_ends_a_stream() -> None:
    found = played(request(), Directive(deltas=5, error_after_deltas=2, error_type="api_error", message="oh"))
    assert found[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "oh"},
        "request_id": "req_1",
    }


def test_a_large_answer_is_streamed_in_pieces() -> None:
    directive = Directive(text="word ", repeat=20_000)
    steps = list(stream.steps(answer(request(max_tokens=64_000), directive), directive, "req_1"))
    assert max(len(step.data) for step in steps) < 70_000
    assert len(steps) > 20


def test_a_directive_is_found_in_the_text() -> None:
    found = directives.find('say [[offline: {"tool_calls": [{"name": "f", "input": {"a": [[1]]}}]}]] please')
    assert found is not None
    assert found[1].tool_calls == [ScriptedCall("f", {"a": [[1]]})]
    assert directives.find("nothing here") is None
    last = directives.find('[[offline: {"text": "a"}]] [[offline:{"text": "b"} ]]')
    assert last is not None
    assert last[1].text == "b"


@pytest.mark.parametrize(
    "text",
    [
        "[[offline: ]]",
        "[[offline: {]]",
        '[[offline: {"text": 1}]]',
        '[[offline: {"txet": "a"}]]',
        '[[offline: {"deltas": -1}]]',
        '[[offline: {"deltas": 1000001}]]',
        '[[offline: {"status": 200}]]',
        '[[offline: {"text": "a"}',
        "[[offline: " + "[" * 100_000,
    ],
)
def test_a_bad_directive_is_refused_and_says_so(text: str) -> None:
    with pytest.raises(RefusedError, match="offline directive: "):
        directives.find(text)


def test_faults_heal_after_their_times() -> None:
    scripts = Scripts()
    text = '[[offline: {"status": 529, "times": 2, "text": "well"}]]'
    picked = [scripts.pick("m", text) for _ in range(3)]
    assert [directive.status for directive in picked] == [529, 529, None]
    assert picked[2].text == "well"
    scripts.reset()
    assert scripts.pick("m", text).status == 529


def test_queued_answers_go_first_and_are_used_up() -> None:
    scripts = Scripts()
    scripts.add([Queued(Directive(text="for opus"), Match(model="opus")), Queued(Directive(text="a"))])
    scripts.add([Queued(Directive(text="b"), Match(contains="special"), uses=-1)])
    assert [scripts.pick("haiku", "x").text for _ in range(2)] == ["a", None]
    assert [scripts.pick("haiku", "special").text for _ in range(2)] == ["b", "b"]
    assert scripts.pick("opus", "x").text == "for opus"


def test_a_refusal_carries_what_the_script_says() -> None:
    refusal = Directive(
        status=429, retry_after_s=1.5, message="slow down", headers={"x-should-retry": "false"}
    ).refusal()
    assert (refusal.status, refusal.kind, refusal.message) == (429, "rate_limit_error", "slow down")
    assert refusal.headers == {"retry-after": "1.5", "x-should-retry": "false"}


def marked(*texts: str) -> dict[str, Any]:
    """A conversation whose last user block carries a cache mark."""
    messages: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        messages.append(
            {"role": "assistant" if index % 2 else "user", "content": [{"type": "text", "text": text}]}
        )
    messages[-1]["content"][0]["cache_control"] = {"type": "ephemeral"}
    return {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": messages}


def test_usage_shows_which_part_of_a_prompt_was_cached() -> None:
    cache = PromptCache()
    long = "x" * 8000
    first = cache.split(marked(long))
    assert first.read == 0
    assert first.created >= 2000
    second = cache.split(marked(long, "answer", "y" * 400))
    assert second.read == first.created
    assert 100 <= second.created < 120
    assert cache.split(marked("z" + long)).read == 0
    assert cache.split(marked("short")) == Split()
    usage = answers.compose(marked(long), Directive(), "x", first).usage
    assert usage["cache_creation_input_tokens"] == first.created
    assert usage["input_tokens"] < 10


def test_the_clis_own_tool_for_answers_is_given_one() -> None:
    tool = {**TOOL, "name": "StructuredOutput"}
    (block,) = answer(request(tools=[tool])).blocks
    assert (block["name"], block["input"]) == ("StructuredOutput", {"n": 3})
    (block,) = answer(request(tools=[tool]), Directive(text='{"n": 4}')).blocks
    assert block["input"] == {"n": 4}
    (block,) = answer(request(tools=[tool]), Directive(text="no JSON")).blocks
    assert block == {"type": "text", "text": "no JSON"}


def test_words_in_the_system_prompt_are_obeyed_as_parameters_are() -> None:
    def called(words: str, **more: Any) -> list[str]:
        other = {**TOOL, "name": "g"}
        found = answer(request(system=words, tools=[TOOL, other]), Directive(**more)).blocks
        return [block["name"] for block in found if block["type"] == "tool_use"]

    assert called("Your next answer must call the tool g.") == ["g"]
    assert called("Your next answer must call the tool h.") == []
    assert called("Be brief. Your next answer must call one of the tools.") == ["f"]
    two = [ScriptedCall("f"), ScriptedCall("g")]
    assert called("Call at most one tool in an answer.", tool_calls=two) == ["f"]
    assert called("Be brief.", tool_calls=two) == ["f", "g"]
    schema = json.dumps(TOOL["input_schema"])
    (block,) = answer(request(system=f"JSON that is valid by this JSON schema: {schema}")).blocks
    assert json.loads(block["text"]) == {"n": 3}
