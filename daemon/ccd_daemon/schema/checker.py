"""Checks schemas and answers off the event loop: a warm process, and more when checks take long.

Theory of operation. A schema is a program of its caller's: a pattern can take for ever, a few nested lists of
alternatives hours. So it runs in a process that is killed when its time is up, and whoever asked is told. A process
answers one question at a time. No tenant has all of them, so one whose checks take long delays only its own. The first
process is started with the daemon, because loading what it needs takes longer than an answer may be held up.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack

from ccd_daemon.pool.policy import FairQueue
from ccd_daemon.process.process import Process, death_wrapper, exit_words
from ccd_protocol.errors import Code, RpcError

log = logging.getLogger("ccd.schema")

_MAX_PROCESSES = 4
_MAX_PER_TENANT = _MAX_PROCESSES - 1
_MAX_WAITING = 256  # of one tenant
_TRIES = 2  # an idle process may have been killed, which shows only when it is asked
_START_S = 60.0
_IDLE_S = 30.0  # a process beyond the first ends after this
_MAX_KNOWN = 1024  # schemas that have been looked at
_PROGRAM = "from ccd_daemon.schema.program import main; main()"


class _UncheckedError(Exception):
    """A question has no answer, and why."""


class _Job:
    """One question and whoever waits for its answer."""

    def __init__(self, tenant: str, question: list[Any]) -> None:
        self.tenant = tenant
        self.question = question
        self.tries = _TRIES
        self.answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()


class Checker:
    """The checking processes of a daemon.

    Args:
        check_s: how long one check may take.
    """

    def __init__(self, check_s: float) -> None:
        self._check_s = check_s
        self._loop = asyncio.get_running_loop()
        self._processes: list[_CheckingProcess] = []
        self._queue: FairQueue[_Job] = FairQueue(_MAX_WAITING)
        self._running: Counter[str] = Counter()
        self._known: OrderedDict[bytes, str | None] = OrderedDict()
        self._closed = False
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    def warm(self) -> None:
        """Have a process ready."""
        if not self._processes and not self._closed:
            with suppress(OSError):  # whoever asks will be told
                self._start()

    async def connected(self) -> None:
        """Wait until the processes that were started can be asked, though they may not be warm."""
        for process in list(self._processes):
            await asyncio.wait([process.connecting])

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return [process.pid for process in self._processes]

    @property
    def working(self) -> list[int]:
        """Those that are at a question."""
        return [process.pid for process in self._processes if process.was_warm and process.job is not None]

    async def schema_error(self, tenant: str, schema: Mapping[str, Any]) -> str | None:
        """Returns why it is no schema, or None. What is known is not asked again.

        Raises:
            RpcError: BUSY, too many checks of the tenant's wait.
        """
        text = json.dumps(schema)
        digest = hashlib.sha256(text.encode()).digest()
        if digest in self._known:
            self._known.move_to_end(digest)
            return self._known[digest]
        try:
            found = await self._ask(tenant, [text])
        except _UncheckedError as error:
            found = f"it cannot be looked at within {self._check_s:g} s (deadlines.check_s): {error}"
        self._known[digest] = found
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return found

    async def problem(self, tenant: str, text: str, wanted: Mapping[str, Any]) -> str | None:
        """Returns what is wrong with an answer, in words that a model understands too; None when it is as asked.

        Args:
            tenant: who pays for the time.
            text: the answer.
            wanted: its format, `ChatParams.format`.

        Raises:
            RpcError: BAD_PARAMS, it takes too long; BUSY, too many checks of the tenant's wait.
        """
        by_schema = wanted["type"] == "json_schema"
        try:
            return await self._ask(
                tenant, [json.dumps(wanted["schema"]) if by_schema else wanted["type"], text]
            )
        except _UncheckedError as error:
            why = (
                f"the answer cannot be checked against the schema within {self._check_s:g} s (deadlines.check_s): "
                f"{error}; use a simpler one"
            )
            data = {"param": "format.schema", "output_started": True}
            raise RpcError(Code.BAD_PARAMS, why, data) from None

    async def _ask(self, tenant: str, question: list[Any]) -> str | None:
        if self._queue.full_for(tenant):
            text = f"{_MAX_WAITING} answers of this tenant wait to be checked"
            raise RpcError(Code.BUSY, text, {"retry_after_ms": 1000})
        job = _Job(tenant, question)
        self._queue.push(tenant, job)
        self._serve()
        return await job.answer

    # --- the processes ---

    def _start(self) -> _CheckingProcess:
        process = _CheckingProcess(self)
        self._processes.append(process)
        self._all_gone.clear()
        return process

    def _serve(self) -> None:
        """Give questions to idle processes, and start another for those that wait."""
        waiting = [self._queue.pop() for _ in range(len(self._queue))]
        for job in waiting:
            if job.answer.done():
                continue
            try:
                process = self._free_for(job.tenant)
            except OSError as error:
                job.answer.set_exception(_UncheckedError(f"no process can be started: {error.strerror}"))
                continue
            if process is None:
                self._queue.push(job.tenant, job)
            else:
                self._running[job.tenant] += 1
                process.ask(job, self._check_s)

    def _free_for(self, tenant: str) -> _CheckingProcess | None:
        if self._running[tenant] >= _MAX_PER_TENANT or self._closed:
            return None
        free = next((process for process in self._processes if process.free), None)
        if free is None and len(self._processes) < _MAX_PROCESSES:
            free = self._start()
        return free

    def answered(self, job: _Job) -> None:
        """A process has done with a question."""
        self._running -= Counter([job.tenant])
        if not self._closed:
            self._serve()

    def ask_again(self, job: _Job) -> None:
        """A process has ended instead of answering."""
        self._running -= Counter([job.tenant])
        self._queue.push(job.tenant, job)
        self._serve()

    def ended(self, process: _CheckingProcess) -> None:
        """A process is gone."""
        self._processes.remove(process)
        if not self._processes:
            self._all_gone.set()
        if process.was_warm:  # else it could not even start, and would not the next time
            self.warm()

    def idle(self, process: _CheckingProcess) -> None:
        """A process has not been asked for a while."""
        if len(self._processes) > 1:
            process.end()

    async def close(self) -> None:
        """End every process."""
        self._closed = True
        for process in list(self._processes):
            process.end()
        await self._all_gone.wait()


class _CheckingProcess:
    """One process, and the question it is at. See `process.Listener`."""

    def __init__(self, checker: Checker) -> None:
        self.job: _Job | None = None
        self.was_warm = False
        self._ending = False
        self._checker = checker
        self._loop = asyncio.get_running_loop()
        self._check_s = 0.0
        self._unpacker = msgpack.Unpacker()
        line = [*death_wrapper(), sys.executable, "-P", "-S", "-s", "-c", _PROGRAM]
        env = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = Process(line, env=env, cwd=Path("/"), listener=self)
        self._clock = self._loop.call_later(_START_S, self._late)
        self.connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._process.connect()
        except OSError:  # out of files; it has been killed
            self.on_exit(-signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def free(self) -> bool:
        """Whether it may be asked."""
        return self.job is None and not self._ending

    def ask(self, job: _Job, check_s: float) -> None:
        """Answer a question, as soon as it is warm; from then on its time runs."""
        self.job, self._check_s = job, check_s
        if self.was_warm:
            self._send(job)

    def _send(self, job: _Job) -> None:
        self._clock.cancel()
        self._clock = self._loop.call_later(self._check_s, self._late)
        self._process.write(msgpack.packb(job.question, unicode_errors="surrogatepass"))

    def _late(self) -> None:
        if self.was_warm and self.job is None:
            self._checker.idle(self)
            return
        self.end()
        self._settle(_UncheckedError("it takes too long"))

    def _settle(self, answer: str | _UncheckedError | None) -> None:
        job, self.job = self.job, None
        if job is None:
            return
        if job.answer.done():  # nobody waits any more
            pass
        elif isinstance(answer, _UncheckedError):
            job.answer.set_exception(answer)
        else:
            job.answer.set_result(answer)
        self._checker.answered(job)

    def end(self) -> None:
        """Kill it."""
        self._ending = True
        self._process.kill("")

    def on_stdout(self, data: bytes) -> None:
        """An answer, or the first sign that it is warm."""
        self._unpacker.feed(data)
        for answer in self._unpacker:
            self._clock.cancel()
            self._clock = self._loop.call_later(_IDLE_S, self._late)
            if self.was_warm:
                self._settle(answer)
            else:
                self.was_warm = True
                if self.job is not None:
                    self._send(self.job)

    def on_stdout_eof(self) -> None:
        """It is about to end."""

    def on_exit(self, status: int) -> None:
        """It has ended, or was."""
        self._clock.cancel()
        self._ending = True
        self._checker.ended(self)
        job = self.job
        if job is None:
            return
        log.warning(
            "a checking process has ended: %s %s", exit_words(status), self._process.stderr_tail()[-500:]
        )
        job.tries -= 1
        if self.was_warm and job.tries:
            self.job = None
            self._checker.ask_again(job)
        else:
            self._settle(_UncheckedError(f"the process that checks it has ended ({exit_words(status)})"))
