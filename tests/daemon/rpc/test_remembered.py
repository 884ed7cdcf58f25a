"""Whole answers with a cache before them: what may come from it, what is kept, and callers who ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ccd_daemon.config import CacheSettings as Settings
from ccd_daemon.rpc.methods.remembered import Answered, Remembered, check, uses_tools
from ccd_daemon.store.answer_cache import AnswerCache
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.methods import ChatParams, ChatResult


def result(**more: Any) -> ChatResult:
    usual: dict[str, Any] = {
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "model": "m",
        "usage": {"input_tokens": 3, "output_tokens": 4},
        "cost_usd": 0.5,
        "duration_ms": 7,
        "api_calls": 1,
        "worker": "w1",
        "mode": "full",
        "ignored": [],
    }
    return ChatResult(**{**usual, **more})  # type: ignore[typeddict-item]


class Asked:
    """A model: counts the questions; each answer is another. `gate` holds answers back where one is given."""

    def __init__(self, gate: asyncio.Event | None = None, **more: Any) -> None:
        self.count = 0
        self.gate = gate
        self.more = more
        self.fail_first = False

    async def __call__(self) -> Answered:
        self.count += 1
        number = self.count
        if self.gate is not None:
            await self.gate.wait()
        if self.fail_first and number == 1:
            raise RpcError(Code.UPSTREAM_OVERLOADED)
        return result(**self.more), [{"type": "text", "text": f"answer {number}"}]


class Front:
    """Remembered answers to one question."""

    def __init__(self, asked: Callable[[], Awaitable[Answered]], **settings: Any) -> None:
        self.settings = Settings(**{"enabled": True, **settings})
        self.now_s = 0.0
        self.remembered = Remembered(
            AnswerCache(self.settings), lambda: self.now_s, with_tools=self.settings.tools
        )
        self.asked = asked

    async def ask(self, **chat: Any) -> tuple[str | None, str, dict[str, Any]]:
        """The `cache` word, the text and the result."""
        params: dict[str, Any] = {
            "messages": [{"role": "user", "content": "q"}],
            "cache": {"key": "k"},
            **chat,
        }
        found, content = await self.remembered.answer(
            ChatParams(**params),  # type: ignore[typeddict-item]
            lambda: b"key",
            self.asked,
        )
        return found.get("cache"), content[0]["text"], dict(found)


def test_the_second_gets_the_first_ones_answer_at_no_cost() -> None:
    async def main() -> None:
        front = Front(Asked())
        assert (await front.ask())[:2] == ("miss", "answer 1")
        word, text, found = await front.ask()
        assert (word, text) == ("hit", "answer 1")
        assert (found["cost_usd"], found["api_calls"], found["usage"]) == (0.0, 0, result()["usage"])
        front.now_s = front.settings.ttl_s
        assert (await front.ask())[:2] == ("miss", "answer 2")
        assert front.remembered.stats()["total_hits"] == 1

    asyncio.run(main())


def test_off_unless_it_is_on_and_asked_for() -> None:
    async def main() -> None:
        off = Front(Asked(), enabled=False)
        assert [await off.ask() for _ in range(2)] == [(None, f"answer {n}", result()) for n in (1, 2)]
        on, asked = Front(Asked()), ChatParams(messages=[{"role": "user", "content": "q"}])
        for number in (1, 2):
            found, content = await on.remembered.answer(asked, lambda: b"key", on.asked)
            assert ("cache" in found, content[0]["text"]) == (False, f"answer {number}")
        assert on.remembered.stats()["total_entries"] == 0

    asyncio.run(main())


def test_a_caller_may_do_without() -> None:
    async def main() -> None:
        front = Front(Asked())
        assert (await front.ask(cache={"key": "k", "max_age_s": 0.0, "store": False}))[:2] == (
            "bypass",
            "answer 1",
        )
        assert front.remembered.stats()["total_entries"] == 0  # no-store
        assert (await front.ask())[:2] == ("miss", "answer 2")
        assert (await front.ask(cache={"key": "k", "max_age_s": 0.0}))[:2] == ("bypass", "answer 3")
        assert (await front.ask())[:2] == ("hit", "answer 3")  # no-cache has renewed it
        front.now_s = 10.0
        assert (await front.ask(cache={"key": "k", "max_age_s": 10.0}))[0] == "hit"
        assert (await front.ask(cache={"key": "k", "max_age_s": 9.0}))[:2] == ("miss", "answer 4")

    asyncio.run(main())


TOOL = {"name": "t", "input_schema": {}}
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "t", "input": {}}]}
RETURNED = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "x"}]}
QUESTION = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    "chat",
    [
        {"tools": [TOOL]},
        {"messages": [QUESTION, CALLED, RETURNED]},
        {"exact": True, "extra_body": {"mcp_servers": [{}]}},
    ],
)
def test_tools_are_left_alone_unless_that_is_set(chat: dict[str, Any]) -> None:
    async def main() -> None:
        asked = Asked(stop_reason="tool_use")
        front = Front(asked)
        assert [(await front.ask(**chat))[0] for _ in range(2)] == ["bypass", "bypass"]
        allowed = Front(asked, tools=True)
        assert [(await allowed.ask(**chat))[0] for _ in range(2)] == ["miss", "hit"]

    assert uses_tools({"messages": [QUESTION], **chat})  # type: ignore[typeddict-item]
    assert not uses_tools(ChatParams(messages=[{"role": "user", "content": [{"type": "text", "text": "q"}]}]))
    asyncio.run(main())


@pytest.mark.parametrize(
    "more",
    [{"stop_reason": "refusal"}, {"stop_reason": None}, {"stop_reason": "pause_turn"}, {"fallback": True}],
)
def test_what_is_not_an_answer_to_give_again(more: dict[str, Any]) -> None:
    async def main() -> None:
        front = Front(Asked(**more))
        assert [(await front.ask())[:2] for _ in range(2)] == [("miss", "answer 1"), ("miss", "answer 2")]
        assert front.remembered.stats()["total_entries"] == 0

    asyncio.run(main())


def test_a_call_without_a_key_goes_past_the_cache() -> None:
    async def main() -> None:
        front = Front(Asked())
        asked = ChatParams(messages=[{"role": "user", "content": "q"}], cache={"key": "k"})
        for _ in range(2):
            found, _ = await front.remembered.answer(asked, lambda: None, front.asked)
            assert found["cache"] == "bypass"

    asyncio.run(main())


def test_a_failure_is_not_kept() -> None:
    async def main() -> None:
        asked = Asked()
        asked.fail_first = True
        front = Front(asked)
        with pytest.raises(RpcError):
            await front.ask()
        assert (await front.ask())[:2] == ("miss", "answer 2")

    asyncio.run(main())


async def together(front: Front, count: int) -> list[asyncio.Task[Any]]:
    """So many callers at once; when this returns all of them wait."""
    tasks = [asyncio.create_task(front.ask()) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


def test_callers_at_the_same_time_share_one_question() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        asked = Asked(gate)
        tasks = await together(Front(asked), 5)
        gate.set()
        assert sorted([(await task)[:2] for task in tasks]) == [("hit", "answer 1")] * 4 + [
            ("miss", "answer 1")
        ]
        assert asked.count == 1

    asyncio.run(main())


@pytest.mark.parametrize("leaves", [True, False])
def test_when_the_first_fails_or_leaves_the_others_ask_for_themselves(leaves: bool) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        asked = Asked(gate)
        asked.fail_first = not leaves
        front = Front(asked)
        first, *others = await together(front, 3)
        if leaves:
            first.cancel()
        gate.set()
        outcome, *found = await asyncio.gather(first, *others, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError if leaves else RpcError)
        assert {text for _, text, _ in found} <= {"answer 2", "answer 3"}  # type: ignore[misc]
        assert (await front.ask())[0] == "hit"  # nothing of the first is left to wait for

    asyncio.run(main())


def test_a_waiting_caller_can_leave() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        asked = Asked(gate)
        first, second = await together(Front(asked), 2)
        second.cancel()
        gate.set()
        assert (await first)[0] == "miss"
        with pytest.raises(asyncio.CancelledError):
            await second
        assert asked.count == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "use",
    [
        {"key": ""},
        {"key": "x" * 201},
        {"key": "k", "max_age_s": -1.0},
        {"key": "k", "max_age_s": float("nan")},
    ],
)
def test_parameters_that_cannot_be_meant(use: Any) -> None:
    with pytest.raises(RpcError) as caught:
        check({"messages": [], "cache": use})
    assert caught.value.code is Code.BAD_PARAMS
