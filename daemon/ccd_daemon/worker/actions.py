"""What each action of the life table is for a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ccd_daemon import errors
from ccd_daemon.process.tree import ProcessTree
from ccd_daemon.worker.controller import Controller
from ccd_daemon.worker.lifecycle import Action
from ccd_daemon.worker.parking import Parking
from ccd_daemon.worker.turns import Turns
from ccd_protocol.errors import Code, RpcError


class Actor(Protocol):
    """What the actions are carried out on: the worker."""

    tree: ProcessTree
    controller: Controller
    turns: Turns
    parking: Parking
    binding: str | None
    death: str | None
    exit_words: str

    def offer(self) -> None:
        """It is READY: tell the pool."""

    def shelve(self) -> None:
        """It is PARKED: tell the pool."""

    def withdraw(self) -> None:
        """It is no longer READY or PARKED: tell the pool."""

    def end(self) -> None:
        """It is DEAD: clean up after it."""


def _write_turn(worker: Actor) -> None:
    assert worker.turns.turn is not None
    worker.tree.write(worker.turns.turn.script.first)


def _write_results(worker: Actor) -> None:
    assert worker.turns.turn is not None
    script = worker.turns.turn.script
    worker.tree.write(script.first + worker.parking.results(script))


def _failing(code: Code, otherwise: str) -> Callable[[Actor], None]:
    """Returns the action: the process is killed, for the reason that the worker knows, or else for this one."""

    def fail(worker: Actor) -> None:
        why = f"the CLI process was killed: {worker.death or otherwise}"
        worker.turns.fail(RpcError(code, why, {"stderr_tail": worker.tree.stderr_tail()}))

    return fail


def _fail_draining(worker: Actor) -> None:
    tail = worker.tree.stderr_tail()
    worker.turns.fail(RpcError(Code.DRAINING, "ccd is shutting down", {"stderr_tail": tail}))


DO: Mapping[Action, Callable[[Actor], None]] = {
    Action.WARM_UP: lambda worker: worker.tree.write(worker.controller.warm_up(worker.binding)),
    Action.REHEARSE: lambda worker: worker.tree.write(worker.controller.rehearse()),
    Action.OFFER: lambda worker: worker.offer(),
    Action.GUARD: lambda worker: worker.tree.write(worker.controller.guard()),
    Action.SHELVE: lambda worker: worker.shelve(),
    Action.WITHDRAW: lambda worker: worker.withdraw(),
    Action.WRITE_TURN: _write_turn,
    Action.WRITE_RESULTS: _write_results,
    Action.INTERRUPT: lambda worker: worker.tree.write(worker.controller.interrupt()),
    Action.RESET: lambda worker: worker.tree.write(worker.controller.reset()),
    Action.CLOSE_STDIN: lambda worker: worker.tree.close_stdin(),
    Action.TERMINATE: lambda worker: worker.tree.terminate(),
    Action.KILL: lambda worker: worker.tree.kill(),
    Action.FAIL_STUCK: _failing(Code.WORKER_STUCK, "it did not answer"),
    Action.FAIL_OOM: _failing(Code.WORKER_OOM, "out of memory"),
    Action.FAIL_BAD_OUTPUT: _failing(Code.WORKER_CRASHED, "bad output"),
    Action.FAIL_DRAINING: _fail_draining,
    Action.FAIL_CRASHED: lambda worker: worker.turns.fail(
        errors.crashed(worker.exit_words, worker.tree.stderr_tail())
    ),
    Action.END: lambda worker: worker.end(),
}
