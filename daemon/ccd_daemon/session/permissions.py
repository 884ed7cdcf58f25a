"""Permission requests of a session's CLI that wait for somebody's reply, each for a limited time.

The first reply counts, whoever gives it. Whatever is not an explicit `allow` is a denial.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ccd_daemon.claude import control
from ccd_daemon.session.view import frame
from ccd_protocol.errors import Code, RpcError

DENIED = "Permission denied by user"


class Permissions:
    """The open requests of one session, oldest first.

    Args:
        late: called with the id of a request that nobody has replied to within `patience_s`.
        changed: called when one has come or gone.
        patience_s: how long each is kept open.
    """

    def __init__(self, late: Callable[[str], None], changed: Callable[[], None], patience_s: float) -> None:
        self._late = late
        self._changed = changed
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._open: dict[str, dict[str, Any]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._open

    def ask(self, request_id: str, request: dict[str, Any]) -> bytes:
        """A `can_use_tool` request has come. Returns the frame for the clients."""
        self._open[request_id] = request
        self._timers[request_id] = self._loop.call_later(self._patience_s, self._late, request_id)
        self._changed()
        return _asking(request_id, request)

    def frames(self) -> list[bytes]:
        """Returns the open requests again, for a client that has just come."""
        return [_asking(request_id, request) for request_id, request in self._open.items()]

    def reply(
        self, request_id: str, behavior: str, updated_input: dict[str, Any] | None, message: str | None
    ) -> tuple[bytes, bytes]:
        """Returns the line for the CLI, and the frame for all clients.

        Raises:
            RpcError: NOT_FOUND, nobody asked that, or it was answered before.
        """
        request = self._take(request_id)
        if request is None:
            raise RpcError(
                Code.NOT_FOUND,
                "there is no such permission request; perhaps it was answered before",
                {"param": "request_id"},
            )
        if behavior == "allow":
            given = updated_input if updated_input is not None else request.get("input", {})
            said: dict[str, Any] = {"behavior": "allow", "updatedInput": given}
        else:
            said = {"behavior": "deny", "message": message or DENIED}
        return control.reply(request_id, said), _resolved(request_id, said["behavior"])

    def withdraw(self, request_id: str) -> bytes:
        """The CLI no longer wants an answer. Returns the frame for all clients, empty when it was not open."""
        return _resolved(request_id, "cancelled") if self._take(request_id) is not None else b""

    def clear(self) -> None:
        """Nobody waits for answers any more."""
        for request_id in list(self._open):
            self._take(request_id)

    def _take(self, request_id: str) -> dict[str, Any] | None:
        timer = self._timers.pop(request_id, None)
        if timer is not None:
            timer.cancel()
        request = self._open.pop(request_id, None)
        self._changed()
        return request


def _asking(request_id: str, request: dict[str, Any]) -> bytes:
    return frame("permission_request", request_id=request_id, request=request)


def _resolved(request_id: str, behavior: str) -> bytes:
    return frame("permission_resolved", request_id=request_id, behavior=behavior)
