"""What the clients of a session are shown: its state, its history, and the frames that ccd itself makes. Pure.

A frame is one JSON line, as the CLI's own are; together they are what an attached client gets.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from ccd_protocol.methods import SessionState

_encode = msgspec.json.Encoder().encode


class _Init(msgspec.Struct):
    """`system/init`, with which every turn begins."""

    session_id: str | None = None
    model: str = ""
    cwd: str = ""
    tools: list[Any] = []
    permission_mode: str = msgspec.field(name="permissionMode", default="default")
    claude_code_version: str = ""
    mcp_servers: list[Any] = []


class _Status(msgspec.Struct):
    status: str | None = None
    permission_mode: str | None = msgspec.field(name="permissionMode", default=None)


class _Result(msgspec.Struct):
    total_cost_usd: float | None = None
    num_turns: int | None = None


_read_init = msgspec.json.Decoder(_Init).decode
_read_status = msgspec.json.Decoder(_Status).decode
_read_result = msgspec.json.Decoder(_Result).decode


def frame(kind: str, **fields: Any) -> bytes:
    """Returns a line of ccd's own."""
    return _encode({"type": kind, **fields}) + b"\n"


class View:
    """The state of one session, as the CLI's own lines tell it.

    Before the first turn the CLI says nothing of itself, so the state begins with what was asked for.
    """

    def __init__(self, session_id: str, *, model: str, cwd: str, permission_mode: str) -> None:
        self.state = SessionState(
            session_id=session_id,
            cli_session_id=None,
            model=model,
            cwd=cwd,
            tools=[],
            permission_mode=permission_mode,
            claude_code_version="",
            mcp_servers=[],
            total_cost_usd=0.0,
            num_turns=0,
            is_compacting=False,
        )

    def frame(self) -> bytes:
        """`session_init`."""
        return frame("session_init", session_id=self.state["session_id"], state=self.state)

    def saw_init(self, line: bytes) -> None:
        """A turn begins."""
        found = _read_init(line)
        state = self.state
        state["cli_session_id"] = found.session_id
        state["model"] = found.model
        state["cwd"] = found.cwd
        state["tools"] = found.tools
        state["permission_mode"] = found.permission_mode
        state["claude_code_version"] = found.claude_code_version
        state["mcp_servers"] = found.mcp_servers

    def saw_status(self, line: bytes) -> None:
        """The CLI says what it is doing, or that its permission mode has changed."""
        found = _read_status(line)
        self.state["is_compacting"] = found.status == "compacting"
        if found.permission_mode is not None:
            self.state["permission_mode"] = found.permission_mode

    def saw_result(self, line: bytes) -> None:
        """A turn has ended."""
        found = _read_result(line)
        if found.total_cost_usd is not None:
            self.state["total_cost_usd"] = found.total_cost_usd
        if found.num_turns is not None:
            self.state["num_turns"] = found.num_turns


class SessionHistory:
    """The last `assistant` and `result` lines, as many as fit."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0

    def add(self, line: bytes) -> None:
        """Keep a line; the oldest ones make room, and one that alone is too large is not kept."""
        self._lines.append(line)
        self._bytes += len(line)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._lines.popleft())

    def clear(self) -> None:
        """The CLI has forgotten it too."""
        self._lines.clear()
        self._bytes = 0

    def lines(self) -> list[bytes]:
        """Returns them, oldest first."""
        return list(self._lines)
