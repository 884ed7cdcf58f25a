"""`admin.*`: what the daemon says of itself to its operator. They answer at once and never wait."""

from __future__ import annotations

import logging
import os
from typing import Protocol

from ccd_daemon.pool.policy import Rehearsals
from ccd_daemon.pool.pool import Pool
from ccd_daemon.process.memory import host_memory, rss_bytes
from ccd_daemon.request.body import bad
from ccd_daemon.rpc.methods.daemon import pool_state
from ccd_daemon.rpc.parameters import read
from ccd_daemon.session.session import Session
from ccd_daemon.session.sessions import Sessions
from ccd_daemon.worker.worker import Worker
from ccd_protocol.errors import Code, RpcError
from ccd_protocol.events import Called
from ccd_protocol.methods import (
    KillParams,
    NoResult,
    NoteParams,
    RecycleParams,
    RecycleResult,
    ReloadResult,
    StatusResult,
    WorkerRow,
    WorkersResult,
)

log = logging.getLogger("ccd")

_MAX_NOTE = 200


class Reloader(Protocol):
    """Takes the settings again (see `ccd_daemon.reload`)."""

    def reload(self) -> ReloadResult:
        """All of them or none. Raises RpcError."""


class Facts(Protocol):
    """What the methods need to know of the daemon (the composition root provides it)."""

    pool: Pool
    sessions: Sessions
    version: str

    def uptime_s(self) -> float:
        """Returns the seconds since start."""

    def status(self) -> dict[str, object]:
        """Returns the parts of the status that belong to no other object."""

    def memory(self) -> dict[str, object]:
        """Returns what bounds the workers' memory and ends their trees, and how short of memory the host is."""


class AdminMethods:
    """The methods that report."""

    def __init__(self, facts: Facts, reloading: Reloader) -> None:
        self._facts = facts
        self._reloading = reloading

    def reload(self, call: Called) -> ReloadResult:
        """Read the settings again."""
        return self._reloading.reload()

    def recycle(self, call: Called) -> RecycleResult:
        """Replace the processes of a profile, or all."""
        profile = read(call.params, RecycleParams).get("profile")
        pool = self._facts.pool
        if profile is not None and profile not in pool.shelves:
            raise RpcError(
                Code.NOT_FOUND, f"there is no profile {profile!r}; there are: {', '.join(pool.shelves)}"
            )
        log.info("recycling the CLI processes of %s, as asked", profile or "every profile")
        return RecycleResult(workers=pool.recycle(profile))

    def kill(self, call: Called) -> NoResult:
        """End one process."""
        wanted = read(call.params, KillParams)["id"]
        worker = next((worker for worker in self._facts.pool.workers if worker.id == wanted), None)
        if worker is None:
            raise RpcError(Code.NOT_FOUND, f"there is no worker {wanted!r}; `ccd ctl workers` lists them")
        log.warning("killing worker %s, as asked", worker.id)
        worker.tree.kill()
        return NoResult()

    def note(self, call: Called) -> NoResult:
        """Leave a line in the log, so that what happened outside can be found beside what happened here."""
        text = read(call.params, NoteParams)["text"]
        if not 0 < len(text) <= _MAX_NOTE:
            raise bad("text", f"text: expected 1 to {_MAX_NOTE} characters")
        log.info("noted: %s", text)
        return NoResult()

    def workers(self, call: Called) -> WorkersResult:
        """Returns the CLI processes, oldest first."""
        rows = sorted(self._facts.pool.workers, key=lambda worker: worker.born)
        agents = sorted(self._facts.sessions.running, key=lambda session: session.process.born)
        return WorkersResult(workers=[*map(_row, rows), *map(_session_row, agents)])

    def status(self, call: Called) -> StatusResult:
        """Returns everything an operator asks first."""
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
                "bound": sum(
                    map(len, (bound for shelf in pool.shelves.values() for bound in shelf.bound.values()))
                ),
                "parked": sum(1 for shelf in pool.shelves.values() for _ in shelf.parked()),
                **pool.recognition.report(),
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
