"""What is asked of `ccd worker`, and how an answer is read: pure, and the same for both classes."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypedDict, cast

from ccd_client._calls.options import ChatOptions, Messages, Prompt, request_of
from ccd_protocol.errors import Code, RpcError
from ccd_settings.paths import socket_path, tasks_socket

Task: TypeAlias = dict[str, Any]
Item: TypeAlias = dict[str, Any]
Event: TypeAlias = dict[str, Any]
Params: TypeAlias = dict[str, Any]

POLL_S = 30.0
PATIENCE_S = 60.0  # how long a worker that restarts is waited for
APPEND_STEPS = 200
APPEND_BYTES = 4 << 20
_PAGE = 200
_STEP = ("name", "agent", "prompt", "retries", "budget_usd", "critical", "use_context")


class TaskOptions(TypedDict, total=False):
    """What holds for a task as a whole.

    Attributes:
        priority: 0 goes first, 9 last; 5 is the default.
        idempotency_key: the same key gives the same task, however often it is submitted.
        budget_usd: what is spent at most; then no further step begins.
        deadline_s: after so long no further step begins.
        concurrency: lines of a batch at a time.
        webhook: `{"url": …, "secret": "whsec_…"}`, told of the end.
        metadata: words of your own, given back.
    """

    priority: int | None
    idempotency_key: str | None
    budget_usd: float | None
    deadline_s: float | None
    concurrency: int | None
    webhook: Mapping[str, Any] | None
    metadata: Mapping[str, str] | None


TASK_OPTIONS = frozenset(TaskOptions.__annotations__)


def worker_socket(path: str | os.PathLike[str] | None) -> str:
    """The worker's socket: the one named, else beside the daemon's."""
    return os.fspath(path) if path is not None else str(tasks_socket(socket_path()))


def split(options: Mapping[str, Any]) -> tuple[TaskOptions, ChatOptions]:
    """Options of the whole, and options of each chat."""
    whole = {name: value for name, value in options.items() if name in TASK_OPTIONS}
    rest = {name: value for name, value in options.items() if name not in TASK_OPTIONS}
    return cast(TaskOptions, whole), cast(ChatOptions, rest)


def step_of(messages: Messages | None, options: Mapping[str, Any]) -> Params:
    """One step: a chat with `ChatOptions`, or an agent with `prompt`; and what a step may say besides.

    Raises:
        RpcError: BAD_PARAMS. TypeError: there is no such option.
    """
    own = {name: options[name] for name in _STEP if options.get(name) is not None}
    if "agent" in own:
        return own
    given = {name: value for name, value in options.items() if name not in _STEP}
    chat = request_of(cast(Messages, messages), cast(ChatOptions, given))
    timeout = {"timeout_s": chat.timeout_s} if chat.timeout_s is not None else {}
    return {**own, "chat": chat.params, **timeout}


def step_of_prompt(prompt: Prompt, number: int, options: Mapping[str, Any]) -> Params:
    """A step of a batch or workflow, with options of its own."""
    if not isinstance(prompt, Mapping):
        return {"name": f"{number}", **step_of(prompt, options)}
    own = dict(prompt)
    messages = own.pop("messages", None)
    return {"name": f"{number}", **step_of(messages, {**options, **own})}


def submission(kind: str, steps: Iterable[Params], whole: TaskOptions) -> Params:
    """Parameters of `task.submit`. Without a key it gets one, so that it may be sent again."""
    given = {name: value for name, value in whole.items() if value is not None}
    key = given.pop("idempotency_key", None) or f"client-{uuid.uuid4().hex}"
    priority = {"priority": given.pop("priority")} if "priority" in given else {}
    return {"kind": kind, "steps": list(steps), "options": given, "idempotency_key": key, **priority}


def chunks(steps: Iterable[Params]) -> Iterable[list[Params]]:
    """Steps in portions that fit into one call."""
    held: list[Params] = []
    size = 0
    for step in steps:
        nbytes = len(json.dumps(step))
        if held and (len(held) >= APPEND_STEPS or size + nbytes > APPEND_BYTES):
            yield held
            held, size = [], 0
        held.append(step)
        size += nbytes
    if held:
        yield held


def page(task_id: str, after: int) -> Params:
    """Parameters of `task.items`."""
    return {"task_id": task_id, "after": after, "limit": _PAGE}


def is_away(error: RpcError) -> bool:
    """Whether the worker may only be restarting."""
    return error.code in (Code.LOST, Code.DRAINING)


def no_worker(error: RpcError) -> RpcError:
    """The failure where there is no worker, saying what to start."""
    return RpcError(error.code, f"{error.message.partition(';')[0]}; start it with: ccd worker")


class Lines:
    """Puts the events together from the payloads of `task.events`."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, payload: bytes) -> list[Event]:
        """The events that are whole now."""
        *whole, self._tail = (self._tail + payload).split(b"\n")
        return [json.loads(line) for line in whole if line]
