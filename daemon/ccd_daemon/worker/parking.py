"""The client tools that a CLI has called and that wait for results. Pure: every method returns the lines to write.

Theory of operation. The CLI calls a tool as soon as the model has named its arguments, long before the answer is
complete, and then waits for as long as it takes. The results come with the client's next request, all at once; a call
that the CLI makes later than that (it makes so many at a time) gets its result when it comes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ccd_daemon.claude import control
from ccd_daemon.request import client_tools

_MOST_OPEN = 1000


class Parking:
    """The open calls of one CLI process. `manifest` is that of the tools it was given."""

    def __init__(self) -> None:
        self.manifest: Mapping[str, Any] = {}
        self._open: dict[str, tuple[str, Any]] = {}  # tool call: its control request and its number there
        self._given: dict[str, client_tools.Result] = {}  # results whose calls have not come yet

    def __len__(self) -> int:
        return len(self._open)

    def publish(self, binding: str) -> None:
        """The process is given the tools of this `initialize`."""
        manifests = json.loads(binding).get("sdkMcpServerManifests", {})
        self.manifest = manifests.get(client_tools.SERVER, {})

    def asked(self, request: control.ControlRequestLine) -> bytes:
        """The CLI says something to the server of the client's tools."""
        message = request.request.get("message")
        if not isinstance(message, dict):
            return control.reply_error(request.request_id, "this is no message to an MCP server")
        if message.get("method") != "tools/call":
            answer = client_tools.handshake(message, self.manifest)
            return control.reply(request.request_id, {"mcp_response": answer})
        call = _call_id(message)
        if call is None or len(self._open) >= _MOST_OPEN:
            return control.reply_error(request.request_id, "this call cannot be told from others")
        self._open[call] = (request.request_id, message.get("id"))
        return self._settle(call)

    def withdrawn(self, request_id: str) -> None:
        """The CLI no longer wants this answer."""
        self._open = {call: made for call, made in self._open.items() if made[0] != request_id}

    def give(self, calls: Sequence[str], results: Sequence[client_tools.Result]) -> bytes:
        """Answer the calls, each with the result at its place."""
        self._given = dict(zip(calls, results, strict=True))
        return b"".join(self._settle(call) for call in calls)

    def clear(self) -> None:
        """The turn is over: nothing is open any more."""
        self._open.clear()
        self._given.clear()

    def _settle(self, call: str) -> bytes:
        if call not in self._given or call not in self._open:
            return b""
        request_id, number = self._open.pop(call)
        answer = {"jsonrpc": "2.0", "id": number, "result": self._given.pop(call)}
        return control.reply(request_id, {"mcp_response": answer})


def _call_id(message: Mapping[str, Any]) -> str | None:
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    call = meta.get("claudecode/toolUseId") if isinstance(meta, dict) else None
    return call if isinstance(call, str) else None
