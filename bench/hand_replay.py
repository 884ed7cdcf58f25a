"""A warm CLI process driven over its pipes by documented knobs alone, as one could by hand: the floor of `replay`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from bench.stage import Endpoint
from bench.turns import MODEL, worker_environ
from ccd_daemon.claude import argv, control
from ccd_daemon.claude.login import Mode
from ccd_daemon.process.process import death_wrapper

PAUSE_S = 0.1
TOOL: dict[str, Any] = {
    "name": "get_time",
    "description": "The time of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
_MANIFEST = {
    "initializeResult": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": argv.CLIENT_TOOLS_SERVER, "version": "1"},
    },
    "toolsListResult": {
        "tools": [
            {
                "name": TOOL["name"],
                "description": TOOL["description"],
                "inputSchema": TOOL["input_schema"],
                "annotations": {"readOnlyHint": True},
            }
        ]
    },
}
_DELTA, _CALL, _RESULT = b'"text_delta"', b'"tools/call"', b'"type":"result"'


class HandReplay:
    """One spare, un-initialised. Every method returns the milliseconds to the first delta, and waits for the end."""

    def __init__(self, cli: Path, home: Path, api: Endpoint) -> None:
        environ = worker_environ(home, api)
        self._process = subprocess.Popen(
            [*death_wrapper(), str(cli), *argv.worker_argv(Mode.REPLAY)],
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
        self._stdin.write(control.request("warm", "get_binary_version"))
        self._until(b'"control_response"')

    def first(self, text: str) -> float:
        """System prompt, tools, model and the user's line, in one write."""
        server = argv.CLIENT_TOOLS_SERVER
        lines = control.request(
            "open",
            "initialize",
            systemPrompt=["You are brief."],
            sdkMcpServers=[server],
            sdkMcpServerManifests={server: _MANIFEST},
        )
        lines += control.flags("flags", env={"CLAUDE_CODE_DISABLE_THINKING": "1"}, model=MODEL)
        return self._timed(lines + control.user_line(text))

    def later(self, text: str) -> float:
        """The user's line."""
        return self._timed(control.user_line(text))

    def tool(self, text: str) -> float:
        """A turn that calls a tool; what counts is from the tool's result on."""
        self._stdin.write(control.user_line(text))
        call = json.loads(self._until(_CALL))
        result = {"content": [{"type": "text", "text": "noon"}]}
        answer = {"jsonrpc": "2.0", "id": call["request"]["message"]["id"], "result": result}
        self._until(b'"message_stop"')
        time.sleep(PAUSE_S)  # as long as the client of the other ways takes
        return self._timed(control.reply(call["request_id"], {"mcp_response": answer}))

    def close(self) -> None:
        """Close stdin and wait for the process to end."""
        self._stdin.close()
        self._lines.read()
        self._lines.close()
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    def _timed(self, lines: bytes) -> float:
        started = perf_counter()
        self._stdin.write(lines)
        self._until(_DELTA)
        took_ms = 1000 * (perf_counter() - started)
        self._until(_RESULT)
        return took_ms

    def _until(self, mark: bytes) -> bytes:
        for line in self._lines:
            if mark in line:
                return line
        raise RuntimeError(f"the CLI ended before {mark!r}")


@contextlib.contextmanager
def hand_replay(cli: Path, home: Path, api: Endpoint) -> Iterator[HandReplay]:
    """A spare for the length of a with block."""
    process = HandReplay(cli, home, api)
    try:
        yield process
    finally:
        process.close()
