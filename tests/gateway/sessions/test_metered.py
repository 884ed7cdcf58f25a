"""Turns of a session, admitted and booked like answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ccd_gateway.access.caller import Caller
from ccd_gateway.access.keyfile import make
from ccd_gateway.access.ledger import read_usage
from ccd_gateway.access.metering import Books
from ccd_gateway.answer.backend import Backend
from ccd_gateway.sessions.metered import Metered
from ccd_protocol.errors import Code, RpcError

USAGE = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100}


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def init(model: str = "m", cost: float = 0.0) -> bytes:
    return line(type="session_init", state={"model": model, "total_cost_usd": cost})


def result(cost: float) -> bytes:
    return line(usage=USAGE, total_cost_usd=cost, type="result")


def start(tokens: int) -> bytes:
    message = {"model": "m", "usage": {"input_tokens": tokens, "output_tokens": 1}}
    return (
        b'{"type":"stream_event","event":'
        + json.dumps({"type": "message_start", "message": message}).encode()
        + b"}\n"
    )


class Bench:
    """One key, its ledger, and a client that is metered."""

    def __init__(self, folder: Path, **limits: object) -> None:
        self.path = folder / "usage.sqlite3"
        self.backend = Backend(
            folder / "no.sock", max_calls=1, timeout_s=1, reconnect_wait_s=0, books=Books(self.path)
        )
        key, _ = make("app", **limits)  # type: ignore[arg-type]
        self.caller = Caller(key=key)
        self.metered = Metered(self.backend, self.caller)

    async def tell(self, *lines: bytes) -> RpcError | None:
        refusals = [await self.metered.saw(one) for one in lines]
        return next((refusal for refusal in refusals if refusal is not None), None)

    async def rows(self) -> list[tuple[str, int, int, float]]:
        await self.backend.close()
        rows = read_usage(self.path, "2000-01-01") if self.path.exists() else []
        return [(row.model, row.requests, row.output_tokens, row.cost_usd) for row in rows]


def in_loop(test: Callable[[Path], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        asyncio.run(test(tmp_path))

    run.__name__ = test.__name__
    return run


@in_loop
async def test_a_turn_costs_what_the_sum_has_grown_by(folder: Path) -> None:
    bench = Bench(folder)
    await bench.tell(init(cost=0.25))
    await bench.metered.begin("one")
    assert bench.metered.running
    await bench.tell(init(cost=0.25), start(10), result(0.75))
    assert not bench.metered.running
    await bench.metered.begin("two")
    await bench.tell(init(cost=0.75), result(1.0))
    assert await bench.rows() == [("m", 2, 10, pytest.approx(0.75))]


@in_loop
async def test_turns_of_others_and_messages_in_between_are_not_booked_twice(folder: Path) -> None:
    bench = Bench(folder)
    await bench.tell(init(), result(0.5), line(type="command_lifecycle", state="queued"), b"no JSON\n")
    await bench.metered.begin("one")
    await bench.metered.begin("and then")
    await bench.tell(result(0.75), result(2.0))
    assert await bench.rows() == [("m", 1, 5, pytest.approx(0.25))]


@in_loop
async def test_a_turn_that_is_lost_is_booked_by_what_has_passed(folder: Path) -> None:
    bench = Bench(folder)
    await bench.tell(init())
    await bench.metered.begin("one")
    await bench.tell(start(1000))
    bench.metered.cut()
    bench.metered.cut()
    assert [row[:2] for row in await bench.rows()] == [("m", 1)]


@in_loop
async def test_a_message_that_was_not_sent_costs_nothing(folder: Path) -> None:
    bench = Bench(folder, concurrent=1)
    await bench.metered.begin("one")
    bench.metered.cut(asked=False)
    await bench.metered.begin("again")  # there is room again
    bench.metered.cut(asked=False)
    assert await bench.rows() == []


@in_loop
async def test_limits(folder: Path) -> None:
    bench = Bench(folder, requests_per_minute=1)
    await bench.metered.begin("one")
    await bench.tell(result(0.1))
    with pytest.raises(RpcError) as refusal:
        await bench.metered.begin("two")
    assert refusal.value.code is Code.UPSTREAM_LIMIT and not bench.metered.running
    await bench.backend.close()


@in_loop
async def test_a_budget_that_is_used_up_in_the_middle_is_told_once(folder: Path) -> None:
    bench = Bench(folder, usd_per_day=0.5)
    await bench.tell(init())
    await bench.metered.begin("one")
    await bench.tell(start(1000), result(0.4))
    await bench.metered.begin("two")
    refusal = await bench.tell(start(10_000_000), start(10_000_000))
    assert refusal is not None and refusal.code is Code.BUDGET
    assert await bench.tell(start(10_000_000)) is None and bench.metered.running
    await bench.tell(result(0.6))
    with pytest.raises(RpcError) as late:
        await bench.metered.begin("three")
    assert late.value.code is Code.BUDGET
    assert await bench.rows() == [("m", 2, 10, pytest.approx(0.6))]


@in_loop
async def test_a_budget_holds_for_a_model_that_has_never_answered(folder: Path) -> None:
    bench = Bench(folder, usd_per_day=0.5)
    await bench.tell(init())
    await bench.metered.begin("one")
    refusal = await bench.tell(start(10_000_000))
    assert refusal is not None and refusal.code is Code.BUDGET
    bench.metered.cut()
    await bench.backend.close()


@in_loop
async def test_open_answers_of_a_key_count_together(folder: Path) -> None:
    bench = Bench(folder, usd_per_day=0.5)
    other = Metered(bench.backend, bench.caller)
    for metered in (bench.metered, other):
        await metered.begin("hi")
    assert await bench.tell(start(60_000)) is None  # 0.3 USD
    refusal = await other.saw(start(60_000))
    assert refusal is not None and refusal.code is Code.BUDGET
    with pytest.raises(RpcError) as third:
        await Metered(bench.backend, bench.caller).begin("hi")
    assert third.value.code is Code.BUDGET
    other.cut()
    bench.metered.cut(asked=False)
    await bench.backend.close()


@in_loop
async def test_without_a_key_nothing_is_looked_at(folder: Path) -> None:
    backend = Backend(
        folder / "no.sock", max_calls=1, timeout_s=1, reconnect_wait_s=0, books=Books(folder / "u")
    )
    metered = Metered(backend, Caller())
    await metered.begin("one")
    assert await metered.saw(b"no JSON at all\n") is None and not metered.running
    metered.cut()
    assert not (folder / "u").exists()
