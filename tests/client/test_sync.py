"""The blocking client in a program that forks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.peer_server import PeerServer

# A program of its own, because forking the tests' process would fork their threads, too.
_FORKS = """
import os, sys, threading
from ccd_client import Client, RpcError

client = Client(sys.argv[1])
stream = client.call_stream("stream", {"count": 20, "size": 1000}, window_bytes=2000)
next(stream)
waiting = threading.Thread(target=lambda: client.call("echo", {"of": "a thread"}))
waiting.start()
child = os.fork()
if not child:
    try:
        list(stream)
    except RpcError as error:
        print(error.code.name, error.message)
    print(client.call("echo", {"of": "child"}))
    stream.close()
    client.close()
    sys.stdout.flush()
    os._exit(0)
_, status = os.waitpid(child, 0)
waiting.join()
print("child", status)
print(1 + sum(1 for _ in stream), client.call("echo", {"of": "parent"}))
client.close()
"""
# Newer Pythons warn of what this program does on purpose: to fork beside a thread.
_UNWARNED = ("-W", "ignore:This process:DeprecationWarning")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PeerServer]:
    with PeerServer(tmp_path / "s") as server:
        yield server


def test_a_forked_process_has_a_connection_of_its_own(server: PeerServer) -> None:
    done = subprocess.run(
        [sys.executable, *_UNWARNED, "-c", _FORKS, str(server.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    said = done.stdout.splitlines()
    assert said[0].startswith("LOST the connection belongs to the process that this one was forked from")
    assert said[1:] == ["{'of': 'child'}", "child 0", "20 {'of': 'parent'}"]
    assert server.connections == 2
    assert server.cancelled == []
