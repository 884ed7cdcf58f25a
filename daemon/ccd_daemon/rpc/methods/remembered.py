"""Whole answers with a cache before them: which calls may use it, and one question for callers that ask the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, cast

from ccd_daemon.request.body import bad
from ccd_daemon.store.answer_cache import AnswerCache
from ccd_protocol.methods import CacheStats, ChatParams, ChatResult

Answered: TypeAlias = tuple[ChatResult, list[dict[str, Any]]]

_MAX_KEY_CHARS = 200
#: Ends of an answer that would be the same the next time. A refusal or a pause is not an answer to keep.
_KEPT_ENDS = frozenset({"end_turn", "stop_sequence", "max_tokens", "tool_use"})
_TOOL_BLOCKS = frozenset({"tool_use", "tool_result"})


def check(chat: ChatParams) -> None:
    """Check the `cache` parameter.

    Raises:
        RpcError: BAD_PARAMS.
    """
    use = chat.get("cache")
    if use is None:
        return
    if not 0 < len(use.get("key", "")) <= _MAX_KEY_CHARS:
        raise bad("cache.key", f"cache.key is a text of 1 to {_MAX_KEY_CHARS} characters")
    if not use.get("max_age_s", 0.0) >= 0:
        raise bad("cache.max_age_s", "cache.max_age_s must not be negative")


def uses_tools(chat: ChatParams) -> bool:
    """Whether tools are part of a chat, or were; a cached answer would say what they did without its being done."""
    if chat.get("tools") or chat.get("extra_body"):
        return True
    contents = (message["content"] for message in chat["messages"])
    return any(
        block.get("type") in _TOOL_BLOCKS
        for content in contents
        if not isinstance(content, str)
        for block in content
    )


class Remembered:
    """Answers from the cache, or asks and keeps the answer. `clock` tells seconds that only grow."""

    def __init__(self, cache: AnswerCache, clock: Callable[[], float], *, with_tools: bool) -> None:
        self._cache = cache
        self._clock = clock
        self._with_tools = with_tools
        self._asking: dict[bytes, asyncio.Future[None]] = {}

    def stats(self) -> CacheStats:
        """Returns what the cache holds."""
        return self._cache.stats(self._clock())

    async def answer(
        self, chat: ChatParams, key: Callable[[], bytes | None], ask: Callable[[], Awaitable[Answered]]
    ) -> Answered:
        """Returns the answer to a chat; its result says in `cache` where it came from, unless there is no cache.

        Callers that ask the same at the same time wait for the first of them. When that one fails or leaves, or its
        answer is not to be kept, each of them asks for itself.

        Args:
            chat: the call.
            key: makes the key, None for a call that has none; only called when it is needed.
            ask: asks the model.
        """
        if not self._cache.enabled or "cache" not in chat:
            return await ask()
        use = chat["cache"]
        max_age_s, store = use.get("max_age_s"), use.get("store", True)
        looks = max_age_s != 0
        name = key() if (looks or store) and (self._with_tools or not uses_tools(chat)) else None
        if name is None:
            return _marked(await ask(), "bypass")
        found = await self._found(name, max_age_s) if looks else None
        if found is not None:
            return found
        answered = await self._asked(name, ask) if store else await ask()
        return _marked(answered, "miss" if looks else "bypass")

    async def _found(self, name: bytes, max_age_s: float | None) -> Answered | None:
        found = self._cache.get(name, self._clock(), max_age_s)
        asking = self._asking.get(name)
        if found is None and asking is not None:
            await asyncio.wait([asking])
            found = self._cache.get(name, self._clock(), max_age_s)
        if found is None:
            return None
        result, content = cast(Answered, found)
        # What it cost was paid by the first who asked.
        return {**result, "cost_usd": 0.0, "api_calls": 0, "duration_ms": 0, "cache": "hit"}, content

    async def _asked(self, name: bytes, ask: Callable[[], Awaitable[Answered]]) -> Answered:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        leads = self._asking.setdefault(name, mine) is mine
        try:
            answered = await ask()
            if _worth_keeping(answered[0]):
                self._cache.put(name, answered, self._clock())
            return answered
        finally:
            if leads:
                del self._asking[name]
                mine.set_result(None)


def _worth_keeping(result: Mapping[str, Any]) -> bool:
    """Whether the next caller should get the same: not a refusal, nor what another model said in the model's place."""
    return result["stop_reason"] in _KEPT_ENDS and not result.get("fallback")


def _marked(answered: Answered, word: str) -> Answered:
    result, content = answered
    return {**result, "cache": word}, content
