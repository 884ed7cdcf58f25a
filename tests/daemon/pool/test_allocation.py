"""Nobody waits while a process stands idle: random schedules of callers of all profiles, deaths, resets and cancels."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from itertools import count

import pytest

from ccd_daemon import config
from ccd_daemon.claude.login import Mode
from ccd_daemon.pool.pool import Pool
from ccd_daemon.pool.shelf import LeaseWish
from ccd_daemon.worker.lifecycle import Event, State
from ccd_daemon.worker.worker import Worker
from ccd_protocol.errors import Code, RpcError
from fakes import virtual_time

SPAWN_S, END_S, RESET_S = 0.4, 0.1, 0.02
#: One process must end, another finish its start, and one start; or a slow one be given up first.
LONGEST_S = END_S + 2 * SPAWN_S + 0.1
SLOW_S = 1.1
RESET = (
    b'{"type":"conversation_reset"}\n'
    b'{"type":"result","subtype":"success","is_error":false,"local_command":"clear"}\n'
)
PROFILES = ("chat", "quick", "other")


class Scene:
    """A pool over processes that only keep time."""

    def __init__(self, seed: int, **overrides: str) -> None:
        environ = {"HOME": "/nonexistent", "CCD_SOCKET": "/nonexistent/ccd.sock", **overrides}
        for profile in PROFILES[1:]:
            environ[f"CCD_PROFILES__{profile.upper()}__MODEL"] = profile
        self.random = random.Random(seed)
        self.loop = asyncio.get_running_loop()
        self.slow = False  # some processes take long to end, or never forget
        self.pool = Pool(config.read(environ), Mode.FULL, self.launch, lambda worker: None)
        self.idle_since: dict[Worker, float] = {}
        self.waiting_since: dict[object, float] = {}
        self.outcomes: Counter[str] = Counter()

    def launch(self, worker: Worker) -> None:
        slow = self.slow and self.random.random() < 0.2
        end_s = 3.0 if slow else END_S
        tree = worker.tree
        tree.write = lambda data: self.written(worker, data, slow=slow)  # type: ignore[method-assign]
        tree.close_stdin = lambda: self.exits_in(worker, end_s)  # type: ignore[method-assign]
        tree.terminate = tree.kill = lambda: self.exits_in(worker, END_S)  # type: ignore[method-assign]
        tree.remove = lambda: None  # type: ignore[method-assign]
        self.loop.call_later(SPAWN_S, self.started, worker)

    def started(self, worker: Worker) -> None:
        if worker.state is State.SPAWNING:
            worker.feed(Event.SPAWNED)
            worker.was_ready = True
            worker.feed(Event.WARMED)
        elif worker.state is not State.DEAD:
            worker.feed(Event.SPAWNED)

    def written(self, worker: Worker, data: bytes, *, slow: bool) -> None:
        if b"/clear" in data and not slow:
            self.loop.call_later(RESET_S, self.forgotten, worker)

    def forgotten(self, worker: Worker) -> None:
        if worker.state is State.RESETTING:
            worker.on_stdout(RESET)

    def exits_in(self, worker: Worker, seconds: float) -> None:
        self.loop.call_later(seconds, self.exits, worker)

    def exits(self, worker: Worker) -> None:
        if worker.state is not State.DEAD:
            worker.on_exit(-9)

    async def caller(self, profile: str, tenant: str, hold_s: float, leaves_s: float | None) -> None:
        me = object()
        self.waiting_since[me] = self.loop.time()
        try:
            async with asyncio.timeout(leaves_s):
                worker = await self.pool.leases.lease(profile, LeaseWish(tenant))
        except TimeoutError:
            self.outcomes["left"] += 1
            return
        except RpcError as error:
            self.outcomes[error.code.name] += 1
            assert error.code is Code.BUSY
            return
        finally:
            del self.waiting_since[me]
        assert worker.state is State.HELD and worker.profile == profile and worker.tenant == tenant
        await asyncio.sleep(hold_s)
        worker.wear.turns += 1
        worker.wear.tainted = self.random.random() < 0.2
        self.outcomes["served"] += 1
        self.pool.leases.release(worker)

    def check(self) -> None:
        """No caller and no process have both been idle for longer than it takes to end one and start another."""
        now = self.loop.time()
        idle = [worker for shelf in self.pool.shelves.values() for worker in shelf.idle()]
        self.idle_since = {worker: self.idle_since.get(worker, now) for worker in idle}
        if idle and self.waiting_since:
            both = now - max(min(self.idle_since.values()), min(self.waiting_since.values()))
            assert both < LONGEST_S + (SLOW_S if self.slow else 0), f"{both} s: {self.describe()}"

    def describe(self) -> str:
        workers = [(w.id, w.profile, w.tenant, w.state.value) for w in self.pool.workers]
        queues = {name: len(shelf.queue) for name, shelf in self.pool.shelves.items()}
        return f"{workers} {queues}"

    async def play(self, seconds: float, *, profiles: int, tenants: int, rate: float) -> None:
        end = self.loop.time() + seconds
        self.pool.spawner.refill()
        async with asyncio.TaskGroup() as callers:
            while self.loop.time() < end:
                for _ in range(self.random.choice((1, 1, 1, 12))):
                    profile = PROFILES[self.random.randrange(profiles)]
                    leaves = self.random.uniform(0, 2) if self.random.random() < 0.1 else None
                    hold_s = self.random.expovariate(2)
                    tenant = f"t{self.random.randrange(tenants)}"
                    callers.create_task(self.caller(profile, tenant, hold_s, leaves))
                if self.random.random() < 0.1:
                    for worker in self.pool.workers:
                        if worker.state is State.READY and self.random.random() < 0.5:
                            self.exits(worker)
                pause = self.random.expovariate(rate)
                for _ in range(int(pause / 0.05) + 1):
                    await asyncio.sleep(0.05)
                    self.check()
            while self.waiting_since:
                await asyncio.sleep(0.05)
                self.check()


@pytest.mark.parametrize("seed", range(60))
def test_nobody_waits_while_a_process_is_idle(seed: int) -> None:
    async def main() -> None:
        choose = random.Random(seed)
        limits = {
            "CCD_POOL__MAX_WORKERS": str(choose.randint(1, 5)),
            "CCD_POOL__SPARES": str(choose.randint(0, 2)),
            "CCD_POOL__SPAWN_CONCURRENCY": str(choose.randint(1, 3)),
            "CCD_QUEUE__TIMEOUT_S": "30",
        }
        scene = Scene(seed, **limits)
        scene.slow = seed % 3 == 2
        await scene.play(
            60, profiles=choose.randint(1, 3), tenants=choose.randint(1, 4), rate=choose.uniform(0.5, 3)
        )
        assert scene.outcomes["served"] > 20

    virtual_time.run(main())


def test_the_spare_of_one_profile_does_not_take_the_slot_that_another_waits_for() -> None:
    async def main() -> None:
        limits = {"CCD_POOL__MAX_WORKERS": "3", "CCD_POOL__SPARES": "1", "CCD_QUEUE__TIMEOUT_S": "5"}
        scene = Scene(1, **limits)
        scene.pool.spawner.refill()
        async with asyncio.TaskGroup() as callers:
            for _ in range(12):
                callers.create_task(scene.caller("chat", "t", 0.1, None))
        begun = scene.loop.time()
        await scene.caller("quick", "t", 0.1, None)
        assert scene.outcomes == {"served": 13}
        assert scene.loop.time() - begun < 1.0

    virtual_time.run(main())


def test_a_profile_without_a_process_is_served_though_another_never_rests() -> None:
    """Every process goes from caller to caller of one profile; one of another came before most of them."""

    async def main() -> None:
        limits = {"CCD_POOL__MAX_WORKERS": "2", "CCD_POOL__SPARES": "0", "CCD_QUEUE__TIMEOUT_S": "20"}
        scene = Scene(1, **limits)
        over = asyncio.Event()

        async def busy() -> None:
            while not over.is_set():
                await scene.caller("chat", "t", 0.2, None)

        async with asyncio.TaskGroup() as callers:
            for _ in range(8):
                callers.create_task(busy())
            await asyncio.sleep(5)
            for number in count(1):
                await scene.caller("quick", "t", 0.2, None)
                assert "BUSY" not in scene.outcomes
                if number == 5:
                    break
            over.set()

    virtual_time.run(main())


def test_a_refusal_says_what_is_true() -> None:
    async def main() -> None:
        scene = Scene(1, CCD_POOL__MAX_WORKERS="2", CCD_POOL__SPARES="0", CCD_QUEUE__TIMEOUT_S="3")
        held = [await scene.pool.leases.lease("chat", LeaseWish("t")) for _ in range(2)]
        with pytest.raises(RpcError) as refusal:
            await scene.pool.leases.lease("chat", LeaseWish("t"))
        assert refusal.value.code is Code.BUSY
        assert "within 3 s (queue.timeout_s)" in refusal.value.message
        assert (
            "of at most 2 CLI processes (pool.max_workers) 2 are at work, 0 start, 0 are idle"
            in refusal.value.message
        )
        for worker in held:
            with contextlib.suppress(RpcError):
                scene.pool.leases.release(worker)

    virtual_time.run(main())
