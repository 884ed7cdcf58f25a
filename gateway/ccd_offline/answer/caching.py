"""Prompt caching, as far as usage figures show it: which part of a prompt was seen before.

Like the real API: an entry is written at each `cache_control` mark, a lookup tries the ends of the 20 blocks
before a mark, and prefixes under 1,024 tokens are not kept. Entries do not expire by time.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from ccd_offline import tokens
from ccd_offline.rules.messages import as_blocks

MAX_ENTRIES = 10_000
_LEAST_TOKENS = 1024
_LOOK_BACK_BLOCKS = 20


class Split(NamedTuple):
    """Tokens of a prompt that came from the cache, and that went into it."""

    read: int = 0
    created: int = 0


class PromptCache:
    """Digests of the prefixes that were marked. Bounded, least recently used first out."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def split(self, body: dict[str, Any]) -> Split:
        """What of a valid request is read from the cache and written to it; then it is written."""
        ends, marks = _ends(body)
        if not marks:
            return Split()
        read = self._longest_known(ends, marks)
        for mark in marks:
            digest, length = ends[mark]
            if length >= _LEAST_TOKENS:
                self._keep(digest)
        last = ends[marks[-1]][1]
        return Split(read, last - read if last >= _LEAST_TOKENS else 0)

    def _longest_known(self, ends: list[tuple[bytes, int]], marks: list[int]) -> int:
        for mark in reversed(marks):
            for digest, length in reversed(ends[max(0, mark - _LOOK_BACK_BLOCKS) : mark + 1]):
                if digest in self._seen:
                    self._seen.move_to_end(digest)
                    return length
        return 0

    def _keep(self, digest: bytes) -> None:
        self._seen[digest] = None
        self._seen.move_to_end(digest)
        if len(self._seen) > MAX_ENTRIES:
            self._seen.popitem(last=False)


def _ends(body: dict[str, Any]) -> tuple[list[tuple[bytes, int]], list[int]]:
    """Digest and tokens of the prompt up to the end of each block, and which blocks are marked."""
    parts = list(_parts(body))
    marks = [index for index, (_, block) in enumerate(parts) if block.get("cache_control") is not None]
    if not marks:
        return [], []
    state = hashlib.blake2b(msgspec.json.encode(body["model"]), digest_size=16)
    ends = []
    chars = 0
    for place, block in parts[: marks[-1] + 1]:
        bare = {key: value for key, value in block.items() if key != "cache_control"}
        state.update(msgspec.json.encode([place, bare]))
        chars += tokens.chars(bare)
        ends.append((state.digest(), tokens.of_chars(chars)))
    return ends, marks


def _parts(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from (("tool", tool) for tool in body.get("tools") or [])
    system = body.get("system") or []
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system
    yield from (("system", block) for block in blocks)
    for message in body["messages"]:
        yield from ((message["role"], block) for block in as_blocks(message))
