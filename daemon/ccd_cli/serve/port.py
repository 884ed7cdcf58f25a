"""Who has a port, and another one that is free."""

from __future__ import annotations

import contextlib
import socket

import psutil


def is_free(host: str, port: int) -> bool:
    """Whether somebody could listen there now."""
    with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_near(host: str, port: int) -> int:
    """The next port that is free; any free one when the next hundred are not."""
    for candidate in range(port + 1, min(port + 101, 65536)):
        if is_free(host, candidate):
            return candidate
    with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def holder(port: int) -> str:
    """Who listens there, as far as this user may know: `python3 (pid 123)`."""
    try:
        listening = [
            found.pid
            for found in psutil.net_connections("tcp")
            if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port and found.pid
        ]
        return (
            f"{psutil.Process(listening[0]).name()} (pid {listening[0]})"
            if listening
            else "another user's program"
        )
    except psutil.Error:
        return "another program"
