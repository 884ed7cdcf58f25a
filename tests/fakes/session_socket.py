"""A client of `/ws/session/{id}` with a real WebSocket library, and the REST calls beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from .gateway_process import Answer
from .offline_api import directive

WAIT_S = 60


def ask(
    url: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One HTTP request; a body that is not bytes is sent as JSON."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=WAIT_S)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, dict(headers or {}))
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


def opened(url: str, headers: Mapping[str, str] | None = None, **wanted: Any) -> str:
    """A new session's id."""
    answer = ask(url, "POST", "/v1/sessions", wanted, headers)
    assert answer.status == 201, answer.body
    assert answer.json == {"session_id": answer.json["session_id"], "ws_url": answer.json["ws_url"]}
    assert answer.json["ws_url"] == f"/ws/session/{answer.json['session_id']}"
    return str(answer.json["session_id"])


def socket_url(url: str, session_id: str) -> str:
    return f"{url.replace('http', 'ws', 1)}/ws/session/{session_id}"


class Talk:
    """What is said over one connection; `frames` are all that came."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[dict[str, Any]] = []

    def say(self, kind: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": kind, **fields}))

    def frame(self) -> dict[str, Any]:
        text = self.connection.recv(WAIT_S)
        assert isinstance(text, str) and text.endswith("\n") and text.count("\n") == 1
        self.frames.append(json.loads(text))
        return self.frames[-1]

    def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next frame of a kind with such fields; those before it are read too."""
        while True:
            frame = self.frame()
            if frame["type"] == kind and fields.items() <= frame.items():
                return frame

    def ask(self, text: str) -> dict[str, Any]:
        """Say something, and wait for the end of the turn."""
        self.say("user_message", content=text)
        return self.until("result")

    def closed(self) -> tuple[int, str]:
        """Read to the end: the code and reason of the close frame."""
        try:
            while True:
                self.frame()
        except ConnectionClosed as end:
            assert end.rcvd is not None
            return end.rcvd.code, end.rcvd.reason


def using(tool: str, **given: Any) -> str:
    """A prompt upon which the scripted model uses a tool."""
    return "Do it. " + directive(thinking="hm", tool_calls=[{"name": tool, "input": given}])
