"""Answers that may be given again: one store for all processes of the gateway, in memory only.

An answer is kept under a digest of everything that it may depend on, the tenant first (`key_of`). Entries stand in
the order in which they were made, so what is too old and what is too much is always at the front, and every
operation but `purge` of many is a few dictionary steps. Nothing is written to disk: a restart forgets all.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, NamedTuple

import msgspec

from ccd_daemon.config import CacheSettings
from ccd_protocol.methods import CacheStats, ChatParams

#: A digest of this much takes 2 ms, in which the daemon does nothing else.
MAX_CALL_BYTES = 2 << 20
#: What an entry takes besides its answer: digest, tuple, dictionary slot.
_ENTRY_BYTES = 300
#: Not part of what is asked: whose it is and how it is kept stand elsewhere in the key, and the conversation only
#: says where the answer is noted; what was said in it is among the messages.
_NOT_ASKED = frozenset({"tenant", "cache", "conversation_id"})


def key_of(tenant: str, scene: tuple[str | None, ...], chat: ChatParams) -> bytes | None:
    """Returns the digest that an answer is kept under; None for a call that would take long to digest.

    Everything is encoded with its type and length, so nothing can run into its neighbour. The order of keys inside of
    a parameter counts (a model may read it), that of the parameters does not.

    Args:
        tenant: whose it is.
        scene: what else decides the answer: profile, model, mode, version of the CLI.
        chat: the validated call, the history of its conversation included.

    Raises:
        ValueError, TypeError, OverflowError, RecursionError: the call has a value that cannot be encoded.
    """
    asked = [[name, value] for name, value in sorted(chat.items()) if name not in _NOT_ASKED]
    named = chat.get("cache", {}).get("key", "")
    encoded = msgspec.msgpack.encode([tenant, named, list(scene), asked])
    return None if len(encoded) > MAX_CALL_BYTES else hashlib.sha256(encoded).digest()


class _Entry(NamedTuple):
    made_s: float
    answer: bytes


class AnswerCache:
    """The store. The clock is given: seconds that only grow."""

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0
        self._hits = 0

    @property
    def enabled(self) -> bool:
        """Whether there is a cache at all; one without room or time is none."""
        settings = self._settings
        return settings.enabled and settings.max_entries > 0 and settings.ttl_s > 0

    def get(self, key: bytes, now_s: float, max_age_s: float | None = None) -> Any | None:
        """Returns the answer under a key, a copy of its own for every caller, or None.

        Args:
            key: of `key_of`.
            now_s: the time.
            max_age_s: an older one will not do; `cache.ttl_s` bounds it anyway.
        """
        self.purge(now_s)
        found = self._entries.get(key)
        if found is None or (max_age_s is not None and now_s - found.made_s > max_age_s):
            return None
        self._hits += 1
        return msgspec.msgpack.decode(found.answer)

    def put(self, key: bytes, answer: Any, now_s: float) -> None:
        """Keep an answer in place of an older one; one that alone is larger than the cache is not kept."""
        encoded = msgspec.msgpack.encode(answer)
        self._drop(key)
        if len(encoded) + _ENTRY_BYTES > self._settings.max_bytes:
            return
        self._entries[key] = _Entry(now_s, encoded)
        self._bytes += len(encoded) + _ENTRY_BYTES
        self.purge(now_s)

    def purge(self, now_s: float) -> None:
        """Forget what is too old or too much, the oldest first."""
        settings = self._settings
        while self._entries:
            oldest = next(iter(self._entries))
            fresh = now_s - self._entries[oldest].made_s < settings.ttl_s
            if fresh and len(self._entries) <= settings.max_entries and self._bytes <= settings.max_bytes:
                return
            self._drop(oldest)

    def stats(self, now_s: float) -> CacheStats:
        """Returns what is in it, and how often it has answered since the daemon started."""
        self.purge(now_s)
        return CacheStats(
            enabled=self.enabled,
            total_entries=len(self._entries),
            total_hits=self._hits,
            total_bytes=self._bytes,
        )

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.answer) + _ENTRY_BYTES
