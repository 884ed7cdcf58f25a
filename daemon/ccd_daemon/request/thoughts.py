"""Keeps the signed thinking of tool turns, because OpenAI clients do not send it back and the API wants it.

Bounded in bytes; what was used longest ago goes first. Keys hold the tenant, so nobody is ever given another's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from ccd_protocol.methods import ChatParams, Message

Block = dict[str, Any]
_THINKING = ("thinking", "redacted_thinking")
_BLOCK_OVERHEAD_BYTES = 200


class Thoughts:
    """Thinking blocks by tenant and tool call."""

    def __init__(self, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str], tuple[int, tuple[Block, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, tenant: str, call_ids: Iterable[str], blocks: Iterable[Block]) -> None:
        """Remember the thinking that came before a message's tool calls."""
        kept = tuple(blocks)
        size = sum(_BLOCK_OVERHEAD_BYTES + sum(len(str(value)) for value in block.values()) for block in kept)
        if not kept or size > self._max_bytes:
            return
        for call_id in call_ids:
            self._drop((tenant, call_id))
            self._kept[tenant, call_id] = (size, kept)
            self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[str, str]) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= found[0]

    def restore(self, tenant: str, chat: ChatParams) -> bool:
        """Put thinking back before tool calls in the history; True when the open ones are still without.

        Only the last assistant message can have open calls: its results are what the model answers now.
        """
        messages = chat["messages"]
        missing_at = -1
        restored: list[Message] = []
        for index, message in enumerate(messages):
            calls = _calls_without_thinking(message)
            found = self._find(tenant, calls)
            if calls and not found:
                missing_at = index
            restored.append({**message, "content": [*found, *message["content"]]} if found else message)
        chat["messages"] = restored
        return missing_at >= 0 and missing_at >= len(messages) - 2

    def _find(self, tenant: str, call_ids: list[str]) -> tuple[Block, ...]:
        for call_id in call_ids:
            entry = self._kept.get((tenant, call_id))
            if entry is not None:
                self._kept.move_to_end((tenant, call_id))
                return entry[1]
        return ()


def _calls_without_thinking(message: Message) -> list[str]:
    content = message["content"]
    if message["role"] != "assistant" or isinstance(content, str):
        return []
    if any(block.get("type") in _THINKING for block in content):
        return []
    return [str(block.get("id")) for block in content if block.get("type") == "tool_use"]
