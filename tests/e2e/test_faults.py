"""What is killed, vanishes or stops: only its own request suffers, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccd_client import Client
from ccd_protocol.errors import Code, RpcError
from fakes.stack import Api, Stack, alive, running_stack, wait_until

SLOW = '[[offline: {"text": "one two three four five six seven eight", "deltas": 8, "delta_ms": 200}]]'
#: Goes on for longer than it takes to stop the process in the middle of it.
STEADY = '[[offline: {"text": "' + "word " * 60 + '", "deltas": 60, "delta_ms": 200}]]'
HANG = '[[offline: {"hang": true}]]'


@pytest.fixture
def stack(tmp_path: Path, cli: Path, api: Api) -> Iterator[Stack]:
    with running_stack(tmp_path, cli, api) as stack:
        yield stack


class Asking(threading.Thread):
    """One chat in a thread of its own; what came and how it ended."""

    def __init__(self, stack: Stack, prompt: str, **options: Any) -> None:
        super().__init__(daemon=True)
        self.text = ""
        self.error: RpcError | None = None
        self.first = threading.Event()
        self._stack, self._prompt, self._options = stack, prompt, options
        self.start()

    def run(self) -> None:
        try:
            with Client(self._stack.socket) as client:
                for event in client.chat(self._prompt, stream=True, **self._options):
                    self.text += getattr(event, "text", "") or ""
                    if self.text:  # before it another limit holds
                        self.first.set()
        except RpcError as error:
            self.error = error


def busy(stack: Stack) -> list[dict[str, Any]]:
    return [worker for worker in stack.workers() if worker["state"] == "busy"]


def test_a_killed_worker_fails_only_its_own_request(stack: Stack) -> None:
    first = Asking(stack, SLOW)
    assert first.first.wait(10)
    (victim,) = busy(stack)
    second = Asking(stack, SLOW)
    assert second.first.wait(10)
    os.kill(victim["pid"], signal.SIGKILL)
    first.join(5)
    second.join(10)
    assert first.error is not None
    assert first.error.code is Code.WORKER_CRASHED
    assert first.error.data["exit_status"] == "killed by SIGKILL"
    assert first.error.data["output_started"] is True
    assert not first.error.retryable
    assert second.error is None
    assert "eight" in second.text
    with Client(stack.socket) as client:
        assert "still here" in client.chat("still here").text


def test_a_stopped_worker_is_found_out_and_killed(tmp_path: Path, cli: Path, api: Api) -> None:
    with running_stack(
        tmp_path, cli, api, CCD_DEADLINES__STALL_S="1", CCD_DEADLINES__KILL_GRACE_S="0.3"
    ) as stack:
        asking = Asking(stack, STEADY)
        assert asking.first.wait(10)
        (victim,) = busy(stack)
        os.kill(victim["pid"], signal.SIGSTOP)
        asking.join(10)
        assert asking.error is not None
        assert asking.error.code is Code.WORKER_STUCK
        wait_until(lambda: not alive(victim["pid"]), timeout_s=5, what="the stopped worker to be killed")


def test_no_output_in_time_is_a_typed_failure(tmp_path: Path, cli: Path, api: Api) -> None:
    with (
        running_stack(tmp_path, cli, api, CCD_DEADLINES__FIRST_OUTPUT_S="1") as stack,
        Client(stack.socket) as client,
    ):
        with pytest.raises(RpcError) as caught:
            client.chat(HANG)
        assert caught.value.code is Code.WORKER_STUCK


def test_a_callers_deadline_interrupts_the_turn_and_keeps_the_worker(stack: Stack) -> None:
    with Client(stack.socket) as client:
        with pytest.raises(RpcError) as caught:
            client.chat(HANG, timeout_s=2)
        assert caught.value.code is Code.DEADLINE
        wait_until(lambda: not busy(stack) and stack.api.requests()[0]["outcome"] == "disconnected")
        assert client.chat("after").stop_reason == "end_turn"


def test_a_client_that_is_killed_frees_its_worker(stack: Stack) -> None:
    import subprocess
    import sys

    asking = subprocess.Popen(
        [sys.executable, "-m", "ccd_cli", "ask", HANG], env=stack.environ(), stdout=subprocess.DEVNULL
    )
    wait_until(stack.api.requests, what="the request to reach the API")
    asking.kill()
    asking.wait()
    wait_until(lambda: stack.api.requests()[0]["outcome"] == "disconnected", timeout_s=5)
    wait_until(lambda: not busy(stack), timeout_s=5)


def test_a_killed_daemon_leaves_no_process_and_its_clients_a_clear_error(stack: Stack) -> None:
    asking = Asking(stack, SLOW)
    assert asking.first.wait(10)
    assert stack.processes()
    stack.daemon.kill()
    asking.join(5)
    assert asking.error is not None
    assert asking.error.code is Code.LOST
    wait_until(lambda: not stack.processes(), timeout_s=2, what="the workers to die with the daemon")
    stack.start_daemon()  # over the stale socket
    with Client(stack.socket) as client:
        assert "again" in client.chat("again").text


def test_stopping_lets_a_running_answer_end(stack: Stack) -> None:
    asking = Asking(stack, SLOW)
    assert asking.first.wait(10)
    assert stack.daemon.stop() == 0
    asking.join(5)
    assert asking.error is None
    assert "eight" in asking.text
    assert not stack.socket.exists()
    assert not stack.processes()


def test_stopping_ends_what_does_not_end_in_time(tmp_path: Path, cli: Path, api: Api) -> None:
    with running_stack(tmp_path, cli, api, CCD_DEADLINES__SHUTDOWN_S="0.5") as stack:
        asking = Asking(stack, HANG)
        wait_until(lambda: busy(stack))
        assert stack.daemon.stop() == 0
        asking.join(5)
        assert asking.error is not None
        assert asking.error.code in (Code.DRAINING, Code.LOST)


def test_a_full_queue_is_refused_at_once_with_a_time_to_retry(tmp_path: Path, cli: Path, api: Api) -> None:
    settings = {"CCD_POOL__MAX_WORKERS": "1", "CCD_QUEUE__MAX_WAITING": "1"}
    with running_stack(tmp_path, cli, api, **settings) as stack:
        running = Asking(stack, SLOW)
        assert running.first.wait(10)
        waiting = Asking(stack, "waiting")
        wait_until(lambda: stack.status()["pool"]["waiting"] == 1)
        with Client(stack.socket) as client, pytest.raises(RpcError) as caught:
            client.chat("one too many")
        assert caught.value.code is Code.BUSY
        assert caught.value.retry_after_ms >= 1000
        for asking in (running, waiting):
            asking.join(15)
            assert asking.error is None


def test_upstream_failures_are_typed(stack: Stack) -> None:
    cases = [
        ({"status": 401}, Code.UPSTREAM_AUTH),
        ({"status": 429, "retry_after_s": 20}, Code.UPSTREAM_LIMIT),
        ({"status": 529}, Code.UPSTREAM_OVERLOADED),
        ({"status": 500}, Code.UPSTREAM_ERROR),
        ({"status": 400, "message": "prompt is too long: 1 > 0"}, Code.CONTEXT_TOO_LONG),
        ({"status": 400, "message": "messages: something is wrong"}, Code.BAD_PARAMS),
    ]
    import json

    for directive, code in cases:
        with Client(stack.socket) as client, pytest.raises(RpcError) as caught:
            client.chat(f"[[offline: {json.dumps(directive)}]]")
        assert caught.value.code is code, (directive, caught.value)
        assert caught.value.data["upstream_status"] == directive["status"]
        # Where the daemon's API is, is not the caller's matter.
        assert "127.0.0.1" not in caught.value.message


@pytest.mark.parametrize("fault", ["cut_after_deltas", "error_after_deltas"])
def test_an_answer_that_breaks_off_is_declared_broken(stack: Stack, fault: str) -> None:
    asking = Asking(
        stack,
        f'[[offline: {{"text": "a b c d e f", "deltas": 6, "delta_ms": 50, "{fault}": 3, "times": 1}}]]',
    )
    asking.join(20)
    assert asking.error is not None
    assert asking.error.code is Code.UPSTREAM_ERROR
    assert asking.error.data["output_started"] is True
    assert "f" not in asking.text


def test_a_second_daemon_on_the_same_socket_is_refused(stack: Stack) -> None:
    second = stack.ccd("daemon", timeout_s=20)
    assert second.returncode == 69
    assert str(stack.daemon.pid) in second.stderr
    with Client(stack.socket) as client:
        assert client.ping()["pid"] == stack.daemon.pid


def test_replay_carries_the_history_in_order(tmp_path: Path, cli: Path, api: Api) -> None:
    history = [
        {"role": "system", "content": "be brief"},
        *(
            {"role": role, "content": f"{role}-{index}"}
            for index in range(3)
            for role in ("user", "assistant")
        ),
        {"role": "user", "content": "last"},
    ]
    with (
        running_stack(tmp_path, cli, api, CCD_ENGINE__BODY="replay") as stack,
        Client(stack.socket) as client,
    ):
        answer = client.chat(history, model="claude-sonnet-4-5", max_tokens=99, temperature=0.5)
        assert "last" in answer.text
        assert answer.result["mode"] == "replay"
        assert answer.result["ignored"] == ["temperature"]
        (body,) = stack.api.bodies()
        said = [
            (message["role"], _texts(message["content"]))
            for message in body["messages"]
            if message["role"] != "system"
        ]
        assert said == [(message["role"], message["content"]) for message in history[1:]]
        assert "be brief" in str(body["system"])
        assert body["max_tokens"] == 99
        assert body.get("temperature") != 0.5


def test_keep_system_lets_the_cli_compose_the_system_prompt(tmp_path: Path, cli: Path, api: Api) -> None:
    settings = {"CCD_ENGINE__BODY": "keep_system", "CCD_POOL__MAX_WORKERS": "3"}
    with running_stack(tmp_path, cli, api, **settings) as stack, Client(stack.socket) as client:
        for index in range(6):
            system = f"system-{index % 3}"
            answer = client.chat(
                [{"role": "system", "content": system}, *HISTORY, {"role": "user", "content": f"q{index}"}],
                model="claude-sonnet-4-5",
                temperature=0.5,
            )
            assert answer.result["mode"] == "keep_system"
            assert f"q{index}" in answer.text
        for index, body in enumerate(api.bodies()):
            texts = [block["text"] for block in body["system"]]
            assert f"system-{index % 3}" in texts
            assert sum("system-" in text for text in texts) == 1
            assert any("Claude" in text for text in texts)  # the CLI's own identity
            assert [_texts(message["content"]) for message in body["messages"]] == ["u1", "a1", f"q{index}"]
            assert body["temperature"] == 0.5
        assert len(stack.workers()) <= 3


def test_a_system_prompt_that_recurs_gets_a_spare_of_its_own(tmp_path: Path, cli: Path, api: Api) -> None:
    with (
        running_stack(tmp_path, cli, api, CCD_ENGINE__BODY="keep_system") as stack,
        Client(stack.socket) as client,
    ):
        for tenant in ("a", "b", "c"):
            params = {"messages": [{"role": "user", "content": "hi"}], "system": "same", "tenant": tenant}
            client.call("chat.complete", params)
            wait_until(
                lambda: not any(worker["state"] in ("spawning", "warming") for worker in stack.workers())
            )
        assert all("same" in str(body["system"]) for body in api.bodies())


def test_a_mode_that_the_backend_refuses_gives_way_to_the_next(tmp_path: Path, cli: Path, api: Api) -> None:
    with running_stack(tmp_path, cli, api, CCD_ENGINE__BODY="full") as stack, Client(stack.socket) as client:
        text = "This credential is only authorized for use with Claude Code and cannot be used for other API requests."
        api.script({"reply": {"status": 400, "message": text}, "uses": 1})
        answer = client.chat("hello", system="s")
        assert answer.result["mode"] == "keep_system"
        status = stack.status()["pool"]
        assert status["mode"] == "keep_system"
        assert "full" in status["refused_modes"]


HISTORY = [{"role": "user", "content": "u1"}, {"role": "assistant", "content": "a1"}]


def _texts(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def test_a_refused_login_is_a_state_and_does_not_cost_processes(tmp_path: Path, cli: Path, api: Api) -> None:
    with (
        running_stack(tmp_path, cli, api, CCD_ENGINE__BODY="replay") as stack,
        Client(stack.socket) as client,
    ):
        for _ in range(12):
            with pytest.raises(RpcError) as caught:
                client.chat('[[offline: {"status": 401}]]')
            assert caught.value.code is Code.UPSTREAM_AUTH
        assert len(stack.api.requests()) <= 8
        status = stack.status()
        assert status["state"] == "degraded"
        assert status["counters"]["spawned"] <= 8


def test_a_login_that_works_again_ends_that_state(stack: Stack) -> None:
    with Client(stack.socket) as client:
        with pytest.raises(RpcError):
            client.chat('[[offline: {"status": 401}]]')
        assert stack.status()["state"] == "degraded"
        client.chat("hello")
        assert stack.status()["state"] == "ready"
