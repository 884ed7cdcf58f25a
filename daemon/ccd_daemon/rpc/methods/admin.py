"""`daemon.*`, `model.list` and `admin.*`: what the daemon says of itself. They answer at once and never wait."""

from __future__ import annotations

import logging
import os
from typing import Protocol

from ccd_daemon.pool.policy import Rehearsals
from ccd_daemon.pool.pool import Pool
from ccd_daemon.process.memory import host_memory, rss_bytes
from ccd_daemon.session.session import Session
from ccd_daemon.session.sessions import Sessions
from ccd_daemon.worker.worker import Worker
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.events import Called
from ccd_protocol.methods import (
    HealthResult,
    Model,
    ModelsResult,
    NoResult,
    PingResult,
    StatusResult,
    WorkerRow,
    WorkersResult,
)

log = logging.getLogger("ccd")

_MAX_NOTE = 200
#: What the CLI calls its models when it has not been asked yet.
_ALIASES = ("opus", "sonnet", "haiku")


class Facts(Protocol):
    """What the methods need to know of the daemon (the composition root provides it)."""

    pool: Pool
    sessions: Sessions
    version: str

    def uptime_s(self) -> float:
        """Seconds since start."""

    def status(self) -> dict[str, object]:
        """The parts of the status that belong to no other object."""

    def memory(self) -> dict[str, object]:
        """What bounds the workers' memory and ends their trees, and how short of memory the host is."""


class AdminMethods:
    """The methods that report."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._pong = PingResult(pid=os.getpid(), version=facts.version)

    def ping(self, call: Called) -> PingResult:
        """Answers at once."""
        return self._pong

    def note(self, call: Called) -> NoResult:
        """Leave a line in the log, so that what happened outside can be found beside what happened here."""
        text = call.params.get("text")
        if not isinstance(text, str) or not 0 < len(text) <= _MAX_NOTE or set(call.params) != {"text"}:
            raise RpcError(Code.BAD_PARAMS, f"admin.note takes 'text', at most {_MAX_NOTE} characters")
        log.info("noted: %s", text)
        return NoResult()

    def health(self, call: Called) -> HealthResult:
        """Whether a chat sent now would be accepted."""
        pool = self._facts.pool
        state, reason = pool_state(pool)
        answer = HealthResult(
            ready=state in ("ready", "starting"),
            state=state,
            reason=reason,
            version=self._facts.version,
            cli_version=pool.cli_version,
        )
        if not answer["ready"]:
            answer["retry_after_ms"] = 2000
        return answer

    def models(self, call: Called) -> ModelsResult:
        """The CLI's own list, each resolved name once, under the first alias that is not `default`."""
        pool = self._facts.pool
        found: dict[str, Model] = {}
        for entry in sorted(pool.models, key=lambda model: model.get("value") == "default"):
            alias = str(entry.get("value") or "")
            name = str(entry.get("resolvedModel") or alias)
            if name and name not in found:
                found[name] = Model(
                    id=name, alias=alias or None, display_name=str(entry.get("displayName") or name)
                )
        if not found:
            found = {alias: Model(id=alias, alias=alias, display_name=alias.title()) for alias in _ALIASES}
        return ModelsResult(models=list(found.values()), profiles=sorted(pool.shelves))

    def workers(self, call: Called) -> WorkersResult:
        """The CLI processes, oldest first."""
        rows = sorted(self._facts.pool.workers, key=lambda worker: worker.born)
        agents = sorted(self._facts.sessions.running, key=lambda session: session.process.born)
        return WorkersResult(workers=[*map(_row, rows), *map(_session_row, agents)])

    def status(self, call: Called) -> StatusResult:
        """Everything an operator asks first."""
        pool = self._facts.pool
        state, reason = pool_state(pool)
        workers = pool.workers
        answer: StatusResult = StatusResult(
            version=self._facts.version,
            pid=os.getpid(),
            state=state,
            reason=reason,
            uptime_s=round(self._facts.uptime_s(), 1),
            pool={
                "mode": pool.mode,
                "refused_modes": dict(pool.refused_modes),
                "rehearsals": _rehearsals(pool.rehearsals),
                "workers": len(workers),
                "waiting": pool.waiting,
                "spares": {name: len(shelf.spares) for name, shelf in pool.shelves.items()},
                "last_death": pool.last_death,
            },
            counters=pool.counters | {"surplus_calls": surplus(pool)},
            memory={
                "daemon_rss_bytes": rss_bytes(os.getpid()),
                "workers_rss_bytes": sum(worker.rss_bytes for worker in workers),
                **self._facts.memory(),
                **host_memory(),
            },
            **self._facts.status(),  # type: ignore[typeddict-item]
        )
        return answer


def surplus(pool: Pool) -> int:
    """API calls that the CLI made beyond one per turn."""
    return pool.counters["surplus_calls"] + sum(worker.wear.surplus_calls for worker in pool.workers)


def pool_state(pool: Pool) -> tuple[str, str | None]:
    """The daemon's state in a word, and why."""
    if pool.draining:
        return "draining", "ccd is shutting down"
    if pool.login.refusal is not None:
        return "degraded", pool.login.refusal
    broken = pool.broken()
    if broken is not None:
        return "degraded", f"the CLI cannot be started: {broken.breaker.reason}"
    if not any(worker.was_ready for worker in pool.workers) and pool.counters["leases"] == 0:
        return "starting", "the first CLI process is warming up"
    return "ready", None


def _row(worker: Worker) -> WorkerRow:
    return WorkerRow(
        id=worker.id,
        profile=worker.profile,
        tenant=worker.tenant,
        mode=worker.mode,
        state=worker.state.value,
        pid=worker.pid,
        age_s=round(worker.age_s, 1),
        turns=worker.wear.turns,
        rss_bytes=worker.rss_bytes,
        cli_version=worker.cli_version,
        story=worker.story.steps(),
    )


def _session_row(session: Session) -> WorkerRow:
    process = session.process
    return WorkerRow(
        id=session.id,
        profile="session",
        tenant=session.tenant,
        mode="session",
        state=process.state.value,
        pid=process.pid,
        age_s=round(process.age_s, 1),
        turns=process.turns,
        rss_bytes=process.rss_bytes,
        cli_version=session.view.state["claude_code_version"] or None,
        story=process.story.steps(),
    )


def _rehearsals(rehearsals: Rehearsals) -> dict[str, object]:
    return {"on": rehearsals.allowed, "done": rehearsals.done, "fault": rehearsals.fault}
