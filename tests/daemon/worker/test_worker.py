"""The worker's own decisions, without a process: what a turn gets when its process misbehaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ccd_daemon import config
from ccd_daemon.claude.login import Mode
from ccd_daemon.process.cgroup import Group
from ccd_daemon.request.body import Script
from ccd_daemon.worker.lifecycle import Event, State
from ccd_daemon.worker.turn import Turn
from ccd_daemon.worker.worker import Worker
from ccd_protocol.errors import Code, RpcError
from fakes.in_loop import in_loop
from fakes.listener import WorkerEar

MIB = 1 << 20


class Pipe:
    """Stands for a process: remembers what it is told."""

    def __init__(self) -> None:
        self.pid = 2**22 - 1
        self.paused = False
        self.written = b""
        self.signals: list[str] = []

    def write(self, data: bytes) -> None:
        self.written += data

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def close_stdin(self) -> None:
        self.signals.append("eof")

    def terminate(self, marker: str) -> None:
        self.signals.append("term")

    def kill(self, marker: str) -> None:
        self.signals.append("kill")

    def stderr_tail(self) -> str:
        return "last complaint"


class OomGroup(Group):
    def __init__(self) -> None:
        super().__init__([], caps_memory=True)

    def oom_kills(self) -> int:
        return 1


def held(**overrides: str) -> tuple[Worker, Pipe, WorkerEar]:
    settings = config.read({"HOME": "/nonexistent", "CCD_SOCKET": "/nonexistent/ccd.sock", **overrides})
    listener = WorkerEar()
    worker = Worker("w1", "chat", Mode.FULL, settings, listener)
    pipe = Pipe()
    worker.tree.process = pipe  # type: ignore[assignment]
    for event in (Event.SPAWNED, Event.WARMED, Event.LEASE):
        worker.feed(event)
    return worker, pipe, listener


def line(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def event(kind: str, **fields: Any) -> bytes:
    return line(type="stream_event", event={"type": kind, **fields})


DELTA = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"})
START = event("message_start", message={"model": "m", "usage": {"input_tokens": 3}})
DONE = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4})
RESULT = line(type="result", subtype="success", is_error=False, result="hi")


def begin(worker: Worker, sink: Callable[[bytes], None] | None = None) -> Turn:
    return worker.turns.begin(Script(b"ask\n"), "m", sink)


@in_loop
async def test_a_caller_that_held_the_cli_back_does_not_hold_back_the_next() -> None:
    worker, pipe, _ = held()
    turn = begin(worker, lambda lines: worker.turns.pause())
    worker.on_stdout(START + DELTA)
    assert pipe.paused
    worker.on_stdout(DONE + RESULT)
    assert turn.over
    assert not pipe.paused


@in_loop
async def test_a_complete_answer_survives_the_death_of_its_process() -> None:
    worker, _, listener = held()
    turn = begin(worker, lambda lines: None)
    worker.on_stdout(START + DELTA + DONE)
    worker.on_exit(-11)
    result = await turn.future
    assert result["stop_reason"] == "end_turn"
    assert result["usage"]["input_tokens"] == 3
    assert result["usage"]["output_tokens"] == 4
    assert listener.dead == 1


@in_loop
async def test_an_incomplete_answer_does_not() -> None:
    worker, _, _ = held()
    turn = begin(worker, lambda lines: None)
    worker.on_stdout(START + DELTA)
    worker.on_exit(-11)
    with pytest.raises(RpcError) as caught:
        await turn.future
    assert caught.value.code is Code.WORKER_CRASHED
    assert caught.value.data["exit_status"] == "killed by SIGSEGV"
    assert caught.value.data["stderr_tail"] == "last complaint"
    assert caught.value.data["output_started"] is True


def begun(message_id: str) -> bytes:
    return event("message_start", message={"id": message_id, "model": "m"})


def whole(message_id: str, text: str) -> bytes:
    """A finished block, as the CLI repeats it, or as it comes of an answer that it got without a stream."""
    message = {"id": message_id, "model": "m", "content": [{"type": "text", "text": text}]}
    return line(type="assistant", message=message)


@in_loop
async def test_an_answer_that_is_got_again_is_not_passed_on_after_part_of_the_first() -> None:
    worker, _, _ = held()
    passed: list[bytes] = []
    turn = begin(worker, passed.append)
    worker.on_stdout(begun("msg_1") + DELTA)
    worker.on_stdout(whole("msg_1", "hi"))  # the first one's own block does no harm
    worker.on_stdout(whole("msg_2", "hi there"))
    worker.on_stdout(RESULT)
    with pytest.raises(RpcError) as caught:
        await turn.future
    assert (caught.value.code, caught.value.data["output_started"]) == (Code.UPSTREAM_ERROR, True)
    assert b"hi there" not in b"".join(passed)


@in_loop
async def test_an_answer_that_is_got_again_counts_while_nothing_of_the_first_was_passed_on() -> None:
    for sink in (None, lambda lines: None):
        worker, _, _ = held()
        turn = begin(worker, sink)
        worker.on_stdout(begun("msg_1") + (b"" if sink else DELTA))
        worker.on_stdout(whole("msg_2", "hi ") + whole("msg_2", "there") + RESULT)
        await turn.future
        assert turn.text == "hi there"


@in_loop
async def test_a_missing_result_line_is_waited_for_only_briefly() -> None:
    worker, pipe, _ = held(CCD_DEADLINES__RESULT_S="0.1")
    turn = begin(worker)
    worker.on_stdout(START + DELTA + DONE)
    assert not turn.over
    result = await turn.future
    assert result["stop_reason"] == "end_turn"
    assert worker.state is State.KILLING
    assert "term" in pipe.signals


@in_loop
async def test_a_kill_by_the_kernel_at_the_memory_limit_is_told_as_such() -> None:
    worker, _, _ = held()
    worker.tree.group = OomGroup()
    turn = begin(worker)
    worker.on_exit(-9)
    with pytest.raises(RpcError) as caught:
        await turn.future
    assert caught.value.code is Code.WORKER_OOM
    assert worker.state is State.DEAD


@in_loop
async def test_over_the_hard_limit_is_killed_at_once() -> None:
    worker, pipe, _ = held()
    turn = begin(worker)
    worker.measured(3 << 30, 1)
    assert pipe.signals == ["term", "kill"]
    with pytest.raises(RpcError) as caught:
        await turn.future
    assert caught.value.code is Code.WORKER_OOM


@in_loop
async def test_too_many_processes_are_over_the_limit_too() -> None:
    worker, pipe, _ = held(CCD_POOL__MAX_PROCESSES="8")
    worker.measured(MIB, 8)
    assert worker.state is State.HELD
    worker.measured(MIB, 9)
    assert worker.state is State.KILLING
    assert "max_processes" in (worker.death or "")
    assert pipe.signals[-1] == "kill"


@in_loop
async def test_over_the_soft_limit_ends_when_it_is_given_back() -> None:
    worker, _, _ = held()
    worker.measured(1 << 30, 1)
    assert worker.state is State.HELD
    assert worker.wear.over_soft_limit
    worker.feed(Event.RELEASE)
    worker.measured(1 << 30, 1)
    assert worker.state is State.DRAINING


@in_loop
async def test_an_oversized_line_is_let_go_of() -> None:
    worker, pipe, _ = held()
    worker.turns.reader._cutter.max_line_bytes = 1000
    turn = begin(worker)
    worker.on_stdout(b"x" * 999)
    worker.on_stdout(b"x" * 999)
    with pytest.raises(RpcError) as caught:
        await turn.future
    assert caught.value.code is Code.WORKER_CRASHED
    worker.on_stdout(b"x" * 999)
    assert worker.turns.reader._cutter.unfinished_bytes == 0
    assert pipe.signals == ["term"]


@in_loop
async def test_what_nobody_understands_ends_only_this_process() -> None:
    for bad in (
        b"not json\n",
        b'{"type":"\x00\xff"}\n',
        b"[]\n",
        b'{"type":5}\n',
        b'{"type":"result","usage":7}\n',
    ):
        worker, _, _ = held()
        turn = begin(worker)
        worker.on_stdout(bad)
        with pytest.raises(RpcError) as caught:
            await turn.future
        assert caught.value.code is Code.WORKER_CRASHED, bad
        worker.on_exit(-15)
        assert worker.state is State.DEAD
