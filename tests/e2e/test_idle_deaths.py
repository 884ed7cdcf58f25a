"""Processes that are killed while nobody uses them cost nobody a request."""

from __future__ import annotations

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ccd_protocol.errors import Code, RpcError
from fakes.fault_stack import FaultStack, faulty, running_faults

MODES = ("full", "keep_system", "replay")
QUICK = {"CCD_POOL__REHEARSE": "false", "CCD_POOL__MAX_WORKERS": "8"}


def turns(stack: FaultStack) -> int:
    """How many turns all processes together were asked for."""
    told = stack.cli.with_name("claude.stdin")
    lines = told.read_bytes().splitlines() if told.exists() else []
    return sum(b'"type":"user"' in line and b"/clear" not in line for line in lines)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_turn_that_nobody_began_is_asked_again_once(tmp_path: Path, mode: str, streamed: bool) -> None:
    with running_faults(
        tmp_path,
        faults={"die": True, "starts": 1},
        CCD_ENGINE__BODY=mode,
        CCD_POOL__SPARES="1",
        **QUICK,
    ) as stack:
        with stack.client() as client:
            if streamed:
                text = "".join(
                    getattr(event, "text", "") or "" for event in client.chat("hello", stream=True)
                )
            else:
                text = client.chat("hello").text
        assert text == "fake: hello"


@pytest.mark.parametrize("mode", MODES)
def test_but_only_once_and_not_when_it_may_have_been_paid_for(tmp_path: Path, mode: str) -> None:
    with running_faults(tmp_path, faults={"record": True}, CCD_ENGINE__BODY=mode, **QUICK) as stack:
        before = turns(stack)
        error = stack.error_of(faulty(die=True))
        assert error.code is Code.WORKER_CRASHED and "SIGKILL" in error.message
        assert turns(stack) - before == 2, "asked again, and once"
        before = turns(stack)
        error = stack.error_of(faulty(crash=-int(signal.SIGKILL), after=0))
        assert error.code is Code.WORKER_CRASHED
        assert turns(stack) - before == 1, "this one may have been paid for"


def test_all_idle_processes_are_killed_and_nobody_notices(tmp_path: Path) -> None:
    with running_faults(tmp_path, CCD_POOL__SPARES="4", **QUICK) as stack:
        for _ in range(4):
            stack.quiet(spares=1)
            with stack.client() as client, ThreadPoolExecutor(8) as threads:
                for row in stack.workers("ready"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(row["pid"], signal.SIGKILL)
                answers = list(threads.map(lambda number: _outcome(client, number), range(8)))
            assert answers == [f"fake: hello {number}" for number in range(8)]


def _outcome(client, number: int) -> str:  # type: ignore[no-untyped-def]
    try:
        return str(client.chat(f"hello {number}").text)
    except RpcError as error:
        return f"{error.code.name}: {error.message}"
