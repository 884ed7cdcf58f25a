"""A client that is attached to a session over the daemon's socket, and the little that tests ask of one."""

from __future__ import annotations

import json
from typing import Any

from ccd_client import Client


class Attached:
    """One attached client; `frames` are all that it has been shown so far."""

    def __init__(self, client: Client, session_id: str) -> None:
        self.client = client
        self.session_id = session_id
        self.frames: list[dict[str, Any]] = []
        self._stream = client.call_stream("session.attach", {"session_id": session_id})
        self._unread: list[dict[str, Any]] = []
        self._rest = b""

    def call(self, method: str, **params: Any) -> Any:
        return self.client.call(f"session.{method}", {"session_id": self.session_id, **params})

    def frame(self) -> dict[str, Any]:
        """The next frame; StopIteration when the session has ended."""
        while not self._unread:
            *lines, self._rest = (self._rest + next(self._stream)).split(b"\n")
            self._unread += map(json.loads, lines)
        self.frames.append(self._unread.pop(0))
        return self.frames[-1]

    def until(self, kind: str, subtype: str | None = None) -> dict[str, Any]:
        """The next frame of a kind; those before it are read too."""
        while True:
            frame = self.frame()
            if frame["type"] == kind and subtype in (None, frame.get("subtype")):
                return frame

    def ask(self, text: str) -> dict[str, Any]:
        """Say something, and wait for the end of the turn."""
        self.call("send", content=text)
        return self.until("result")

    def ended(self) -> str:
        """Read to the end: why it ended. RpcError when it failed."""
        try:
            while True:
                self.frame()
        except StopIteration:
            return str(self._stream.result["reason"])

    def close(self) -> None:
        self._stream.close()


def open_session(client: Client, **params: Any) -> Attached:
    """A new session, attached to."""
    return Attached(client, client.call("session.open", params)["session_id"])
