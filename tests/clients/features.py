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


def features(api: str) -> list[str]:
    """The features of an API, in the table's order."""
    return [name for name in TITLES if name not in _ELSEWHERE[api]]
