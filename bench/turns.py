"""One turn of the real CLI, on each of the ways that lead to it.

A `Timing` counts from the moment when the request leaves the caller. Every function returns at the turn's
end.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import IO, NamedTuple

from bench.stage import Endpoint, Stack, clean_environ
from ccd_client import Client
from ccd_daemon.claude import argv, control
from ccd_daemon.claude.login import LoginKind, Mode
from ccd_daemon.process.process import death_wrapper
from ccd_daemon.worker.controller import Controller

MODEL = "sonnet"
_PROMPT = "hello"
_CHAT = {"messages": [{"role": "user", "content": _PROMPT}], "model": MODEL, "system": "You are brief."}
_BODY = {"system": [{"type": "text", "text": _CHAT["system"]}], "metadata": {}, "messages": _CHAT["messages"]}
_COLD_ARGV = (
    "-p", _PROMPT, "--output-format", "stream-json", "--verbose", "--include-partial-messages",
    "--tools", "", "--setting-sources", "", "--strict-mcp-config", "--no-session-persistence",
    "--max-turns", "1", "--model", MODEL,
)  # fmt: skip


class Timing(NamedTuple):
    """Milliseconds from the request to the first text delta and to the result."""

    delta_ms: float
    result_ms: float


def timed(lines: Iterable[bytes], started: float, *, delta: bytes, end: bytes) -> Timing:
    """Read until `end`, noting when `delta` came."""
    delta_ms = 0.0
    for line in lines:
        if not delta_ms and delta in line:
            delta_ms = 1000 * (perf_counter() - started)
        if end in line:
            if not delta_ms:
                raise RuntimeError(f"a turn ended without a text delta: {line[:500]!r}")
            return Timing(delta_ms, 1000 * (perf_counter() - started))
    raise RuntimeError("the output ended before the turn did")


def engine_lines(request_id: str) -> bytes:
    """What the daemon writes for the request: its body as a live setting, and the user line that sends it."""
    env = {
        "CLAUDE_CODE_EXTRA_BODY": json.dumps(_BODY, separators=(",", ":")),
        "CLAUDE_CODE_DISABLE_THINKING": "1",
    }
    return control.flags(request_id, env=env, model=MODEL) + control.user_line(".")


def worker_environ(home: Path, api: Endpoint) -> dict[str, str]:
    """Exactly the environment that the daemon gives a worker, with a directory of its own (`CLAUDE_CONFIG_DIR`)."""
    environ = clean_environ(home, ANTHROPIC_API_KEY="test-key", ANTHROPIC_BASE_URL=api.url)
    return argv.worker_env(
        environ,
        login=LoginKind.API_KEY,
        extra=(),
        markers={},
        max_retries=2,
        config_dir=tempfile.mkdtemp(dir=home),
    )


def cold(cli: Path, home: Path, api: Endpoint) -> Timing:
    """A new `claude -p` for the request, with the same lean flags and environment; waits for its exit."""
    environ = worker_environ(home, api)
    started = perf_counter()
    with subprocess.Popen(
        [str(cli), *_COLD_ARGV],
        env=environ,
        cwd=environ["CLAUDE_CONFIG_DIR"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        timing = timed(process.stdout, started, delta=b'"text_delta"', end=b'"type":"result"')
        process.stdout.read()
    return timing


class HandDriven:
    """A warm CLI process driven over its pipes, started and initialised as the daemon does with a spare."""

    def __init__(self, cli: Path, home: Path, api: Endpoint) -> None:
        environ = worker_environ(home, api)
        self._process = subprocess.Popen(
            [*death_wrapper(), str(cli), *argv.worker_argv(Mode.FULL)],
            env=environ,
            cwd=environ["CLAUDE_CONFIG_DIR"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout
        self._stdin = self._process.stdin
        self._lines: IO[bytes] = open(self._process.stdout.fileno(), "rb", closefd=False)  # noqa: SIM115
        self._requests = 0
        self._controller = Controller("spare", Mode.FULL)
        self._controller.env = environ
        self._stdin.write(self._controller.warm_up(None))

    def wait_ready(self, *, rehearse: bool = True) -> None:
        """Wait for the reply to `initialize`, and rehearse, as the daemon does before it offers a spare."""
        self._read_until(b'"control_response"')
        if rehearse:
            for lines in (self._controller.rehearse(), self._controller.reset()):
                self._stdin.write(lines)
                self._read_until(b'"type":"result"')

    def _read_until(self, mark: bytes) -> None:
        for line in self._lines:
            if mark in line:
                return
        raise RuntimeError(f"the CLI ended before {mark!r}")

    def turn(self) -> Timing:
        """The first turn of a process, or a later one: the same two lines in one write as the daemon's."""
        self._requests += 1
        lines = engine_lines(f"r{self._requests}")
        started = perf_counter()
        self._stdin.write(lines)
        return timed(self._guarded(), started, delta=b'"text_delta"', end=b'"type":"result"')

    def _guarded(self) -> Iterator[bytes]:
        """The output; when a message starts, the body that forbids another call is written, as the daemon does."""
        for line in self._lines:
            if b'"message_start"' in line:
                guard = {"CLAUDE_CODE_EXTRA_BODY": control.GUARD_BODY}
                self._stdin.write(control.flags(f"g{self._requests}", env=guard))
            yield line

    def close(self) -> None:
        """Close stdin and wait for the process to end."""
        self._stdin.close()
        self._lines.read()
        self._lines.close()
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def hand_driven(cli: Path, home: Path, api: Endpoint) -> Iterator[HandDriven]:
    """A hand-driven process that is ready, for the length of a with block."""
    process = HandDriven(cli, home, api)
    try:
        process.wait_ready()
        yield process
    finally:
        process.close()


def through_socket(client: Client, chat: Mapping[str, object] = _CHAT) -> Timing:
    """One `chat.stream` of the blocking client on an open connection."""
    started = perf_counter()
    delta_ms = 0.0
    with client.call_stream("chat.stream", chat) as stream:
        for payload in stream:
            if not delta_ms and b'"text_delta"' in payload:
                delta_ms = 1000 * (perf_counter() - started)
        result_ms = 1000 * (perf_counter() - started)
        if not delta_ms or stream.result["api_calls"] != 1:
            raise RuntimeError(f"not one plain answer: {stream.result}")
    return Timing(delta_ms, result_ms)


class Http:
    """A kept-alive HTTP connection to the gateway, or to the API itself."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        self._connection.connect()

    def gateway(self) -> Timing:
        """A streamed chat completion."""
        messages = [{"role": "system", "content": _CHAT["system"]}, *_CHAT["messages"]]  # type: ignore[misc]
        request = {"model": MODEL, "messages": messages, "stream": True}
        return self._post("/v1/chat/completions", request, delta=b'"content":"Hello"', end=b"data: [DONE]")

    def api(self) -> Timing:
        """The Messages API without anything between: the floor of floors."""
        request = {"model": MODEL, "messages": _CHAT["messages"], "max_tokens": 100, "stream": True}
        return self._post(
            "/v1/messages", request, delta=b'"text_delta"', end=b"data: " + b'{"type": "message_stop"}'
        )

    def _post(self, path: str, request: object, *, delta: bytes, end: bytes) -> Timing:
        data = json.dumps(request).encode()
        started = perf_counter()
        self._connection.request("POST", path, data, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {response.read()!r}")
        timing = timed(response, started, delta=delta, end=end)
        response.read()
        return timing

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def settled(stack: Stack, ready: int) -> bool:
    """Whether a stack has exactly so many workers, all of them idle."""
    states = [row["state"] for row in stack.workers()]
    return len(states) == ready and set(states) == {"ready"}
