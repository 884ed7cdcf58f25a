"""Every parameter of the three APIs, sent to the gateway, and what became of it: seen, not read from a table.

A parameter is honoured where the model's API received something else than without it, or the answer is another one;
refused where the gateway says 400; ignored where the gateway names it. One of which nothing is seen is a fault, unless
its value asks for nothing.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from itertools import count
from typing import Any, NamedTuple

from ccd_gateway.anthropic.schema import MessagesRequest
from ccd_gateway.chat.schema import ChatBody
from ccd_gateway.responses.schema import ResponsesRequest
from fakes.stack import Stack

MODEL = "claude-sonnet-4-6"
NEWEST = "sonnet"  # takes no sampling parameters
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION = {"name": "f", "parameters": CITY}
TOOL = {"type": "function", "function": FUNCTION}
FLAT_TOOL = {"type": "function", **FUNCTION}
NATIVE_TOOL = {"name": "f", "input_schema": CITY}
# Keys of an answer that differ each time, or with what differs each time.
_VOLATILE = frozenset(["id", "created", "created_at", "completed_at", "usage", "output", "content"])
_MAX_SHOWN_CHARS = 60
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_numbers = count(1)


@dataclass(frozen=True)
class Sample:
    """A value of a parameter, and what else must be there for it to mean something."""

    name: str
    value: Any
    beside: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)  # where the clients' libraries send it as a header
    shown: str | None = None  # how the document writes the value
    feature: str | None = None  # the clients' feature that shows that it is honoured
    inert: bool = False  # whether the value asks for nothing

    @property
    def text(self) -> str:
        """The value for people."""
        text = self.shown or json.dumps(self.value)
        return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"


def _plain(**values: Any) -> list[Sample]:
    return [Sample(name, value) for name, value in values.items()]


_USED = {"user": "u-1", "safety_identifier": "u-1", "metadata": {"user_id": "u-1"}}

SAMPLES: dict[str, list[Sample]] = {
    "chat": [
        Sample("model", MODEL, feature="plain"),
        Sample("messages", [], shown="see the features above", feature="turns"),
        Sample("stream", True, feature="stream"),
        Sample("stream_options", {"include_usage": True}, beside={"stream": True}, feature="usage"),
        Sample("stream_options", {"include_usage": True}, shown='{"include_usage": true}, not streamed'),
        Sample("stream_options", {"include_obfuscation": True}, beside={"stream": True}),
        Sample("n", 2, feature="choices"),
        *_plain(max_tokens=77, max_completion_tokens=77, temperature=0.25, top_p=0.5, top_k=7, stop=["END"]),
        Sample("max_tokens", 0),
        Sample("temperature", 1.5),
        Sample("temperature", 0.25, beside={"model": NEWEST}, shown="0.25, of the newest models"),
        Sample("top_p", 0.5, beside={"model": NEWEST}, shown="0.5, of the newest models"),
        Sample("stop", "\n"),
        *_plain(**_USED),
        Sample("metadata", {"key": "value"}),
        *_plain(tools=[TOOL], functions=[FUNCTION]),
        Sample(
            "tools",
            [
                {
                    "type": "function",
                    "function": {"name": "f", "parameters": {"type": "object"}, "strict": True},
                }
            ],
            shown="strict, with a schema that the model API cannot hold to",
        ),
        Sample("tools", [{"type": "custom", "custom": {"name": "c"}}]),
        Sample("tool_choice", "required", beside={"tools": [TOOL]}),
        Sample("tool_choice", "none", beside={"tools": [TOOL]}),
        Sample("tool_choice", {"type": "function", "function": {"name": "f"}}, beside={"tools": [TOOL]}),
        Sample("parallel_tool_calls", False, beside={"tools": [TOOL]}),
        Sample("function_call", {"name": "f"}, beside={"functions": [FUNCTION]}),
        Sample("response_format", {"type": "text"}, inert=True),
        Sample("response_format", {"type": "json_schema", "json_schema": {"name": "n", "schema": CITY}}),
        Sample("response_format", {"type": "json_object"}, feature="json_object"),
        *_plain(reasoning_effort="low", thinking={"type": "enabled", "budget_tokens": 1024}),
        *_plain(
            seed=1,
            logit_bias={"1": 2},
            frequency_penalty=0.5,
            presence_penalty=0.5,
            verbosity="low",
            store=True,
        ),
        *_plain(logprobs=True, top_logprobs=2, moderation={"model": "m"}, web_search_options={}),
        *_plain(prediction={"type": "content", "content": "x"}, audio={"format": "wav", "voice": "v"}),
        *_plain(prompt_cache_key="k", prompt_cache_options={"mode": "m"}, prompt_cache_retention="24h"),
        *_plain(service_tier="default"),
        Sample("service_tier", "auto", inert=True),
        Sample("service_tier", "flex"),
        Sample("modalities", ["text"], inert=True),
        Sample("modalities", ["text", "audio"]),
        Sample("conversation_id", "c-1", feature="conversation"),
        Sample("a parameter that the API does not have", 1),
    ],
    "responses": [
        Sample("model", MODEL, feature="plain"),
        Sample("input", [], shown="see the features above", feature="turns"),
        Sample("stream", True, feature="stream"),
        Sample("stream_options", {"include_obfuscation": False}, beside={"stream": True}, inert=True),
        Sample("stream_options", {"include_obfuscation": True}, beside={"stream": True}),
        *_plain(
            instructions="Be brief.", max_output_tokens=77, temperature=0.25, top_p=0.5, tools=[FLAT_TOOL]
        ),
        Sample("temperature", 1.5),
        Sample("temperature", 0.25, beside={"model": NEWEST}, shown="0.25, of the newest models"),
        Sample("tools", [{"type": "web_search"}]),
        Sample("tool_choice", "required", beside={"tools": [FLAT_TOOL]}),
        Sample("tool_choice", {"type": "function", "name": "f"}, beside={"tools": [FLAT_TOOL]}),
        Sample("parallel_tool_calls", False, beside={"tools": [FLAT_TOOL]}),
        Sample("text", {"format": {"type": "json_schema", "name": "n", "schema": CITY}}),
        Sample("text", {"format": {"type": "json_object"}}, feature="json_object"),
        Sample("text", {"verbosity": "low"}),
        Sample("reasoning", {"effort": "low"}),
        Sample("reasoning", {"summary": "auto"}, feature="reasoning"),
        *_plain(**_USED),
        Sample("store", False, feature="stored"),
        Sample("previous_response_id", "resp_1", shown="that of a stored response", feature="stored"),
        Sample("previous_response_id", "resp_1", shown="that of none"),
        Sample("background", True, feature="background"),
        *_plain(
            background_options={"x": 1}, max_tool_calls=2, prompt_cache_key="k", prompt_cache_retention="24h"
        ),
        *_plain(
            include=["reasoning.encrypted_content"], truncation="auto", top_logprobs=2, service_tier="flex"
        ),
        Sample("service_tier", "auto", inert=True),
        *_plain(conversation="conv_1", prompt={"id": "p"}, moderation={"model": "m"}, image={"x": 1}),
        *_plain(
            prompt_cache_options={"mode": "m"}, access_programs=["x"], context_management=[{"type": "x"}]
        ),
        Sample("a parameter that the API does not have", 1),
    ],
    "messages": [
        Sample("model", MODEL, feature="plain"),
        Sample("messages", [], shown="see the features above", feature="turns"),
        Sample("stream", True, feature="stream"),
        *_plain(max_tokens=77, system="Be brief.", stop_sequences=["END"], temperature=0.25, top_k=7),
        *_plain(top_p=0.5),
        Sample("temperature", 0.25, beside={"model": NEWEST}, shown="0.25, of the newest models"),
        Sample("temperature", 1.5),
        *_plain(tools=[NATIVE_TOOL], metadata={"user_id": "u-1"}, service_tier="standard_only"),
        Sample("tool_choice", {"type": "any"}, beside={"tools": [NATIVE_TOOL]}),
        Sample("thinking", {"type": "enabled", "budget_tokens": 1024}, beside={"max_tokens": 2000}),
        Sample("output_config", {"format": {"type": "json_schema", "schema": CITY}}),
        Sample("output_format", {"type": "json_schema", "schema": CITY}),
        *_plain(cache_control={"type": "ephemeral"}, container="c", inference_geo="us", speed="fast"),
        *_plain(
            context_management={"edits": []},
            mcp_servers=[{"type": "url", "url": "https://example.org", "name": "m"}],
        ),
        *_plain(
            diagnostics={"x": 1}, fallbacks=[{"model": "m"}], billing_policy={"x": 1}, compaction={"x": 1}
        ),
        *_plain(fallback_credit_token="t", thread={"id": "t"}),
        Sample("betas", "x", headers={"anthropic-beta": "x-2026-01-01"}, shown="the header `anthropic-beta`"),
        Sample("user_profile_id", "x", headers={"anthropic-user-profile-id": "x"}, shown="a header"),
        Sample("workspace_id", "x", headers={"anthropic-workspace-id": "x"}, shown="a header"),
        Sample("a parameter that the API does not have", 1),
    ],
}


class Seen(NamedTuple):
    """What was seen of one request."""

    status: int
    ignored: list[str]
    received: dict[str, Any]  # by the model's API: its body, and its beta header
    answer: dict[str, Any]


class Probe:
    """Sends samples to one API."""

    def __init__(self, stack: Stack, api: str) -> None:
        self._stack = stack
        self._api = api
        self._plain: dict[str, Seen] = {}  # by what stands beside the sample
        self._newest = stack.api.newest()

    def fate(self, sample: Sample) -> str:
        """What becomes of a sample, in the document's words.

        Raises:
            AssertionError: nothing is seen of it, although it asks for something.
        """
        if sample.feature is not None:
            return "honoured"  # its clients' tests say so
        beside = json.dumps(sample.beside)
        if beside not in self._plain:
            self._plain[beside] = self._ask(sample.beside, {})
        before = self._plain[beside]
        fields = {} if sample.headers else {sample.name: sample.value}
        after = self._ask({**sample.beside, **fields}, sample.headers)
        assert before.status == 200, before
        return _judged(sample, before, after)

    def _ask(self, fields: dict[str, Any], headers: dict[str, str]) -> Seen:
        mark = f"<parameter-{next(_numbers)}>"
        prompt = {"messages": [{"role": "user", "content": mark}]}
        body: dict[str, Any] = {"model": MODEL, **({"input": mark} if self._api == "responses" else prompt)}
        body |= {"max_tokens": 500} if self._api == "messages" else {}
        status, found, raw = _post(self._stack.url + PATHS[self._api], {**body, **fields}, headers)
        named = [word for word in (found["x-ccd-ignored"] or "").split(", ") if word]
        answer = {"stream": True}
        if found.get_content_type() == "text/event-stream":
            named += [word for words in _ignored_in(raw) for word in words]
        else:
            answer = json.loads(raw.replace(mark, "<mark>"))
        return Seen(status, named, self._received(mark), answer)

    def _received(self, mark: str) -> dict[str, Any]:
        requests = self._stack.api.requests(after=self._newest)
        self._newest = max([self._newest, *(request["seq"] for request in requests)])
        for request in reversed(requests):
            text = json.dumps(request["body"])
            if mark in text:
                body: dict[str, Any] = json.loads(text.replace(mark, "<mark>"))
                return {**body, "anthropic-beta": request["headers"].get("anthropic-beta")}
        return {}


def _post(url: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Message, str]:
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with _opener.open(request, timeout=60) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def _ignored_in(raw: str) -> Iterator[list[str]]:
    for line in raw.splitlines():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            yield event.get("ccd_ignored") or event.get("response", {}).get("ccd_ignored") or []


def _judged(sample: Sample, before: Seen, after: Seen) -> str:
    name = sample.name.replace(" ", "?")
    named = [word for word in after.ignored if word in sample.headers or word.startswith((name, sample.name))]
    if after.status == 400:
        error = after.answer["error"]
        return f"refused: 400 `{error.get('code') or error['type']}`"
    assert after.status == 200, after
    changed = sorted(_changed(before.received, after.received))
    if changed:
        shown = f"honoured: `{'`, `'.join(changed)}` of the model API's request"
        return f"{shown}; named as ignored in part" if named else shown
    if named:
        return "ignored, and named"
    answered = _changed(before.answer, after.answer) - _VOLATILE
    if answered:
        assert answered == {sample.name}, answered
        return "repeated in the answer, without effect"
    assert sample.inert, f"nothing is seen of {sample.name} = {sample.text}"
    return "asks for nothing"


def _changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def known_fields(api: str) -> set[str]:
    """The parameters that the gateway has a type for."""
    kind = {"chat": ChatBody, "responses": ResponsesRequest, "messages": MessagesRequest}[api]
    return set(kind.__struct_fields__)
