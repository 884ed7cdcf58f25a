"""The offline Messages API as a process of its own, and the little HTTP that tests need to talk to it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from typing import Any
from urllib.parse import urlencode, urlsplit

HEADERS = {"x-api-key": "test-key", "anthropic-version": "2023-06-01", "content-type": "application/json"}


def directive(**fields: Any) -> str:
    """A directive as it is written into a prompt."""
    return f"[[offline: {json.dumps(fields)}]]"


class OfflineApi:
    """Starts the API, waits until it is ready, and ends it on exit."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "ccd_offline", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the offline API did not start"
        self.url: str = json.loads(line)["url"]

    def __enter__(self) -> OfflineApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and wait for it."""
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def connection(self) -> http.client.HTTPConnection:
        """A new connection."""
        where = urlsplit(self.url)
        return http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request: status, headers (lower case) and body of its answer."""
        connection = self.connection()
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, HEADERS if headers is None else headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer of a request that must succeed."""
        status, _, data = self.call(method, path, body)
        assert status == 200, data
        return json.loads(data)

    def script(self, *replies: dict[str, Any]) -> None:
        """Queue scripted answers: {"reply": {…}, "match": {…}, "uses": 1}."""
        self.json("POST", "/_offline/script", {"replies": list(replies)})

    def requests(self, path: str = "/v1/messages", **query: Any) -> list[dict[str, Any]]:
        """What was received, oldest first; `wait=2, finished=1` waits for two finished requests."""
        found: list[dict[str, Any]] = self.json(
            "GET", f"/_offline/requests?{urlencode({'path': path, **query})}"
        )["requests"]
        return found

    def reset(self) -> None:
        """Forget requests and scripts."""
        self.json("POST", "/_offline/reset")
