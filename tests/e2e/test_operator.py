"""What an operator does to a running daemon: reload, recycle, kill, signals. The scripted CLI stands in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccd_protocol.errors import Code, RpcError
from fakes.fault_stack import FaultStack, running_faults
from fakes.stack import wait_until


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[FaultStack]:
    (tmp_path / "ccd.toml").write_text("[pool]\nspares = 1\n")
    with running_faults(tmp_path, CCD_CONFIG=str(tmp_path / "ccd.toml")) as running:
        yield running


def ccd(stack: FaultStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ccd_cli", "ctl", *arguments]
    return subprocess.run(
        command, env=stack.environ(), capture_output=True, text=True, timeout=60, check=False
    )


def write(stack: FaultStack, text: str) -> Path:
    path = stack.folder / "ccd.toml"
    path.write_text(text)
    return path


def test_reload(stack: FaultStack) -> None:
    stack.quiet(spares=1)
    write(stack, "[pool]\nspares = 2\n[cache]\nenabled = true\n")
    done = ccd(stack, "reload")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "In force now: pool.spares" in done.stdout
        and "Pending, until a restart: cache.enabled" in done.stdout
    )
    stack.quiet(spares=2)  # it is in force
    path = write(stack, "[pool]\nspares = 'x'\nspars = 1\n")
    refused = ccd(stack, "reload")
    assert refused.returncode == 2
    assert f"{path}:2: pool.spares" in refused.stderr and f"{path}:3: pool.spars" in refused.stderr
    assert json.loads(ccd(stack, "reload", "--json").stdout)["problems"]
    assert stack.status()["settings"]["spares"] == 2 and stack.ask("still there")


def test_hup_reloads_and_a_wrong_file_ends_nothing(stack: FaultStack) -> None:
    stack.quiet(spares=1)
    write(stack, "[pool]\nspares = 2\n")
    stack.daemon.process.send_signal(signal.SIGHUP)
    stack.quiet(spares=2)
    write(stack, "nonsense")
    stack.daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "were not reloaded" in stack.daemon.log_text())
    assert stack.ask("still there")


def test_usr2_tells_the_log_how_things_are(stack: FaultStack) -> None:
    stack.quiet(spares=1)
    stack.daemon.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: "worker w1: profile chat, ready" in stack.daemon.log_text())


def test_recycle(stack: FaultStack) -> None:
    stack.quiet(spares=1)
    before = {row["pid"] for row in stack.workers()}
    done = ccd(stack, "recycle", "--profile", "chat")
    assert done.returncode == 0 and "1 processes" in done.stdout
    wait_until(lambda: not before & {row["pid"] for row in stack.workers()})
    assert stack.ask("afterwards")
    assert ccd(stack, "recycle", "--profile", "none").returncode == 1


def test_kill(stack: FaultStack) -> None:
    stack.quiet(spares=1)
    (row,) = stack.workers()
    assert ccd(stack, "kill", row["id"]).returncode == 0
    wait_until(lambda: row["pid"] not in {other["pid"] for other in stack.workers()})
    assert stack.ask("afterwards")
    with stack.client() as client, pytest.raises(RpcError) as refused:
        client.kill("w999")
    assert refused.value.code is Code.NOT_FOUND
