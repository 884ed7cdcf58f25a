"""What each action of the life table is for a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ccd_daemon import errors
from ccd_daemon.worker.lifecycle import Action
from ccd_protocol.errors import Code, RpcError

if TYPE_CHECKING:
    from ccd_daemon.worker.worker import Worker


def _write_turn(worker: Worker) -> None:
    assert worker.turn is not None
    worker.tree.write(worker.turn.script.first)


def _failing(code: Code, otherwise: str) -> Callable[[Worker], None]:
    """The process is killed, for the reason that the worker knows, or else for this one."""

    def fail(worker: Worker) -> None:
        why = f"the CLI process was killed: {worker.death or otherwise}"
        worker.fail(RpcError(code, why, {"stderr_tail": worker.tree.stderr_tail()}))

    return fail


def _fail_draining(worker: Worker) -> None:
    tail = worker.tree.stderr_tail()
    worker.fail(RpcError(Code.DRAINING, "ccd is shutting down", {"stderr_tail": tail}))


DO: Mapping[Action, Callable[[Worker], None]] = {
    Action.PING: lambda worker: worker.tree.write(worker.controller.warm_up(worker.binding)),
    Action.REHEARSE: lambda worker: worker.tree.write(worker.controller.rehearse()),
    Action.OFFER: lambda worker: worker.owner.offer(worker),
    Action.WITHDRAW: lambda worker: worker.owner.withdraw(worker),
    Action.WRITE_TURN: _write_turn,
    Action.WRITE_RESULTS: _write_turn,
    Action.INTERRUPT: lambda worker: worker.tree.write(worker.controller.interrupt()),
    Action.RESET: lambda worker: worker.tree.write(worker.controller.reset()),
    Action.CLOSE_STDIN: lambda worker: worker.tree.close_stdin(),
    Action.TERMINATE: lambda worker: worker.tree.terminate(),
    Action.KILL: lambda worker: worker.tree.kill(),
    Action.FAIL_STUCK: _failing(Code.WORKER_STUCK, "it did not answer"),
    Action.FAIL_OOM: _failing(Code.WORKER_OOM, "out of memory"),
    Action.FAIL_BAD_OUTPUT: _failing(Code.WORKER_CRASHED, "bad output"),
    Action.FAIL_DRAINING: _fail_draining,
    Action.FAIL_CRASHED: lambda worker: worker.fail(
        errors.crashed(worker.exit_words, worker.tree.stderr_tail())
    ),
    Action.BURY: lambda worker: worker.bury(),
}
