"""What a session's CLI says, and what its followers are shown of it.

Lines go to the followers as they came, but for what concerns only ccd: replies to control requests, permission requests
(which become frames of their own, see `permissions`), and `system/init`, which becomes `session_init`. Token lines are
not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from ccd_daemon.claude import control
from ccd_daemon.claude.ndjson import all_tokens, each
from ccd_daemon.session.permissions import Permissions
from ccd_daemon.session.process import SessionProcess
from ccd_daemon.session.view import SessionHistory, View
from ccd_daemon.worker.lifecycle import UNHEARD


class SessionReaderListener(Protocol):
    """Whose CLI it is: the session."""

    def on_result(self) -> None:
        """A turn has ended."""


class SessionReader:
    """Sorts the lines of one session's CLI."""

    def __init__(
        self,
        listener: SessionReaderListener,
        process: SessionProcess,
        view: View,
        history: SessionHistory,
        permissions: Permissions,
    ) -> None:
        self.history = history
        self._listener = listener
        self._process = process
        self._view = view
        self._permissions = permissions

    def shown(self, lines: bytes) -> bytes:
        """Returns what the followers get of some whole lines."""
        return lines if all_tokens(lines) else b"".join(map(self._shown, each(lines)))

    # --- lines, by their kind: each returns what the followers are told of it ---

    def _shown(self, line: bytes) -> bytes:
        if self._process.state in UNHEARD:
            return b""
        try:
            kind = control.kind_of(line)
            special = _SPECIAL.get((kind.type, kind.subtype)) or _SPECIAL.get((kind.type, None))
            return line if special is None else special(self, line)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            self._process.bad_output(str(error))
            return b""

    def _on_reply(self, line: bytes) -> bytes:
        self._process.requests.replied(control.control_reply(line).response)
        return b""

    def _on_request(self, line: bytes) -> bytes:
        asked = control.control_request(line)
        subtype, request_id = asked.request.get("subtype"), asked.request_id
        if subtype != "can_use_tool":
            refusal = control.reply_error(request_id, f"this host does not serve {subtype!r}")
            self._process.tree.write(refusal)
            return b""
        return self._permissions.ask(request_id, asked.request)

    def _on_withdrawn(self, line: bytes) -> bytes:
        return self._permissions.withdraw(control.cancel_line(line).request_id)

    def _on_init(self, line: bytes) -> bytes:
        self._view.saw_init(line)
        self._process.turn_began()  # also of messages that were queued in the CLI
        return self._view.frame()

    def _on_status(self, line: bytes) -> bytes:
        self._view.saw_status(line)
        return line

    def _on_assistant(self, line: bytes) -> bytes:
        self.history.add(line)
        return line

    def _on_result(self, line: bytes) -> bytes:
        self._view.saw_result(line)
        self.history.add(line)
        self._listener.on_result()
        self._process.turn_ended()
        return line

    def _on_reset(self, line: bytes) -> bytes:
        self.history.clear()
        return line

    def _on_keep_alive(self, line: bytes) -> bytes:
        return b""


_SPECIAL: Mapping[tuple[str, str | None], Callable[[SessionReader, bytes], bytes]] = {
    ("control_response", None): SessionReader._on_reply,
    ("control_request", None): SessionReader._on_request,
    ("control_cancel_request", None): SessionReader._on_withdrawn,
    ("system", "init"): SessionReader._on_init,
    ("system", "status"): SessionReader._on_status,
    ("assistant", None): SessionReader._on_assistant,
    ("result", None): SessionReader._on_result,
    ("conversation_reset", None): SessionReader._on_reset,
    ("keep_alive", None): SessionReader._on_keep_alive,
}
