"""What a hostile tool of a session does: it connects to the daemon in a way that hides where it comes from.

Run as a program, `insider.py WAY SOCKET OUTPUT`, it tries every method, and writes a JSON map from attempt to code, 0
for success.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, get_type_hints

from ccd_protocol.methods import METHODS
from ccd_protocol.peer import CallFailed, Ended, Peer

WAYS = ("plain", "forked", "orphaned", "scrubbed", "deep")
_DEPTH = 300
_CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
_VALUES: dict[str, Any] = {
    **_CHAT,
    "session_id": "secret",
    "content": "hello",
    "mode": "plan",
    "request_id": "r",
}


def main() -> None:
    way, path, output = sys.argv[1:]
    if way == "scrubbed" and "PYTHONPATH" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], {"PYTHONPATH": ":".join(sys.path)})
    if way in ("orphaned", "scrubbed"):
        _leave()
    for _ in range(_DEPTH if way == "deep" else 0):
        if pid := os.fork():
            os.waitpid(pid, 0)
            os._exit(0)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    if way == "forked":
        _leave(setsid=False)
    found = {name: _attempt(sock, index, method, params) for index, name, method, params in _attempts()}
    Path(f"{output}.part").write_text(json.dumps(found))
    Path(f"{output}.part").rename(output)


def _leave(*, setsid: bool = True) -> None:
    """Go on in a child whose parent has ended."""
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    if setsid:
        os.setsid()
    while os.getppid() == parent:
        time.sleep(0.005)


def _attempts() -> list[tuple[int, str, str, dict[str, Any]]]:
    tries = []
    for method, entry in METHODS.items():
        keys = get_type_hints(entry.params)
        params = {key: value for key, value in _VALUES.items() if key in keys}
        tries.append((method, method, params))
        if method.startswith("conversation.") and "conversation_id" in keys:
            params["conversation_id"] = "secret"
        if "tenant" in keys:
            tries.append((f"{method} as bob", method, {**params, "tenant": "bob"}))
    tries.append(("chat.complete in a conversation", "chat.complete", {**_CHAT, "conversation_id": "secret"}))
    tries.append(("chat.complete cached", "chat.complete", {**_CHAT, "cache": {"key": "k"}}))
    return [(index, *one) for index, one in enumerate(tries)]


_peer = Peer("connecting", "insider")


def _attempt(sock: socket.socket, index: int, method: str, params: dict[str, Any]) -> int:
    call = _peer.call(method, params, timeout_ms=20_000, window=1 << 20)
    sock.sendall(b"".join(_peer.outgoing()))
    while True:
        data = sock.recv(65536)
        if not data:
            return -1
        for event in _peer.receive(data):
            if isinstance(event, Ended | CallFailed) and event.id == call:
                return int(event.code) if isinstance(event, CallFailed) else 0


if __name__ == "__main__":
    main()
