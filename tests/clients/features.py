"""The features that clients are shown to have: the rows of the compatibility tables."""

from __future__ import annotations

APIS = {"chat": "Chat Completions", "responses": "Responses", "messages": "Messages"}

#: Feature -> what the table calls it.
TITLES = {
    "conformance": "published schemas, checked by llm-comply",
    "plain": "answer",
    "stream": "streamed answer",
    "usage": "token usage, cache included",
    "system": "system prompt, exact",
    "turns": "conversation of several turns",
    "tool": "tool call; its schema reaches the model unchanged",
    "tools_parallel": "parallel tool calls",
    "tools_streamed": "streamed tool calls",
    "tool_loop": "tool loop, to the answer",
    "tool_choice": "tool choice",
    "json_schema": "structured output by a schema",
    "json_object": "JSON mode",
    "reasoning": "reasoning, shown",
    "images": "images",
    "files": "PDF files",
    "choices": "several answers at once (`n`)",
    "sampling": "temperature, length limit, end user",
    "stop": "stop texts",
    "length": "answer cut by the length limit, reported",
    "refusal": "refusal, reported",
    "broken": "failure in mid-stream, reported",
    "errors": "401, 404, 429 as the client's own errors",
    "retry_after": "Retry-After, obeyed",
    "cancel": "leaving a stream stops the model",
    "counting": "counting tokens",
    "models": "list of models",
    "stored": "stored responses, `previous_response_id`",
    "background": "background responses: polled, replayed, cancelled",
    "conversation": "`conversation_id`",
    "request_id": "`X-Request-ID`",
}
_ELSEWHERE = {
    "chat": {"counting", "stored", "background"},
    "responses": {"choices", "stop", "models", "conversation"},
    "messages": {"choices", "json_object", "stored", "background", "conversation"},
}


#: What the mode `replay` cannot do as these tests want it, and what it does instead; in all APIs, or in those named.
REPLAY: dict[str, tuple[tuple[str, ...], str]] = {
    "system": (("messages",), "notes among the messages are told by the user, marked as reminders"),
    "tool": (
        ("chat", "responses"),
        "`strict` of a tool has no knob; everything else of it reaches the model unchanged",
    ),
    "tool_loop": (
        ("messages",),
        "`caller` of a call is left out; everything else of the loop is as it was sent",
    ),
    "tools_parallel": (("chat", "responses"), "`parallel_tool_calls: false` is told to the model in words"),
    "tool_choice": (
        tuple(APIS),
        "`none` and `auto` are honoured; other choices are told to the model in words",
    ),
    "json_schema": (
        tuple(APIS),
        "by the CLI's own tool, or in words, and checked: not by the API's parameter",
    ),
    "sampling": (tuple(APIS), "the length limit is honoured; `temperature` and the end user have no knob"),
    "stop": (tuple(APIS), "stop texts have no knob"),
    "reasoning": (("messages",), "shown, but how much is the CLI's choice: the newest models take no budget"),
}


def impossible(api: str, feature: str, mode: str | None) -> bool:
    """Whether a feature cannot be had in a mode that was forced on the tests."""
    return mode == "replay" and api in REPLAY.get(feature, ((), ""))[0]


def features(api: str) -> list[str]:
    """The features of an API, in the table's order."""
    return [name for name in TITLES if name not in _ELSEWHERE[api]]
