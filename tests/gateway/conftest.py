from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.gateway_daemon import Daemon
from fakes.gateway_process import Gateway


@pytest.fixture(scope="module")
def _daemon() -> Iterator[Daemon]:
    # A socket's path may have 107 bytes at most; pytest's own directories can be longer.
    with tempfile.TemporaryDirectory(prefix="ccd-") as folder, Daemon(Path(folder) / "d.sock") as daemon:
        yield daemon


@pytest.fixture
def daemon(_daemon: Daemon) -> Daemon:
    """A stand-in that answers every chat with nothing special; scripts do not outlive a test."""
    _daemon.scripts.clear()
    _daemon.calls.clear()
    _daemon.cancelled.clear()
    while _daemon.arrivals.acquire(blocking=False) or _daemon.cancellations.acquire(blocking=False):
        pass
    _daemon.chat()
    return _daemon


@pytest.fixture(scope="module")
def gateway(_daemon: Daemon) -> Iterator[Gateway]:
    """One gateway for all tests of a module; its log must stay empty."""
    with Gateway(_daemon.path, max_body_bytes=1_000_000, keepalive_s=0.2, reconnect_wait_s=5) as running:
        yield running
    assert running.log == running.greeting
