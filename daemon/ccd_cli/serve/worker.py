"""`ccd worker`: durable work, with what other parts of ccd lend it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ccd_cli.serve.lent import Keys, files_of, poster
from ccd_gateway.settings import load_settings
from ccd_tasks import settings as settings_module
from ccd_tasks import worker


def serve_worker(environ: Mapping[str, str], socket: Path | None, ready: Callable[[Path], None]) -> int:
    """Run the worker until SIGTERM; returns the exit status.

    Raises:
        SettingsError: naming the key. SocketError, DatabaseError: it cannot be run.
    """
    settings = settings_module.read(environ, socket=socket)
    gateway = load_settings(environ, {})
    outside = worker.Outside(
        poster(settings.tasks.webhook_networks),
        Keys(gateway.keys_path(os.environ), gateway.usage_path(os.environ)),
        files_of(gateway.allowed_roots),
    )
    return worker.serve(settings, outside, ready=lambda: ready(settings.socket))
