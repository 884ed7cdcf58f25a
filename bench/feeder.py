"""A stand-in for the CLI that is small enough to run a thousand times, and the feeder that plays it.

The daemon starts the stand-in as it starts the CLI: with its own wrapper, pipes and life table. The
stand-in itself is `sleep`. One feeder, in the benchmark's process, opens the pipes of every stand-in
through `/proc/PID/fd` and plays the CLI on them: it answers `initialize`, begins an answer when a user line
comes, and writes as many token lines as the benchmark wants. So all of the daemon is real, and only the
process behind the pipes is not.
"""

from __future__ import annotations

import json
import os
import select
from pathlib import Path
from typing import Any

LINE_BYTES = 255
_SCRIPT = """#!/bin/sh
case "$1" in
  --version) echo "2.1.330 (Claude Code)" ;;
  *) exec sleep 86400 ;;
esac
"""
#: One process per core is the rule for real CLIs, whose start costs a core; a stand-in costs nothing.
MANY = {
    "CCD_POOL__MAX_WORKERS": "1024",
    "CCD_POOL__SPARES": "0",
    "CCD_POOL__SPAWN_CONCURRENCY": "64",
    "CCD_QUEUE__MAX_WAITING": "2000",
    "CCD_QUEUE__TIMEOUT_S": "120",
    "CCD_DEADLINES__DRAIN_GRACE_S": "0.1",
    "CCD_DEADLINES__SHUTDOWN_S": "0",
    "CCD_DEADLINES__FIRST_OUTPUT_S": "600",
    "CCD_DEADLINES__STALL_S": "600",
    # Looking at the memory of a thousand processes once a second is no part of the relay.
    "CCD_POOL__POLL_S": "60",
}


def stand_in(folder: Path) -> Path:
    """Write the stand-in's script."""
    script = folder / "stand-in"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    return script


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _event(event: dict[str, Any]) -> bytes:
    return _line(
        {"type": "stream_event", "event": event, "session_id": "s", "parent_tool_use_id": None, "uuid": "u"}
    )


def token_line() -> bytes:
    """A token line of exactly `LINE_BYTES`, in the CLI's form."""
    delta = {"type": "text_delta", "text": ""}
    bare = _event({"type": "content_block_delta", "index": 0, "delta": delta})
    return bare.replace(b'"text":""', b'"text":"' + b"x" * (LINE_BYTES - len(bare)) + b'"')


_USAGE = {"input_tokens": 10, "output_tokens": 1}
_MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "bench",
    "content": [],
    "usage": _USAGE,
}
BEGIN = _event({"type": "message_start", "message": _MESSAGE}) + _event(
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
)
FINISH = _event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": _USAGE}) + _line(
    {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "result": "x",
        "usage": _USAGE,
        "total_cost_usd": 0,
    }
)


class Feeder:
    """Plays the CLI on the pipes of every adopted stand-in.

    Attributes:
        answering: the stdout of each stand-in that is in the middle of an answer.
        begin: what is written when a user line comes.
    """

    def __init__(self, begin: bytes = BEGIN) -> None:
        self.begin = begin
        self.answering: list[int] = []
        self.adopted: set[int] = set()
        self._out: dict[int, int] = {}  # stdin -> stdout
        self._poll = select.epoll()

    def adopt(self, pids: list[int]) -> None:
        """Open the pipes of those that are new."""
        for pid in pids:
            if pid not in self.adopted:
                self.adopted.add(pid)
                stdin = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
                self._out[stdin] = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
                self._poll.register(stdin, select.EPOLLIN)

    def serve(self, timeout_s: float) -> int:
        """Answer what the daemon wrote; returns how many answers were begun."""
        begun = 0
        for stdin, _ in self._poll.poll(timeout_s):
            begun += self._answer(os.read(stdin, 1 << 20), self._out[stdin])
        return begun

    def _answer(self, data: bytes, stdout: int) -> int:
        for line in data.splitlines():
            request = json.loads(line)
            if request["type"] == "user":
                os.write(stdout, self.begin)
                self.answering.append(stdout)
                return 1
            if request.get("request", {}).get("subtype") == "initialize":
                reply = {
                    "subtype": "success",
                    "request_id": request["request_id"],
                    "response": {"models": []},
                }
                os.write(stdout, _line({"type": "control_response", "response": reply}))
        return 0

    def finish(self) -> None:
        """End every answer."""
        for stdout in self.answering:
            os.write(stdout, FINISH)
        self.answering.clear()

    def close(self) -> None:
        """Let go of all pipes."""
        for stdin, stdout in self._out.items():
            os.close(stdin)
            os.close(stdout)
        self._poll.close()
