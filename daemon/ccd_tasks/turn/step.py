"""One step of a task, from its first attempt to its end.

Before anything is asked, the attempt is written down; after a crash that mark says that an attempt ended without
anybody knowing how. It is counted as an interruption, and the step is asked again, a few times: a step that its
process never survives has failed, and so has no second victim. An agent's step is not repeated, for its tools may
have run. Steps that were interrupted run one at a time, so that the one which kills the process is known.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from ccd_client import AsyncClient
from ccd_protocol.errors import MEANINGS, Code, RpcError
from ccd_tasks.spec import Options, Step
from ccd_tasks.store import events, items, tasks
from ccd_tasks.store.journal import Journal
from ccd_tasks.store.schema import CANCELLED, COMPLETED, FAILED, FINAL, INTERRUPTED, RUNNING
from ccd_tasks.turn.agent import run_agent
from ccd_tasks.turn.asking import NOT_BEGUN, ask, pause_s, until_there
from ccd_tasks.turn.bells import Bells
from ccd_tasks.turn.purse import Purse, Receipt
from ccd_tasks.turn.slots import Slots

log = logging.getLogger("ccd.tasks")

_AHEAD = 16  # items are read so many at a time
_FLUSH_S = 0.2  # text waits so long for more of it, and is written together
Outputs = Callable[[str, bytes], str | None]  # writes a file; why not, or None


class Stopped(Exception):
    """The step is to end without an answer; the message is the error's code."""


class Run:
    """One task that runs here.

    Attributes:
        id, generation: which, and which run of it; an older one may write nothing.
        stop: why no further step is begun: "cancelled", "budget", "expired"; set at most once.
        cost_usd: of its steps so far.
    """

    def __init__(self, row: tasks.Row, options: Options, cost_usd: float) -> None:
        self.id: str = row.id
        self.generation: int = row.generation
        self.tenant: str = row.tenant
        self.key_id: str | None = row.key_id
        self.kind: str = row.kind
        self.priority: int = row.priority
        self.total: int = row.total
        self.options = options
        self.ends_s: float | None = None  # by the clock that does not jump
        if options.deadline_s is not None:
            left_s = min(options.deadline_s, row.created_at + options.deadline_s - time.time())
            self.ends_s = time.monotonic() + left_s
        self.cost_usd = cost_usd
        self.touched: set[int] = set()  # items that were begun before, or are being run
        self.ahead: dict[int, tasks.Row] = {}  # items that were read before their turn
        self.context: dict[str, str] = {}  # of a workflow: what its steps answered
        self.stopping = asyncio.Event()
        self.stop: str | None = None
        self.abandoned = False  # it goes on elsewhere, or later: write nothing

    def end(self, why: str) -> None:
        """Begin no further step, and end those that run."""
        self.stop = self.stop or why
        if why == "cancelled":
            self.stopping.set()

    def pause(self) -> None:
        """Let the steps that run end, and leave the rest as it is."""
        self.abandoned = True

    def abandon(self) -> None:
        """Leave it as it is, steps that run included."""
        self.abandoned = True
        self.stopping.set()

    def check_limits(self) -> None:
        """Stop before a step that may not begin any more."""
        budget = self.options.budget_usd
        if budget is not None and self.cost_usd >= budget:
            self.end("budget")
        if self.ends_s is not None and time.monotonic() > self.ends_s:
            self.end("expired")


class Outcome(NamedTuple):
    """How a step ended."""

    status: str
    text: str = ""


class Host(Protocol):
    """What steps need of the process."""

    journal: Journal
    client: AsyncClient
    slots: Slots
    suspects: asyncio.Lock
    purse: Purse | None
    outputs: Outputs | None
    max_interruptions: int
    step_timeout_s: float
    bells: Bells


STOPS = {
    "cancelled": "it was cancelled",
    "budget": "the budget of the whole was used up before it began",
    "expired": "the time for the whole was over before it began",
}


async def run_step(host: Host, run: Run, number: int) -> Outcome:
    """Run one item to its end; an item that has ended is only looked at.

    Raises:
        Fenced: the task runs elsewhere, or is to be left as it is.
    """
    run.check_limits()
    row = await _looked_up(host, run, number)
    if row is None or run.abandoned:
        raise tasks.Fenced
    if row.status in FINAL:
        return Outcome(row.status, _text_of(row.result))
    if run.stop is not None:
        return await _end(host, run, number, CANCELLED, error=_error(run.stop, STOPS[run.stop]))
    if row.status == RUNNING or row.interruptions:
        async with host.suspects:
            return await _Step(host, run, row).run()
    return await _Step(host, run, row).run()


async def _looked_up(host: Host, run: Run, number: int) -> items.Row:
    """An item; those that nobody has begun are read some at a time."""
    if number in run.touched:
        return await host.journal.insist(lambda c: items.get(c, run.id, number))
    if number not in run.ahead:
        rows = await host.journal.insist(lambda c: tasks.items(c, run.id, number - 1, _AHEAD))
        run.ahead |= {row.number: row for row in rows if row.number not in run.touched}
    run.touched.add(number)
    return run.ahead.pop(number, None)


class _Step:
    """The attempts of one item."""

    def __init__(self, host: Host, run: Run, row: items.Row) -> None:
        self._host = host
        self._run = run
        self._row = row
        self._number: int = row.number
        self._text: list[str] = []
        self._flush: asyncio.Task[None] | None = None

    async def run(self) -> Outcome:
        host, run, row = self._host, self._run, self._row
        try:
            step = msgspec.json.decode(row.params, type=Step)
        except (msgspec.MsgspecError, ValueError):
            return await self._failed("unreadable", "the record of this step cannot be read")
        if step.error is not None:
            return await _end(host, run, self._number, FAILED, error=step.error)
        interruptions = row.interruptions + (row.status == RUNNING)
        if step.agent is not None and row.status == RUNNING:
            said = "the process that ran this agent ended, and what its tools did is not repeated"
            return await _end(host, run, self._number, INTERRUPTED, error=_error("interrupted", said))
        if interruptions > host.max_interruptions:
            said = f"the process that ran this step ended {interruptions} times; it is not tried again"
            return await self._failed("poisoned", said)
        try:
            answer = await self._answered(step)
        except Stopped as stopped:
            if run.abandoned:
                raise tasks.Fenced from None
            return await _end(
                host, run, self._number, CANCELLED, error=_error(str(stopped), STOPS[str(stopped)])
            )
        except RpcError as error:
            return await self._refused(step, error)
        return await self._completed(step, answer)

    async def _answered(self, step: Step) -> dict[str, Any]:
        """Attempts until one succeeds, within the step's time; a cancelled task ends them."""
        timeout_s = step.timeout_s or self._host.step_timeout_s
        asking = asyncio.ensure_future(self._attempts(step))
        stopping = asyncio.ensure_future(self._run.stopping.wait())
        try:
            await asyncio.wait({asking, stopping}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            if stopping.done():
                raise Stopped(self._run.stop or "cancelled")
            raise RpcError(Code.DEADLINE, f"no answer within {timeout_s:g} s")
        finally:
            stopping.cancel()
            asking.cancel()
            await asyncio.gather(asking, stopping, return_exceptions=True)

    async def _attempts(self, step: Step) -> dict[str, Any]:
        left, waited = step.retries, 0
        while True:
            try:
                async with self._host.slots.place(self._run.priority, self._run.tenant):
                    return await self._attempt(step)
            except RpcError as error:
                self._text.clear()
                if step.agent is not None and error.code not in NOT_BEGUN:
                    raise
                if error.code is Code.LOST:
                    await until_there(self._host.client)
                    continue  # counted as an interruption when it begins again
                if error.code in NOT_BEGUN or error.code is Code.UPSTREAM_LIMIT:
                    waited += 1
                elif not MEANINGS[error.code].retryable or not left or self._spent(step):
                    raise
                else:
                    left -= 1
                await self._host.journal.insist(
                    lambda c: items.pause(c, self._run.id, self._run.generation, self._number)
                )
                await asyncio.sleep(pause_s(waited or step.retries - left, error.retry_after_ms))

    def _spent(self, step: Step) -> bool:
        return step.budget_usd is not None and self._row.cost_usd >= step.budget_usd

    async def _attempt(self, step: Step) -> dict[str, Any]:
        host, run = self._host, self._run
        receipt = await self._admitted(step)
        tell = run.kind != "batch"
        row = await host.journal.insist(
            lambda c: items.begin(c, run.id, run.generation, self._number, tell=tell)
        )
        if tell:
            host.bells.ring(run.id)
        if row.interruptions + (row.status == RUNNING) > host.max_interruptions:
            raise RpcError(Code.WORKER_CRASHED, "the daemon was lost in every attempt", {"poisoned": True})
        if step.agent is not None:
            return await run_agent(host.client, step.agent, step.prompt or "", run.tenant, self._said)
        params = {**(step.chat or {}), "tenant": run.tenant}
        if step.use_context and run.context:
            params["messages"] = with_context(params["messages"], run.context)
        return await ask(host.client, params, receipt, None if run.kind == "batch" else self._said)

    async def _admitted(self, step: Step) -> Receipt | None:
        if self._run.key_id is None:
            return None
        if self._host.purse is None:
            raise RpcError(Code.FORBIDDEN, "this worker cannot look at API keys")
        return await self._host.purse.admit(self._run.key_id, step.chat or step.agent or {})

    # --- live output ---

    def _said(self, text: str) -> None:
        self._text.append(text)
        if self._flush is None or self._flush.done():
            self._flush = asyncio.ensure_future(self._flush_soon())

    async def _flush_soon(self) -> None:
        await asyncio.sleep(_FLUSH_S)
        told = self._told()
        if told and not self._run.abandoned:
            run = self._run

            def write(connection: Any) -> None:
                tasks.check(connection, run.id, run.generation)
                events.add(connection, run.id, told)

            try:
                await self._host.journal.write(write)
            except (RpcError, tasks.Fenced):
                return  # output that cannot be written now is in the answer all the same
            self._host.bells.ring(run.id)

    def _told(self) -> list[tuple[str, dict[str, Any]]]:
        text, self._text = "".join(self._text), []
        return [("text", {"number": self._number, "text": text})] if text else []

    # --- endings ---

    async def _completed(self, step: Step, answer: dict[str, Any]) -> Outcome:
        if self._flush is not None:
            self._flush.cancel()
        if step.output_file is not None:
            answer["output_error"] = await self._written(step.output_file, answer["text"])
        self._run.cost_usd += float(answer.get("cost_usd") or 0.0)
        return await _end(self._host, self._run, self._number, COMPLETED, result=answer, before=self._told())

    async def _written(self, path: str, text: str) -> str | None:
        if self._host.outputs is None:
            return "this worker writes no files"
        return await asyncio.to_thread(self._host.outputs, path, text.encode())

    async def _refused(self, step: Step, error: RpcError) -> Outcome:
        if error.code is Code.BUDGET:
            self._run.end("budget")
        if step.agent is not None and error.code is Code.LOST:
            said = "the daemon that ran this agent was lost, and what its tools did is not repeated"
            return await _end(
                self._host, self._run, self._number, INTERRUPTED, error=_error("interrupted", said)
            )
        code = "poisoned" if error.data.get("poisoned") else error.code.name.lower()
        return await self._failed(code, error.message)

    async def _failed(self, code: str, message: str) -> Outcome:
        return await _end(
            self._host, self._run, self._number, FAILED, error=_error(code, message), before=self._told()
        )


async def _end(host: Host, run: Run, number: int, status: str, **how: Any) -> Outcome:
    await host.journal.insist(lambda c: items.end(c, run.id, run.generation, number, status, **how))
    host.bells.ring(run.id)
    return Outcome(status, (how.get("result") or {}).get("text", ""))


def _error(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message}


def _text_of(result: str | None) -> str:
    try:
        return str(json.loads(result or "{}").get("text", ""))
    except ValueError:
        return ""


def with_context(messages: list[Any], context: Mapping[str, str]) -> list[Any]:
    """The messages of a step, which is shown what earlier ones answered."""
    shown = "\n".join(f'<step name="{_attribute(name)}">\n{text}\n</step>' for name, text in context.items())
    told = f"<context>\n{shown}\n</context>"
    last = dict(messages[-1])
    content = last.get("content")
    last["content"] = (
        f"{told}\n\n{content}"
        if isinstance(content, str)
        else [{"type": "text", "text": told}, *(content or ())]
    )
    return [*messages[:-1], last]


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
