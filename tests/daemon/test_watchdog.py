"""The service manager is told from the loop, and only while the rounds are made."""

from __future__ import annotations

import asyncio
from typing import Any

from ccd_daemon.watchdog import Watchdog


class NotifierStandIn:
    """Notes what it is told."""

    def __init__(self, *, present: bool = True, watchdog_s: float = 0.04) -> None:
        self.present = present
        self.watchdog_s = watchdog_s
        self.told: list[str] = []

    def tell(self, *lines: str, fds: Any = ()) -> bool:
        self.told += lines
        return True

    def count(self, line: str) -> int:
        return self.told.count(line)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_pings_while_healthy_and_status_when_it_changes() -> None:
    async def main() -> None:
        notifier: Any = NotifierStandIn()
        healthy, summary = [True], ["one"]
        watchdog = Watchdog(notifier, lambda: healthy[0], lambda: summary[0])
        assert notifier.told == [], "nothing before it is ready"
        watchdog.ready()
        await until(lambda: notifier.count("WATCHDOG=1") >= 3)
        assert notifier.told[0] == "READY=1" and notifier.count("STATUS=one") <= 2
        summary[0] = "two\nlines"
        await until(lambda: notifier.count("STATUS=two lines") == 1)
        healthy[0] = False
        pings = notifier.count("WATCHDOG=1")
        summary[0] = "three"
        await until(lambda: notifier.count("STATUS=three") == 1)  # its timer goes on, the pings do not
        assert notifier.count("WATCHDOG=1") == pings
        healthy[0] = True
        watchdog.stopping()
        assert "STOPPING=1" in notifier.told
        await until(lambda: notifier.count("WATCHDOG=1") > pings)  # running answers may take long
        watchdog.close()
        pings = notifier.count("WATCHDOG=1")
        await asyncio.sleep(0.1)
        assert notifier.count("WATCHDOG=1") == pings

    asyncio.run(main())


def test_without_a_watchdog_only_the_status_is_told() -> None:
    async def main() -> None:
        notifier: Any = NotifierStandIn(watchdog_s=0.0)
        watchdog = Watchdog(notifier, lambda: True, lambda: "fine")
        watchdog.ready()
        assert (
            notifier.told == ["READY=1", "STATUS=fine", "STATUS=fine"] and "WATCHDOG=1" not in notifier.told
        )
        watchdog.close()

    asyncio.run(main())


def test_nobody_listens() -> None:
    async def main() -> None:
        notifier: Any = NotifierStandIn(present=False)
        watchdog = Watchdog(notifier, lambda: True, lambda: "fine")
        watchdog.ready()
        assert notifier.count("WATCHDOG=1") == 0
        watchdog.close()

    asyncio.run(main())
