"""The gateway under gunicorn: a master and its `asgi` workers on uvloop."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication

from ccd_gateway.app import create_app
from ccd_gateway.envelope import Envelope
from ccd_gateway.parent import die_with_parent
from ccd_gateway.settings import GatewaySettings


def run(settings: GatewaySettings, on_ready: Callable[[], None] | None = None) -> int:
    """Serve until SIGTERM (open requests may end, up to `graceful_timeout_s`) or SIGINT (at once).

    The calling process becomes the master; it must be the main thread of its process.

    Args:
        settings: what to serve.
        on_ready: called once in the master when the socket listens; workers may still be starting then, and
            the kernel holds the first connections for them.

    Returns:
        The exit status.
    """
    parent = os.getppid()
    if settings.die_with_parent:
        die_with_parent(parent, signal.SIGTERM)
    try:
        _Server(settings, on_ready).run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def options(settings: GatewaySettings) -> dict[str, Any]:
    """gunicorn's settings. Whatever is not here is gunicorn's default."""
    return {
        "bind": [settings.bind],
        "workers": settings.workers,
        "worker_class": "asgi",
        "asgi_loop": "uvloop",
        "asgi_lifespan": "on",
        # The envelope cancels at once; this is for what it does not see.
        "asgi_disconnect_grace_period": 1,
        "keepalive": 75,
        "timeout": 120,
        "graceful_timeout": settings.graceful_timeout_s,
        "backlog": 4096,
        "preload_app": True,  # one copy of the code in memory, and errors show before a worker exists
        "control_socket_disable": True,
        "loglevel": "warning",
        "proc_name": "ccd-gateway",
    }


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with its settings from ours; its own command line, files and variables are not read."""

    def __init__(self, settings: GatewaySettings, on_ready: Callable[[], None] | None) -> None:
        self._settings = settings
        self._on_ready = on_ready
        super().__init__()

    def load_config(self) -> None:
        for name, value in options(self._settings).items():
            self.cfg.set(name, value)
        self.cfg.set("when_ready", self._when_ready)
        self.cfg.set("pre_fork", _pre_fork)
        if self._settings.die_with_parent:
            self.cfg.set("post_fork", _post_fork)

    def load(self) -> Envelope:
        return create_app(self._settings)

    def _when_ready(self, arbiter: Any) -> None:
        if self._on_ready is not None:
            self._on_ready()


def _pre_fork(arbiter: Any, worker: Any) -> None:
    """Leave what is loaded out of garbage collection, so that its pages stay shared with the workers."""
    gc.collect()
    gc.freeze()


def _post_fork(arbiter: Any, worker: Any) -> None:
    """A master that ends in order has stopped its workers before; this is for one that was killed."""
    die_with_parent(worker.ppid, signal.SIGKILL)
