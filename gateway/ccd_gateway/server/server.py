"""The gateway under gunicorn: a master and its `asgi` workers on uvloop."""

from __future__ import annotations

import gc
import os
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

from ccd_gateway import boot_signals
from ccd_gateway.access.auth import is_local, why_not
from ccd_gateway.access.keyfile import KeyFileError
from ccd_gateway.app import create_app
from ccd_gateway.edge import heap
from ccd_gateway.edge.envelope import App
from ccd_gateway.metrics import gather
from ccd_gateway.server.internals import GatewayWorker
from ccd_gateway.server.tls import CertificateError, Certificates
from ccd_gateway.settings import GatewaySettings, json_log
from ccd_settings import logs
from ccd_settings.parent import die_with_parent, starter
from ccd_settings.service_manager import Notifier, take_socket

_BACKLOG = 4096
#: gunicorn's own lines go the way of all others.
_JSON_LOG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "ccd_settings.logs.JsonFormatter"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}
    },
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {"gunicorn.error": {"level": "WARNING", "handlers": [], "propagate": True}},
}
_STUCK_S = 30  # a worker whose loop says nothing for so long is killed, and another one started


def run(settings: GatewaySettings, on_ready: Callable[[str], None] | None = None) -> int:
    """Serve until SIGTERM (open requests may end, up to `graceful_timeout_s`) or SIGINT (at once).

    The calling process becomes the master; this must be the main thread of its process.

    Args:
        settings: what to serve.
        on_ready: called once in the master with the URL, when all its workers take requests. The socket listens
            before that, and the kernel holds the first connections for them.

    Returns:
        The exit status; 1 when the address cannot be used, 2 when it must not be used without keys.
    """
    if settings.die_with_parent:
        die_with_parent(starter(os.environ), signal.SIGTERM)
    as_json = json_log(os.environ)
    if as_json:
        logs.configure("warning", "json")
    say = partial(logs.say, "ccd gateway", as_json=as_json)
    manager = Notifier(os.environ)
    try:
        listener = take_socket(os.environ, "http") or listen(settings.bind)
    except OSError as error:
        say(f"cannot listen on {settings.bind}: {_why(error)}")
        return 1
    refusal = _refusal(settings, listener)
    if refusal is not None:
        listener.close()
        say(refusal)
        return 2
    try:
        certificates = Certificates(settings.certfile, settings.keyfile) if settings.certfile else None
    except CertificateError as error:
        listener.close()
        say(str(error))
        return 2
    if not is_local(listener.getsockname()) and not settings.insecure_no_auth:
        # Also where a worker starts when the last key is gone.
        settings = replace(settings, require_keys=True)
    listeners = Listeners(listener, _admin_listener(settings))
    try:
        with gather.shared() if listeners.admin else nullcontext():
            _Server(settings, listeners, partial(_ready, manager, on_ready), certificates).run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


class Listeners(NamedTuple):
    """The open sockets to serve."""

    public: socket.socket
    admin: socket.socket | None


def _admin_listener(settings: GatewaySettings) -> socket.socket | None:
    """The socket of the admin address. One that cannot be had costs the figures, not the service."""
    if settings.admin_bind is None:
        return None
    try:
        return listen(settings.admin_bind)
    except OSError as error:
        text = f"no metrics: cannot listen on {settings.admin_bind} (gateway.admin_bind): {_why(error)}"
        logs.say("ccd gateway", text, as_json=json_log(os.environ))
        return None


def _ready(manager: Notifier, on_ready: Callable[[str], None] | None, url: str) -> None:
    manager.tell("READY=1", f"STATUS=serving {url}", f"MAINPID={os.getpid()}")
    if on_ready is not None:
        on_ready(url)


def _refusal(settings: GatewaySettings, listener: socket.socket) -> str | None:
    try:
        return why_not(
            listener.getsockname(),
            settings.keys_path(os.environ),
            insecure=settings.insecure_no_auth,
            required=settings.require_keys,
        )
    except KeyFileError as error:
        return str(error)


def _why(error: OSError) -> str:
    """The reason alone; some errors carry the address once more."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def listen(bind: str) -> socket.socket:
    """The listening socket for `HOST:PORT` (port 0 is any free one), or the open one of `fd://N`.

    Raises:
        OSError: the address is taken, or not this machine's.
    """
    if bind.startswith("fd://"):
        return socket.socket(fileno=int(bind.removeprefix("fd://")))
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)


def url(listener: socket.socket, scheme: str = "http") -> str:
    """Where the gateway can be reached."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def options(settings: GatewaySettings) -> dict[str, Any]:
    """gunicorn's settings. Whatever is not here is gunicorn's default."""
    return {
        "workers": settings.workers,
        "worker_class": GatewayWorker,
        "asgi_loop": "uvloop",
        "asgi_lifespan": "on",
        "websocket_max_message_size": settings.max_message_bytes,
        # The envelope cancels at once; this is for what it does not see.
        "asgi_disconnect_grace_period": 1,
        "keepalive": 75,
        "timeout": _STUCK_S,
        "graceful_timeout": settings.graceful_timeout_s,
        "backlog": _BACKLOG,
        "preload_app": True,  # one copy of the code in memory, and errors show before a worker exists
        "control_socket_disable": True,
        "loglevel": "warning",
        "proc_name": "ccd-gateway",
    }


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with its settings from ours; its own command line, files and variables are not read.

    Attributes:
        settings: ours, for the workers.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        listeners: Listeners,
        on_ready: Callable[[str], None],
        certificates: Certificates | None = None,
    ) -> None:
        self.settings = settings
        self._certificates = certificates
        self._url = url(listeners.public, "https" if certificates else "http")
        self._admin_address = listeners.admin.getsockname() if listeners.admin else None
        # gunicorn makes sockets of its own of them, and closes these numbers
        self._fds = [listener.detach() for listener in listeners if listener is not None]
        self._on_ready = on_ready
        super().__init__()

    def load_config(self) -> None:
        for name, value in options(self.settings).items():
            self.cfg.set(name, value)
        self.cfg.set("bind", [f"fd://{fd}" for fd in self._fds])
        if self._certificates is not None:
            self.cfg.set(
                "certfile", str(self.settings.certfile)
            )  # so that gunicorn knows that it serves HTTPS
            self.cfg.set("ssl_context", self._context)
        if json_log(os.environ):
            self.cfg.set("logconfig_dict", _JSON_LOG)
        self.cfg.set("when_ready", self._when_ready)
        self.cfg.set("pre_fork", _pre_fork)
        self.cfg.set("child_exit", _child_exit)
        self.cfg.set("post_fork", _post_fork if self.settings.die_with_parent else _hold_signals)

    def _context(self, config: Any, default: Any) -> ssl.SSLContext:
        assert self._certificates is not None
        return self._certificates.context

    def load(self) -> App:
        heap.part_large_blocks()
        return create_app(self.settings, admin_address=self._admin_address)

    def _when_ready(self, arbiter: Any) -> None:
        boot_signals.expect(self.settings.workers, partial(self._on_ready, self._url))


def _pre_fork(arbiter: Any, worker: Any) -> None:
    """Leave what is loaded out of garbage collection, so that its pages stay shared with the workers."""
    gc.collect()
    gc.freeze()


def _child_exit(arbiter: Any, worker: Any) -> None:
    if arbiter.app._admin_address is not None:
        gather.mark_dead(worker.pid)


def _post_fork(arbiter: Any, worker: Any) -> None:
    """A master that ends in order has stopped its workers before; this is for one that was killed."""
    _hold_signals(arbiter, worker)
    die_with_parent(worker.ppid, signal.SIGKILL)


def _hold_signals(arbiter: Any, worker: Any) -> None:
    boot_signals.hold()
