"""Token counts without a tokenizer: four characters to a token, a flat price for media."""

from __future__ import annotations

from typing import Any

CHARS_PER_TOKEN = 4
MEDIA_TOKENS = 1600
_OVERHEAD_TOKENS = 4  # what the wrapping of one message costs


def of_chars(count: int) -> int:
    """Tokens of a number of characters, rounded up."""
    return -(-count // CHARS_PER_TOKEN)


def of_request(body: dict[str, Any]) -> int:
    """The estimate for a request: its system prompt, its messages and its tools."""
    count = chars(body.get("system")) + chars(body.get("tools"))
    messages = body.get("messages") or []
    count += sum(chars(message.get("content")) for message in messages)
    return of_chars(count) + _OVERHEAD_TOKENS * len(messages)


def chars(value: Any) -> int:
    """Characters of all strings below a JSON value; media count flat, whatever their size."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(chars, value))
    if not isinstance(value, dict):
        return 8 if value is not None else 0
    if value.get("type") in ("image", "document") and "source" in value:
        return _media(value)
    return sum(chars(inner) for inner in value.values())


def _media(block: dict[str, Any]) -> int:
    source = block["source"]
    if isinstance(source, dict) and source.get("type") == "text":
        return chars(source.get("data"))
    return MEDIA_TOKENS * CHARS_PER_TOKEN
