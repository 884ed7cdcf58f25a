"""The unit that `ccd up` runs: daemon, gateway and perhaps the offline API, in the foreground.

Each part is a child process in a session of its own, so that Ctrl-C reaches only this process and the parts end in
order: gateway, daemon, offline API; so does a terminal that is closed. A part that ends by itself is started again
with growing pauses; one that keeps ending, or cannot start at all, ends the unit. That somebody killed it says nothing
against it, so it is always started again. A part that no longer answers is killed. When this process is killed, the
kernel ends the parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec

import click

from ccd_cli.serve.first_answer import show_first_answer
from ccd_cli.serve.opening import facts, say_next, why_not
from ccd_cli.serve.pings import PINGS, Ping, of_daemon, of_gateway, watch
from ccd_cli.serve.plan import Plan, offline_environ
from ccd_settings import logs
from ccd_settings.parent import STARTED_BY

_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_HOPELESS_S = 30.0
_STEADY_S = 30.0  # after this long a part counts as well again
_READY_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 40.0
_LOOK_AGAIN_S = 0.5
log = logging.getLogger("ccd.up")
_EXIT_FATAL = (2, 69)  # wrong settings, nothing to run: starting again changes nothing


@dataclass(eq=False)
class Part:
    """One child process of the unit."""

    name: str
    command: list[str]
    environ: dict[str, str]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ready_line: str = ""
    was_ready: bool = False  # once: a part that has never been ready cannot start at all
    ping: Callable[[Part], Ping] | None = None  # how to ask it whether it is there, once it is ready
    process: asyncio.subprocess.Process | None = None
    vital: bool = True  # the unit ends when it cannot be kept up

    async def run(self) -> int:
        """Start it, wait for its end, return its exit status. `ready` is set by its first line of output."""
        self.ready.clear()
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            env={**self.environ, STARTED_BY: str(os.getpid())},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if not self.ready.is_set():
                self.ready_line = line.decode(errors="replace").strip()
                self.was_ready = True
                self.ready.set()
        return await self.process.wait()

    async def watched(self, limit_s: float) -> str:
        """Returns what is wrong with it, when it no longer answers; until then it runs."""
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await self.ready.wait()
        except TimeoutError:
            return f"was not ready within {_READY_TIMEOUT_S:g} s"
        if self.ping is None:
            await asyncio.Event().wait()
        else:
            await watch(self.ping(self), limit_s)
        return f"has missed {PINGS} pings in a row, over {limit_s:g} s"

    def kill(self) -> None:
        """End it at once; what it has started ends with it."""
        if self.process is not None and self.process.returncode is None:
            _signal(self.process, signal.SIGKILL)

    async def stop(self, hurry: asyncio.Event) -> None:
        """End it in order; a second Ctrl-C, or taking too long, ends it by force."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        _signal(process, signal.SIGTERM)
        ended = asyncio.ensure_future(process.wait())
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait({ended, hurried}, timeout=_STOP_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not ended.done():
            _signal(process, signal.SIGTERM)
            await asyncio.wait({ended}, timeout=5)
        if not ended.done():
            _signal(process, signal.SIGKILL)
        await ended


def _signal(process: asyncio.subprocess.Process, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signum)


class UpUnit:
    """The parts of one `ccd up`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.parts: list[Part] = []
        self.failed = asyncio.Event()
        self.exit_status = 0
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Start all parts, say so, and wait until told to stop or a part gives up."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # nohup is obeyed
                loop.add_signal_handler(signum, self._on_signal)
        try:
            if await self._start() and not self.stopping.is_set():
                await self._either(self.stopping, self.failed)
        finally:
            await self._stop()
        return self.exit_status

    def _on_signal(self) -> None:
        (self.hurry if self.stopping.is_set() else self.stopping).set()

    async def _start(self) -> bool:
        plan = self.plan
        environ = plan.environ
        if plan.offline:
            offline = self._part("offline API", ["-m", "ccd_offline", "--bind", "127.0.0.1:0"], environ)
            if not await self._until_ready(offline):
                return False
            environ = offline_environ(environ, json.loads(offline.ready_line)["url"])
        base = ["-m", "ccd_cli"]
        daemon = self._part(
            "daemon",
            [*base, "daemon", "--with-parent", "--socket", str(plan.socket)],
            environ,
            ping=lambda _: of_daemon(plan.socket),
        )
        bind = ["--bind", plan.bind] if plan.bind else []
        # The gateway is not held up by a daemon that still warms: both start at once.
        gateway = self._part(
            "gateway",
            [*base, "gateway", "--socket", str(plan.socket), *bind],
            environ,
            ping=lambda part: of_gateway(_url(part)),
        )
        if not (await self._until_ready(daemon) and await self._until_ready(gateway)):
            return False
        if find_spec("dbos") is not None:  # the extra `tasks`
            self._part(
                "worker",
                [*base, "worker", "--with-parent", "--socket", str(plan.socket)],
                environ,
                vital=False,
            )
        url = _url(gateway)
        await self._tell_the_truth(url)
        if plan.show_answer:
            await asyncio.to_thread(show_first_answer, url)
            say_next(plan)
        return True

    async def _tell_the_truth(self, url: str) -> None:
        """Say what runs; and that it is ready once it would answer, or else what to do."""
        plan = self.plan
        why, version = await asyncio.to_thread(why_not, plan)
        for line in facts(plan, url, version):
            if plan.json_log:
                log.info("%s", line.strip())
            else:
                click.echo(line, err=True)
        if why is None:
            self._say_ready(url)
        else:
            click.echo(f"ccd runs on {url}/v1 and {plan.socket}, but it cannot answer yet: {why}")
            self._tasks.append(asyncio.create_task(self._when_it_answers(url)))
        sys.stdout.flush()

    async def _when_it_answers(self, url: str) -> None:
        while not self.stopping.is_set():
            why, _ = await asyncio.to_thread(why_not, self.plan)
            if why is None:
                self._say_ready(url)
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _say_ready(self, url: str) -> None:
        note = " (offline: answers are an echo, not a model's)" if self.plan.offline else ""
        click.echo(f"ccd is ready: {url}/v1 and {self.plan.socket}{note}")
        sys.stdout.flush()

    def _part(
        self,
        name: str,
        arguments: list[str],
        environ: dict[str, str],
        *,
        vital: bool = True,
        ping: Callable[[Part], Ping] | None = None,
    ) -> Part:
        part = Part(name, [sys.executable, *arguments], environ, vital=vital, ping=ping)
        self.parts.append(part)
        self._tasks.append(asyncio.create_task(self._keep(part)))
        return part

    async def _keep(self, part: Part) -> None:
        """Run a part, and again when it ends by itself."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self.stopping.is_set():
            started = loop.time()
            status = await self._run_watched(part)
            if self.stopping.is_set():
                return
            failures = 0 if loop.time() - started > _STEADY_S else failures + 1
            was_killed = status < 0  # which says nothing against it
            hopeless = not was_killed and (failures > len(_BACKOFF_S) or not part.was_ready)
            hopeless = hopeless or status in _EXIT_FATAL
            if hopeless and part.vital:
                log.error("the %s ended (exit status %d); giving up", part.name, status)
                self._give_up(status if status in _EXIT_FATAL else 1)
                return
            pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1] if failures else 0
            if hopeless:
                pause_s = _HOPELESS_S  # the others do without it
            ended = f"was ended by signal {-status}" if was_killed else f"ended (exit status {status})"
            log.warning("the %s %s; starting it again in %g s", part.name, ended, pause_s)
            await asyncio.sleep(pause_s)

    async def _run_watched(self, part: Part) -> int:
        """Run a part until it ends, or no longer answers and is killed; returns its exit status."""
        running = asyncio.create_task(part.run())
        watching = asyncio.create_task(part.watched(self.plan.settings.up.watchdog_s))
        try:
            await asyncio.wait([running, watching], return_when=asyncio.FIRST_COMPLETED)
            if not running.done() and not self.stopping.is_set():
                log.error("the %s %s; it is killed", part.name, watching.result())
                part.kill()
            return await running
        finally:
            watching.cancel()
            running.cancel()

    async def _until_ready(self, part: Part) -> bool:
        await self._either(part.ready, self.failed, self.stopping, timeout_s=_READY_TIMEOUT_S)
        if not part.ready.is_set() and not self.stopping.is_set() and not self.failed.is_set():
            log.error("the %s was not ready within %g s", part.name, _READY_TIMEOUT_S)
            self._give_up(1)
        return part.ready.is_set() and not self.stopping.is_set()

    def _give_up(self, status: int) -> None:
        if not self.failed.is_set():
            self.exit_status = status
            self.failed.set()

    async def _either(self, *events: asyncio.Event, timeout_s: float | None = None) -> None:
        waits = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _stop(self) -> None:
        self.stopping.set()
        for part in reversed(self.parts):
            await part.stop(self.hurry)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _url(gateway: Part) -> str:
    return gateway.ready_line.rpartition(" ")[2]


def run(plan: Plan) -> int:
    """Run the unit until SIGTERM or Ctrl-C; returns the exit status."""
    if plan.json_log:
        logs.configure("info", "json")
    else:
        logging.basicConfig(format="ccd: %(message)s", force=True)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    return asyncio.run(UpUnit(plan).run())
