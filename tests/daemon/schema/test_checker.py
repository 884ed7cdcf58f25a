"""Checks that take long, for ever, or kill the process that makes them: everybody else is answered meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ccd_daemon.schema.checker import Checker
from ccd_protocol.errors import Code, RpcError
from fakes.in_loop import in_loop
from fakes.stack import alive, wait_until

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
WANTED = {"type": "json_schema", "schema": SCHEMA}
ENDLESS = {"type": "json_schema", "schema": {"type": "string", "pattern": "^(a+)+$"}}
BAIT = '"' + "a" * 64 + '!"'


@asynccontextmanager
async def checking(check_s: float = 10.0) -> AsyncIterator[Checker]:
    checker = Checker(check_s)
    try:
        yield checker
    finally:
        pids = checker.pids
        await checker.close()
        assert not any(map(alive, pids))


@in_loop
async def test_answers_and_schemas() -> None:
    async with checking() as checker:
        assert await checker.schema_error("a", SCHEMA) is None
        assert "nonsense" in str(await checker.schema_error("a", {"type": "nonsense"}))
        assert await checker.problem("a", '{"n": 1}', WANTED) is None
        assert "$.n" in str(await checker.problem("a", '{"n": "\ud800"}', WANTED))
        assert "not valid JSON" in str(await checker.problem("a", "Sure!", {"type": "json_object"}))
        assert len(checker.pids) == 1


@in_loop
async def test_a_schema_is_looked_at_once() -> None:
    async with checking() as checker:
        await checker.schema_error("a", SCHEMA)
        os.kill(checker.pids[0], signal.SIGSTOP)
        assert await checker.schema_error("b", SCHEMA) is None


@in_loop
async def test_one_that_takes_for_ever_is_ended_and_holds_up_only_its_tenant() -> None:
    async with checking(check_s=1.0) as checker:
        await checker.problem("good", "{}", WANTED)
        endless = [asyncio.ensure_future(checker.problem("bad", BAIT, ENDLESS)) for _ in range(6)]
        await asyncio.sleep(0)
        assert len(checker.pids) == 3, "not all that there may be"
        for _ in range(20):
            assert await checker.problem("good", '{"n": 1}', WANTED) is None
        assert not any(task.done() for task in endless[3:])
        for error in await asyncio.gather(*endless, return_exceptions=True):
            assert isinstance(error, RpcError)
            assert error.code is Code.BAD_PARAMS and error.data["param"] == "format.schema"
            assert "deadlines.check_s" in error.message
        assert await checker.problem("bad", '{"n": 1}', WANTED) is None


@in_loop
async def test_a_process_that_is_killed_is_replaced() -> None:
    async with checking() as checker:
        await checker.problem("a", "{}", WANTED)
        os.kill(checker.pids[0], signal.SIGKILL)  # asked before anybody could notice
        assert await checker.problem("a", '{"n": 1}', WANTED) is None
        waiting = asyncio.ensure_future(checker.problem("a", BAIT, ENDLESS))
        for _ in range(2):
            (victim,) = checker.pids
            while checker.working != [victim]:
                await asyncio.sleep(0.01)
            os.kill(victim, signal.SIGKILL)
            while victim in checker.pids:
                await asyncio.sleep(0.01)
        with pytest.raises(RpcError, match="SIGKILL"):
            await waiting
        assert await checker.problem("a", '{"n": 1}', WANTED) is None
        idle = checker.pids[0]
        os.kill(idle, signal.SIGKILL)
        while checker.pids == [idle]:
            await asyncio.sleep(0.01)
        assert len(checker.pids) == 1, "warm again before anybody asks"


@in_loop
async def test_a_caller_that_has_left_blocks_nothing() -> None:
    async with checking(check_s=0.5) as checker:
        leaving = asyncio.ensure_future(checker.problem("a", BAIT, ENDLESS))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await checker.problem("a", '{"n": 1}', WANTED) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"$ref": "#"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"type": "string", "pattern": "(" * 5000},
        {"type": "string", "pattern": "a{99999}{99999}{99999}"},
        {"enum": ["x" * 1000] * 900},
    ],
)
def test_a_schema_that_never_ends_gets_an_answer(schema: dict[str, Any]) -> None:
    @in_loop
    async def test() -> None:
        async with checking(check_s=2.0) as checker:
            await checker.schema_error("a", schema)
            try:
                await checker.problem("a", '"text"', {"type": "json_schema", "schema": schema})
            except RpcError as error:
                assert error.code is Code.BAD_PARAMS
            assert await checker.problem("a", '{"n": 1}', WANTED) is None

    test()


@in_loop
async def test_a_tenant_cannot_make_the_others_wait_in_a_line_without_end() -> None:
    async with checking() as checker:
        await checker.problem("a", "{}", WANTED)
        tasks = [asyncio.ensure_future(checker.problem("bad", BAIT, ENDLESS)) for _ in range(300)]
        await asyncio.sleep(0)
        refused = [task for task in tasks if task.done()]
        assert refused and all(task.exception().code is Code.BUSY for task in refused)  # type: ignore[union-attr]
        assert await checker.problem("good", '{"n": 1}', WANTED) is None
        for task in tasks:
            task.cancel()


@in_loop
async def test_a_process_opens_nothing(tmp_path: Path) -> None:
    """Not even when a schema that should never have come so far names a file."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"type": "integer"}')
    async with checking() as checker:
        for target in (secret.as_uri(), str(secret), "http://127.0.0.1:1/schema"):
            wanted = {"type": "json_schema", "schema": {"$ref": target}}
            found = await checker.problem("a", '"text"', wanted)
            assert found is not None and "cannot be checked" in found and "integer" not in found


@in_loop
async def test_few_processes_stay() -> None:
    async with checking(check_s=0.3) as checker:
        await asyncio.gather(*(checker.problem("a", BAIT, ENDLESS) for _ in range(3)), return_exceptions=True)
        await asyncio.to_thread(wait_until, lambda: len(checker.pids) >= 1)
        checker.pids.sort()
        assert await checker.problem("a", '{"n": 1}', WANTED) is None
