"""The scripted CLI shows each fault of its table, and otherwise behaves like the real one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import fake_cli
from fakes.fake_cli_install import install_fake_cli, set_faults, started_pids


class Process:
    """One running fake, driven by hand."""

    def __init__(self, path: Path) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([str(path), "-p"], stdin=pipe, stdout=pipe, stderr=pipe, env={})

    def send(self, *lines: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self.process.stdin.flush()

    def raw(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def read(self, until: str = "result") -> list[dict[str, Any]]:
        """Lines up to one of that type."""
        found = []
        while line := self.raw():
            found.append(json.loads(line))
            if found[-1]["type"] == until:
                break
        return found

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(10)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return install_fake_cli(tmp_path)


@pytest.fixture
def start(path: Path) -> Iterator[Any]:
    running: list[Process] = []

    def start(**faults: Any) -> Process:
        set_faults(path, **faults)
        running.append(Process(path))
        return running[-1]

    yield start
    for process in running:
        process.close()
    for pid in started_pids(path):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def user(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "user", "message": {"role": "user", "content": text}, "client_composed": True, **fields}


def faulty(**faults: Any) -> dict[str, Any]:
    return user(f"hello [[fake: {json.dumps(faults)}]]")


def control(subtype: str, **fields: Any) -> dict[str, Any]:
    return {"type": "control_request", "request_id": "r1", "request": {"subtype": subtype, **fields}}


def text_of(lines: list[dict[str, Any]]) -> str:
    events = [line["event"] for line in lines if line["type"] == "stream_event"]
    return "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")


def test_says_its_version_quickly(path: Path) -> None:
    begun = time.monotonic()
    said = subprocess.run([path, "--version"], capture_output=True, text=True, env={}, check=True).stdout
    assert said == "2.1.330 (Claude Code)\n"
    assert time.monotonic() - begun < 2


def test_every_fault_of_the_table_is_implemented() -> None:
    table = re.findall(r"^ ([a-z_]+) +[a-z\"]", fake_cli.__doc__ or "", re.MULTILINE)
    source = Path(fake_cli.__file__).read_text()
    assert len(table) > 20
    for key in set(table) - {"key", "starts"}:
        assert f'"{key}"' in source.replace(fake_cli.__doc__ or "", "")


def test_a_turn_has_the_lines_of_the_real_one(start: Any) -> None:
    process = start()
    process.send(control("get_binary_version"), user("hello"))
    assert process.read("control_response")[0]["response"]["response"]["version"] == "2.1.330"
    lines = process.read()
    assert [line["type"] for line in lines[:2]] == ["system", "system"]
    kinds = [line["event"]["type"] for line in lines if line["type"] == "stream_event"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert text_of(lines) == lines[-1]["result"] == "fake: hello"
    assert process.end() == 0


def test_extra_body_replaces_the_text(start: Any) -> None:
    process = start()
    body = json.dumps({"messages": [{"role": "user", "content": "from the body"}]})
    process.send(
        control("apply_flag_settings", settings={"env": {"CLAUDE_CODE_EXTRA_BODY": body}}), user("x")
    )
    assert text_of(process.read()) == "fake: from the body"


def test_clear_confirms_with_a_new_session(start: Any) -> None:
    process = start()
    process.send(user("/clear", client_composed=False))
    lines = process.read()
    assert [line["type"] for line in lines] == ["conversation_reset", "system", "system", "result"]
    assert lines[-1]["session_id"] == lines[0]["new_conversation_id"]
    process.send(user("/clear"))
    assert text_of(process.read()) == "fake: /clear"


def test_history_lines_get_a_result_without_a_turn(start: Any) -> None:
    process = start()
    process.send(user("past", shouldQuery=False))
    assert [(line["type"], line["num_turns"]) for line in process.read()] == [("result", 0)]


def test_an_interrupt_ends_a_silent_turn(start: Any) -> None:
    process = start()
    process.send(faulty(hang_turn=True))
    process.read("stream_event")
    process.send(control("interrupt"))
    assert process.read()[-1]["terminal_reason"] == "aborted_streaming"
    process.send(user("still there?"))
    assert text_of(process.read()) == "fake: still there?"


def test_a_deaf_turn_answers_nothing_any_more(start: Any) -> None:
    process = start()
    process.send(faulty(deaf=True))
    while b"text_delta" not in process.raw():
        pass
    process.send(control("interrupt"), control("get_binary_version"))
    with pytest.raises(subprocess.TimeoutExpired):
        process.process.wait(0.3)
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(10) == 143
    assert process.raw() == b""


def test_faults_of_the_start(start: Any, path: Path) -> None:
    failing = start(exit=3)
    assert failing.process.wait(10) == 3
    assert failing.process.stderr.read() == b"error: unknown option '--nonsense'\n"
    assert len(started_pids(path)) == 1
    hanging = start(hang=True)
    hanging.send(control("get_binary_version"))
    with pytest.raises(subprocess.TimeoutExpired):
        hanging.process.wait(0.3)
    mute = start(mute=True)
    mute.send(control("get_binary_version"))
    mute.end()
    assert mute.raw() == b""


def test_faults_of_the_first_starts_only(start: Any) -> None:
    assert [start(exit=7, starts=2).process.wait(10) for _ in range(2)] == [7, 7]
    third = start(exit=7, starts=2)
    third.send(user("hello"))
    assert text_of(third.read()) == "fake: hello"


def test_ignores_term_and_the_end_of_stdin(start: Any) -> None:
    process = start(ignore_term=True)
    process.send(user("hello"))
    process.read()
    process.process.send_signal(signal.SIGTERM)
    process.process.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        process.process.wait(0.3)


def test_a_grandchild_survives_and_holds_stdout(start: Any, path: Path) -> None:
    process = start(grandchild=True)
    process.send(user("hello"))
    process.read()
    assert process.end() == 0
    child, grandchild = sorted(started_pids(path), key=lambda pid: pid != process.process.pid)
    assert child == process.process.pid
    assert os.getsid(grandchild) not in (os.getsid(0), child)
    os.kill(grandchild, signal.SIGTERM)
    os.set_blocking(process.process.stdout.fileno(), False)
    assert process.process.stdout.read() is None  # neither data nor the end
    os.kill(grandchild, signal.SIGKILL)
    os.set_blocking(process.process.stdout.fileno(), True)
    assert process.process.stdout.read() == b""


@pytest.mark.parametrize("status", [0, 9, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGTERM])
def test_crashes_in_mid_stream(start: Any, status: int) -> None:
    process = start()
    process.send(faulty(crash=status, deltas=5, after=2))
    assert text_of(process.read()) == "w1 w2 "
    assert process.process.wait(10) == status


def test_half_a_line_then_the_end(start: Any) -> None:
    process = start()
    process.send(faulty(half_line=True))
    lines = process.process.stdout.read().split(b"\n")
    assert lines[-1] == b'{"type":"stream_event","event":{"type":"content_bl'
    assert process.process.wait(10) == 0


@pytest.mark.parametrize("fault", ["not_json", "bad_bytes"])
def test_lines_that_are_no_json(start: Any, fault: str) -> None:
    process = start()
    process.send(faulty(**{fault: True}))
    bad = 0
    while b'"result"' not in (line := process.raw()):
        try:
            json.loads(line)
        except ValueError:
            bad += 1
    assert bad == 1


def test_large_output(start: Any) -> None:
    process = start()
    process.send(faulty(huge_line_bytes=3_000_000))
    assert max(len(json.dumps(line)) for line in process.read()) > 3_000_000
    process.send(faulty(burst=10_000))
    assert text_of(process.read()).count(".") == 10_000
    process.send(faulty(split=True))
    assert text_of(process.read()) == "fake: hello"


def test_results_that_do_not_come_or_are_errors(start: Any) -> None:
    process = start()
    process.send(faulty(error_result="API Error: 500"))
    last = process.read()[-1]
    assert (last["subtype"], last["is_error"], last["result"]) == ("success", True, "API Error: 500")
    process.send(faulty(no_result=True), control("get_binary_version"))
    assert [line["type"] for line in process.read("control_response")].count("result") == 0


@pytest.mark.parametrize(("how", "expected"), [("literal", "fake: /clear"), ("error", ""), ("silent", "")])
def test_a_clear_that_is_not_confirmed(start: Any, how: str, expected: str) -> None:
    process = start(clear=how)
    process.send(user("/clear", client_composed=False), control("get_binary_version"))
    lines = process.read("control_response")
    assert "conversation_reset" not in [line["type"] for line in lines]
    assert ("result" in [line["type"] for line in lines]) is (how == "error")
    if how == "literal":
        assert text_of(lines + process.read()) == expected


def test_stderr_memory_and_control_errors(start: Any) -> None:
    process = start(control_error="initialize", stderr_bytes=1000)
    process.send(control("initialize"), control("get_binary_version"), faulty(grow_mb=100))
    assert process.read("control_response")[0]["response"]["subtype"] == "error"
    assert process.read("control_response")[0]["response"]["subtype"] == "success"
    process.read()
    pages = int(Path(f"/proc/{process.process.pid}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") > 100 << 20
    assert len(process.process.stderr.read(1000)) == 1000


def test_it_waits_with_its_deltas_and_finishes_when_stdin_ends(start: Any) -> None:
    process = start(hang_at_eof=False)
    process.send(faulty(deltas=5, delta_ms=10))
    process.read("stream_event")
    assert process.end() == 0
    assert process.read()[-1]["result"] == "w1 w2 w3 w4 w5 "


def test_it_goes_on_when_stdin_ends(start: Any) -> None:
    process = start(hang_at_eof=True)
    process.send(user("hello"))
    process.read()
    process.process.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        process.process.wait(0.3)
