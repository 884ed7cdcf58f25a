"""Keeps the signed thinking of tool turns, because OpenAI clients do not send it back and the API wants it.

A signature is good for the model that gave it and for no other, so thinking is remembered with its model. Ids of calls
may repeat (some APIs count them anew in every turn), so a call is known by its name and arguments too.

Bounded in bytes; what was used longest ago goes first. Keys hold the tenant, so nobody is ever given another's.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from ccd_protocol.chat.history import original_id
from ccd_protocol.methods import ChatParams, Message

Block = dict[str, Any]
_THINKING = ("thinking", "redacted_thinking")
_BLOCK_OVERHEAD_BYTES = 200
_MAX_SAME_ID = 256  # calls of one id that are told apart
_NOT_OF_THE_NAME = re.compile(r"\[1m\]\Z|-\d{8}\Z|-latest\Z")


class Signer(NamedTuple):
    """The model that an answer was asked of (None: the CLI's default), and the one that the API says it is of."""

    asked: str | None
    answered: str

    def takes_back(self, asked: str | None, resolved: str) -> bool:
        """Returns whether a model, by what it is asked as and by its full name, is this one."""
        return self.asked == asked or stem(self.answered) == stem(resolved)


class _Thought(NamedTuple):
    """What was thought before a call."""

    signer: Signer
    call: bytes
    blocks: tuple[Block, ...]
    bytes: int


class Recalled(NamedTuple):
    """A chat with the thinking that is remembered of it; `missing` when the open calls are still without."""

    chat: ChatParams
    missing: bool


class Thoughts:
    """Thinking blocks by tenant and tool call."""

    def __init__(self, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str], list[_Thought]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, tenant: str, signer: Signer, content: Sequence[Block]) -> None:
        """Remember the thinking that came before a message's tool calls."""
        blocks = tuple(block for block in content if block.get("type") in _THINKING)
        size = sum(
            _BLOCK_OVERHEAD_BYTES + sum(len(str(value)) for value in block.values()) for block in blocks
        )
        if not blocks or size > self._max_bytes:
            return
        for call in _calls(content):
            thought = _Thought(signer, _digest(call), blocks, size)
            self._add((tenant, str(call.get("id"))), thought)
        while self._bytes > self._max_bytes:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= sum(thought.bytes for thought in gone)

    def _add(self, key: tuple[str, str], thought: _Thought) -> None:
        known = self._kept.setdefault(key, [])
        same = [old for old in known if old.call == thought.call and old.signer == thought.signer]
        for old in same or known[: len(known) - _MAX_SAME_ID + 1]:
            known.remove(old)
            self._bytes -= old.bytes
        known.append(thought)
        self._bytes += thought.bytes
        self._kept.move_to_end(key)

    def restore(self, tenant: str, asked: str | None, resolved: str, chat: ChatParams) -> Recalled:
        """Put thinking back before tool calls in the history.

        Only the last assistant message can have open calls: its results are what the model answers now.

        Args:
            tenant: whose.
            asked: the model that is asked now, as the call names it.
            resolved: its full name.
            chat: is not changed.
        """
        messages = chat["messages"]
        missing_at = -1
        restored: list[Message] = []
        for index, message in enumerate(messages):
            calls = _calls_without_thinking(message)
            found = self._find(tenant, asked, resolved, calls)
            if calls and not found:
                missing_at = index
            restored.append({**message, "content": [*found, *message["content"]]} if found else message)
        missing = missing_at >= 0 and missing_at >= len(messages) - 2
        return Recalled({**chat, "messages": restored}, missing)

    def _find(
        self, tenant: str, asked: str | None, resolved: str, calls: Sequence[Block]
    ) -> tuple[Block, ...]:
        for call in calls:
            given = str(call.get("id"))
            for call_id in dict.fromkeys((given, original_id(given))):
                known = self._kept.get((tenant, call_id), ())
                digest = _digest(call) if len(known) > 1 else b""
                for thought in known:
                    if (not digest or thought.call == digest) and thought.signer.takes_back(asked, resolved):
                        self._kept.move_to_end((tenant, call_id))
                        return thought.blocks
        return ()


def without_thinking(chat: ChatParams) -> ChatParams:
    """Returns a chat without the thinking in its history, for a model that it is not of."""
    messages: list[Message] = []
    for message in chat["messages"]:
        content = message["content"]
        if not isinstance(content, str):
            content = [block for block in content if block.get("type") not in _THINKING]
        if content:
            messages.append({**message, "content": content})
    return {**chat, "messages": messages}


def thinks_in_its_past(chat: ChatParams) -> bool:
    """Returns whether there is thinking in a chat's history."""
    return any(
        block.get("type") in _THINKING
        for message in chat["messages"]
        if not isinstance(message["content"], str)
        for block in message["content"]
    )


def stem(model: str) -> str:
    """Returns a model's name without its date and without the size of its context."""
    while (shorter := _NOT_OF_THE_NAME.sub("", model)) != model:
        model = shorter
    return model


def _calls(content: Iterable[Block]) -> list[Block]:
    return [block for block in content if block.get("type") == "tool_use"]


def _calls_without_thinking(message: Message) -> list[Block]:
    content = message["content"]
    if message["role"] != "assistant" or isinstance(content, str):
        return []
    if any(block.get("type") in _THINKING for block in content):
        return []
    return _calls(content)


def _digest(call: Block) -> bytes:
    """Returns what a call says; clients write numbers their own way."""
    said = json.dumps([call.get("name"), _plain(call.get("input"))], sort_keys=True, default=str)
    return blake2b(said.encode(errors="surrogatepass"), digest_size=12).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
