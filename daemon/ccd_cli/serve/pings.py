"""Whether a part of `ccd up` still answers: one ping after the other, and the patience with those that are missed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from ccd_client import AsyncClient
from ccd_protocol.errors import Code, RpcError

PINGS = 3
Ping = Callable[[], Awaitable[None]]
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Patience:
    """Pings that were missed in a row. Pure.

    Args:
        limit_s: the time that they have to take together.
    """

    def __init__(self, limit_s: float) -> None:
        self.interval_s = limit_s / PINGS
        self._missed = 0

    def answered(self) -> None:
        """An answer has come."""
        self._missed = 0

    def missed(self, took_s: float) -> bool:
        """No answer has come; whether it is enough now.

        Args:
            took_s: how long the wait for it took by a clock that never jumps. It was to take `interval_s`: what is more
                is the pinger's own lateness, and when that is as long again, it was this process that did not run, and
                an answer may lie unread.
        """
        late_s = took_s - self.interval_s
        if late_s < self.interval_s:
            self._missed += 1
        return self._missed >= PINGS


async def watch(ping: Ping, limit_s: float) -> None:
    """Ping without end; returns when `PINGS` in a row were missed over `limit_s`."""
    loop = asyncio.get_running_loop()
    patience = Patience(limit_s)
    while True:
        began_s = loop.time()
        try:
            async with asyncio.timeout(patience.interval_s):
                await ping()
            patience.answered()
            await asyncio.sleep(patience.interval_s)
        except Exception:  # whatever went wrong, it was no answer; what fails at once is asked again in time
            await asyncio.sleep(max(0.0, began_s + patience.interval_s - loop.time()))
            if patience.missed(loop.time() - began_s):
                return


def of_daemon(socket: Path) -> Ping:
    """Asks the daemon at a socket."""

    async def ping() -> None:
        try:
            async with AsyncClient(socket, reconnect_wait_s=0) as client:
                await client.call("daemon.ping")
        except RpcError as error:
            if error.code is Code.LOST:
                raise
            # Any other refusal is an answer.

    return ping


def of_gateway(url: str) -> Ping:
    """Asks the gateway at a URL; whatever it answers, it is there."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = _ANYWHERE.get(host, host)

    async def ping() -> None:
        reader, writer = await asyncio.open_connection(host, parts.port, ssl=_trusting(parts.scheme))
        try:
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if not (await reader.readexactly(5)).startswith(b"HTTP/"):
                raise ValueError("that is no HTTP")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return ping


def _trusting(scheme: str) -> ssl.SSLContext | None:
    """Takes any certificate: it is our own gateway, and nothing is told it."""
    if scheme != "https":
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
