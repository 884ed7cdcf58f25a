"""The conversation that a process has heard (mode `replay`), and its calls of client tools that wait for results. Pure.

Theory of operation. A process stands at the place of what it has heard (`chain`), or nowhere while it is told more.
The CLI calls a tool as soon as the model has named its arguments, long before the answer is complete, and then waits
for as long as it takes. The results come with the client's next request, all at once; a call that the CLI makes later
than that (it makes only some at a time) gets its result when it comes. What the answer cost so far is asked for before
the process parks, because the CLI itself tells at the end of its turn only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ccd_daemon.claude import control
from ccd_daemon.request import chain, client_tools, replay
from ccd_daemon.request.body import Script
from ccd_daemon.request.history import Block

_MOST_OPEN = 1000


class Parking:
    """The conversation of one CLI process.

    Attributes:
        place: where it stands (`chain`); None where nobody can go on with it.
        spoilt: where it would stand, had it heard only what was said.
        knobs: those in force.
        name: what its client calls the conversation, if it does.
        calls: those that it waits for, in the order in which the model made them.
    """

    def __init__(self) -> None:
        self.place: str | None = None
        self.spoilt: str | None = None
        self.calls: list[str] = []
        self.name: str | None = None
        self.knobs: replay.Knobs | None = None
        self._manifest: Mapping[str, Any] = {}
        self._asked_cost = ""
        self._total_cost_usd: float | None = None
        self._open: dict[str, tuple[str, Any]] = {}  # tool call: its control request and its number there
        self._given: dict[str, client_tools.Result] = {}  # results whose calls have not come yet

    def begin(self, script: Script) -> None:
        """A turn is about to be written."""
        self.place = None
        self.knobs = None if script.knobs is None else replay.Knobs(*script.knobs)
        if script.parks and script.binding is not None and not self._manifest:
            manifests = json.loads(script.binding).get("sdkMcpServerManifests", {})
            self._manifest = manifests.get(client_tools.SERVER, {})

    def results(self, script: Script) -> bytes:
        """Answer the open calls, each with the result at its place."""
        given = script.results or ()
        calls, self.calls = self.calls, []
        self._given = dict(zip(calls, given, strict=True))
        return b"".join(self._settle(call) for call in calls)

    def ask_cost(self, request_id: str) -> bytes:
        """Returns the question what the answer has cost, which is complete and calls tools."""
        self._asked_cost = request_id
        return control.request(request_id, "get_usage")

    def is_cost(self, reply: control.ControlReply) -> bool:
        """Returns whether this answers `ask_cost`; true once."""
        matches = bool(self._asked_cost) and reply.request_id == self._asked_cost
        if matches:
            self._asked_cost = ""
            self._total_cost_usd = control.cost_reply(reply.response).session.total_cost_usd or 0.0
        return matches

    def total_cost_usd(self, calls: Iterable[str]) -> float | None:
        """Returns what the process has cost so far, once that is known and every one of these calls has come."""
        return self._total_cost_usd if all(call in self._open for call in calls) else None

    def park(self, script: Script, answer: Sequence[Block], calls: Sequence[str]) -> None:
        """Wait for the results of these calls."""
        self.calls = list(calls)
        self._total_cost_usd = None
        self._stand(script, answer)

    def ended(self, script: Script, answer: Sequence[Block], *, clean: bool) -> None:
        """The CLI's turn is over; `clean` when it has heard what was said and nothing else."""
        self._open.clear()
        self._given.clear()
        self._total_cost_usd = None
        self._stand(script, answer)
        if not clean:
            self.place, self.spoilt = None, self.place

    def spoil(self) -> None:
        """It was interrupted while it waited, or went on: it has heard what nobody said."""
        self._open.clear()
        self.place, self.spoilt = None, self.place

    def _stand(self, script: Script, answer: Sequence[Block]) -> None:
        if script.place is not None:
            root, link = script.place
            self.place = root + chain.after(link, answer)

    def asked(self, request: control.ControlRequestLine) -> bytes:
        """The CLI says something to the server of the client's tools. Returns what it is told."""
        message = request.request.get("message")
        if not isinstance(message, dict):
            return control.reply_error(request.request_id, "this is no message to an MCP server")
        if message.get("method") != "tools/call":
            answer = client_tools.handshake(message, self._manifest)
            return control.reply(request.request_id, {"mcp_response": answer})
        call = _call_id(message)
        if call is None or len(self._open) >= _MOST_OPEN:
            return control.reply_error(request.request_id, "this call cannot be told from others")
        self._open[call] = (request.request_id, message.get("id"))
        return self._settle(call)

    def withdrawn(self, request_id: str) -> None:
        """The CLI no longer wants this answer."""
        self._open = {call: made for call, made in self._open.items() if made[0] != request_id}

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
