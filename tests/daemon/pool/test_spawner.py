"""When the spawner looks again."""

from __future__ import annotations

import asyncio

import uvloop

from ccd_daemon import config
from ccd_daemon.pool.spawner import Orders, Spawner


def test_no_wake_up_is_lost() -> None:
    """A timer that has just fired must not pass for one that is still to come; uvloop's may look like it."""

    async def main() -> None:
        done = asyncio.Event()
        looked = 0

        def orders() -> Orders | None:
            nonlocal looked
            looked += 1
            if looked == 500:
                done.set()
            else:
                spawner.refill_in(-0.009)
            return None

        spawner = Spawner(
            {}, config.read({"HOME": "/nonexistent"}), orders, lambda shelf, binding: None, lambda: None
        )
        spawner.refill_in(0)
        async with asyncio.timeout(60):
            await done.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_the_sooner_of_two_wake_ups_stays() -> None:
    async def main() -> None:
        looked = asyncio.Event()

        def orders() -> Orders | None:
            looked.set()
            return None

        spawner = Spawner(
            {}, config.read({"HOME": "/nonexistent"}), orders, lambda shelf, binding: None, lambda: None
        )
        spawner.refill_in(3600)
        spawner.refill_in(0)
        spawner.refill_in(3600)
        async with asyncio.timeout(60):
            await looked.wait()

    asyncio.run(main())
