"""Serves the offline API: gunicorn with its own asgi worker on uvloop, one worker, loopback only."""

# gunicorn ships no type information.
# mypy: disable-error-code="import-untyped,misc"

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from ccd_settings.parent import die_with_parent, starter

_BACKLOG = 4096


class NotLoopbackError(ValueError):
    """An address that other machines could reach."""


def listen(bind: str) -> socket.socket:
    """A listening socket for `HOST:PORT` (port 0: any free one).

    Raises:
        NotLoopbackError: the host is not an address of the loopback interface.
        ValueError: it is no address at all.
        OSError: it cannot be bound.
    """
    host, _, port = bind.rpartition(":")
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    if not address.is_loopback:
        raise NotLoopbackError(
            f"{bind}: the offline API only binds loopback addresses, for example 127.0.0.1:0"
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((str(address), int(port)))
    listener.listen(_BACKLOG)
    return listener


def url(listener: socket.socket) -> str:
    """The base URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Log(Logger):
    """Gunicorn's log without the one line that a script's cut connection would cause each time."""

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if "returned without completing" not in msg:
            super().error(msg, *args, **kwargs)


class OfflineServer(BaseApplication):
    """The offline API under gunicorn. `run` returns when it was told to stop."""

    def __init__(self, listener: socket.socket, port_file: Path | None = None) -> None:
        self._url = url(listener)
        self._fd = listener.detach()  # gunicorn duplicates and closes it
        self._port_file = port_file
        super().__init__()

    def load_config(self) -> None:
        """Gunicorn's settings."""
        settings = {
            "bind": f"fd://{self._fd}",
            "worker_class": "asgi",
            "asgi_loop": "uvloop",
            "asgi_lifespan": "off",
            "asgi_disconnect_grace_period": 0,
            "workers": 1,
            "keepalive": 75,
            "graceful_timeout": 1,
            "loglevel": "warning",
            "logger_class": _Log,
            "proc_name": "ccd-offline",
            "control_socket_disable": True,  # else gunicorn puts a socket into the user's runtime directory
            "post_fork": lambda server, worker: die_with_parent(worker.ppid, signal.SIGKILL),
            "post_worker_init": self._announce,
        }
        for name, value in settings.items():
            if name in self.cfg.settings:  # older versions lack some of them, and do not need them either
                self.cfg.set(name, value)

    def load(self) -> Any:
        """The application, made in the worker: its state belongs to one event loop."""
        from ccd_offline.app import create  # noqa: PLC0415

        return create()

    def _announce(self, worker: Any) -> None:
        """Say where the API is, once it answers."""
        line = json.dumps({"url": self._url}) + "\n"
        if worker.age > 1:
            return
        if self._port_file is None:
            sys.stdout.write(line)
            sys.stdout.flush()
            return
        temporary = self._port_file.with_name(f"{self._port_file.name}.{os.getpid()}")
        temporary.write_text(line)
        temporary.replace(self._port_file)


def serve(bind: str, port_file: Path | None = None) -> None:
    """Serve until stopped by SIGTERM or SIGINT, or until the parent process ends."""
    die_with_parent(starter(os.environ), signal.SIGKILL)
    OfflineServer(listen(bind), port_file).run()
